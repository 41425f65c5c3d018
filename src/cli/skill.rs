//! `skill`: installs what teaches an agent with a shell to use this program, and takes it away again.
//!
//! One file in a directory of its own, which is shown before it is written. What somebody else wrote there is
//! neither replaced nor removed. Imports its siblings alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::args::{SkillCommand, SkillPlace};
use super::ask::{self, Answer};
use super::context::Context;
use super::error::CliError;

/// What is installed.
pub(super) const SKILL: &str = include_str!("../../integrations/skill/SKILL.md");
const FILE: &str = "SKILL.md";
const DIRECTORY: &str = "ravi-broker";
/// By which a file is known as ours, of whichever version.
const MARK: &str = "---\nname: ravi-broker\n";
/// A skill is a page.
const MAX_BYTES: u64 = 256 * 1024;

/// Why nothing was installed or removed.
#[derive(Debug, Error)]
pub(crate) enum SkillError {
    #[error("there is no home directory\nname the directory of skills with --to")]
    NoHome,
    #[error("another skill is at {}\nname another directory with --to, or remove it", .0.display())]
    Foreign(PathBuf),
    #[error("{}: {}\nsee that the path is right and that this user may write there", .0.display(), .1.kind())]
    Io(PathBuf, #[source] io::Error),
    #[error("nothing was changed: there is no terminal to ask on\ngive --yes to go on without being asked")]
    NotAsked,
    #[error("nothing was changed\nrun it again and answer y, or give --yes")]
    Declined,
}

/// What is at the place.
#[derive(Debug, PartialEq, Eq)]
enum There {
    Nothing,
    /// This text.
    Same,
    /// Ours, of another version.
    Older,
}

pub(super) fn run(context: &mut Context, command: &SkillCommand) -> Result<(), CliError> {
    match command {
        SkillCommand::Show => context.out.text(SKILL).map_err(CliError::Output),
        SkillCommand::Install(place) => install(context, place),
        SkillCommand::Uninstall(place) => uninstall(context, place),
    }
}

fn install(context: &Context, place: &SkillPlace) -> Result<(), CliError> {
    let path = path(place)?;
    if look(&path)? == There::Same {
        context.notes.say(&format!("{} is there already.", path.display()));
        return Ok(());
    }
    context.notes.say(&format!("This is written to {}:", path.display()));
    if !context.out.is_json() {
        context.notes.raw(&format!("\n{SKILL}\n"));
    }
    agree(place.yes, "Write it?")?;
    write(&path).map_err(|error| SkillError::Io(path.clone(), error))?;
    let undo = "`ravi-broker skill uninstall` takes it away";
    context.notes.say(&format!("Written to {}; {undo}.", path.display()));
    Ok(())
}

fn uninstall(context: &Context, place: &SkillPlace) -> Result<(), CliError> {
    let path = path(place)?;
    if look(&path)? == There::Nothing {
        context.notes.say(&format!("There is no skill at {}.", path.display()));
        return Ok(());
    }
    context.notes.say(&format!("{} is removed.", path.display()));
    agree(place.yes, "Remove it?")?;
    fs::remove_file(&path).map_err(|error| SkillError::Io(path.clone(), error))?;
    // Not if somebody keeps more in it.
    let _ = path.parent().map(fs::remove_dir);
    Ok(())
}

/// The skill's file: below the directory that is named, else that of Claude Code's skills.
fn path(place: &SkillPlace) -> Result<PathBuf, SkillError> {
    let home = || std::env::home_dir().filter(|home| home.is_absolute()).ok_or(SkillError::NoHome);
    let skills = match &place.to {
        Some(directory) => directory.clone(),
        None => home()?.join(".claude").join("skills"),
    };
    Ok(skills.join(DIRECTORY).join(FILE))
}

fn look(path: &Path) -> Result<There, SkillError> {
    let failed = |error| SkillError::Io(path.to_owned(), error);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        // A link: not made by us.
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(SkillError::Foreign(path.to_owned()));
        }
        Err(error) => return Err(failed(error)),
    };
    let mut text = Vec::new();
    if file.metadata().map_err(failed)?.is_file() {
        file.take(MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
    }
    match text {
        text if text == SKILL.as_bytes() => Ok(There::Same),
        text if text.starts_with(MARK.as_bytes()) => Ok(There::Older),
        _ => Err(SkillError::Foreign(path.to_owned())),
    }
}

fn write(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let fresh = directory.join(".SKILL.md.new");
    // Left by one that was killed.
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&fresh)?;
    let written = file.write_all(SKILL.as_bytes()).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

fn agree(yes: bool, question: &str) -> Result<(), SkillError> {
    match ask::agree(yes, question) {
        Answer::Yes => Ok(()),
        Answer::No => Err(SkillError::Declined),
        Answer::Nobody => Err(SkillError::NotAsked),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn the_skill_is_known_as_ours_and_fits() {
        assert!(SKILL.starts_with(MARK) && SKILL.len() < 16 * 1024);
        let description = SKILL.lines().find_map(|line| line.strip_prefix("description: ")).unwrap();
        assert!(description.len() <= 1024);
    }

    #[test]
    fn the_skill_names_only_commands_that_there_are() {
        let known: Vec<String> =
            Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        let mut named = 0;
        for rest in SKILL.split("ravi-broker ").skip(1) {
            let word = rest.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap_or_default();
            if word.is_empty() || word == "hands" {
                continue;
            }
            assert!(known.iter().any(|command| command == word), "{word}");
            named += 1;
        }
        assert!(named > 10, "{named}");
    }

    #[test]
    fn the_lines_of_the_skill_are_command_lines() {
        let blocks = SKILL.split("```sh\n").skip(1).filter_map(|block| block.split_once("\n```"));
        let lines: Vec<&str> = blocks.flat_map(|(block, _)| block.lines()).collect();
        assert!(lines.len() > 5);
        for line in lines {
            let line = line.split(['#', '|']).next().unwrap_or_default().replace("ROLE", "role");
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(<Cli as clap::Parser>::try_parse_from(&words).is_ok(), "{line}");
        }
    }
}
