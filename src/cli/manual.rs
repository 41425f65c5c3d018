//! `completions` and `man`: what is derived from the one definition of the command line (`args`).

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{Cli, Completions, ManualPages, Shell};
use super::context::Context;
use super::error::CliError;

const NAME: &str = "ravi-broker";

/// One page: the name of its file, and its text.
struct Page {
    file: String,
    text: String,
}

pub(super) fn completions(context: &mut Context, args: &Completions) -> Result<(), CliError> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    context.out.text(&String::from_utf8_lossy(&script)).map_err(CliError::Output)
}

pub(super) fn pages(context: &mut Context, args: &ManualPages) -> Result<(), CliError> {
    let pages = all().map_err(CliError::Output)?;
    let Some(directory) = &args.dir else {
        // The first page is that of the program.
        return context.out.text(&pages[0].text).map_err(CliError::Output);
    };
    write(directory, &pages).map_err(CliError::Output)?;
    context.notes.say(&format!("{} pages are in {}.", pages.len(), directory.display()));
    Ok(())
}

fn write(directory: &Path, pages: &[Page]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    pages.iter().try_for_each(|page| fs::write(directory.join(&page.file), &page.text))
}

/// The program's page, and one for each command below it.
fn all() -> io::Result<Vec<Page>> {
    let mut root = Cli::command();
    root.build();
    let (mut pages, mut left) = (Vec::new(), vec![root]);
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        let page = Man::new(command);
        let mut text = Vec::new();
        page.render(&mut text)?;
        let text = unfilled(&String::from_utf8_lossy(&text));
        pages.push(Page { file: page.get_filename(), text });
    }
    Ok(pages)
}

/// The text after the options has its line breaks already: commands would be torn apart.
fn unfilled(text: &str) -> String {
    let Some((options, notes)) = text.split_once("\n.SH EXTRA\n") else { return text.to_owned() };
    let (notes, rest) = notes.split_once("\n.SH").map_or((notes, None), |(notes, rest)| (notes, Some(rest)));
    let rest = rest.map(|rest| format!("\n.SH{rest}")).unwrap_or_default();
    format!("{options}\n.SH NOTES\n.nf\n{}\n.fi{rest}", notes.trim_end_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_example() {
        let mut root = Cli::command();
        root.build();
        let mut names = vec![NAME.to_owned()];
        let mut left: Vec<clap::Command> = root.get_subcommands().cloned().collect();
        while let Some(command) = left.pop() {
            left.extend(command.get_subcommands().cloned());
            names.push(command.get_display_name().unwrap().to_owned());
        }
        assert!(names.len() > 40 && names.iter().any(|name| name == "ravi-broker-lease-acquire"));
        let pages = all().unwrap();
        assert_eq!((pages.len(), pages[0].file.as_str()), (names.len(), "ravi-broker.1"));
        for name in names {
            let page = pages.iter().find(|page| page.file == format!("{name}.1")).unwrap();
            let (_, example) = page.text.rsplit_once("\nExample:").unwrap_or_default();
            assert!(example.contains("ravi\\-broker") && example.contains("\n.fi"), "{name}: {}", page.text);
        }
    }
}
