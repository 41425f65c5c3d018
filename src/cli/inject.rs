//! `inject`: a template with references becomes a file with values.
//!
//! Nothing is written before every value is there. The file is made beside its place, with mode 0600 from its
//! first moment, and takes the place in one step; a link at the place is replaced and not followed. Imports
//! `client`, `secret`, `types`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::args::Inject;
use super::context::{Context, text};
use super::error::CliError;
use super::input::{self, InputError};
use super::leased::Leased;
use crate::client::Delivery;
use crate::types::Reference;

/// Longest template.
const MAX_TEMPLATE: usize = 1024 * 1024;
/// Most credentials of one template.
const MAX_REFERENCES: usize = 64;
/// Longest result: 64 values of 48 KiB each may be named often.
const MAX_RESULT: usize = 16 * 1024 * 1024;
const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// Why a template became nothing. Both lines; neither quotes it.
#[derive(Debug, Error)]
pub(crate) enum InjectError {
    #[error("the template is not UTF-8 text\ntemplates hold text only")]
    NotText,
    #[error("line {0}: {{{{ has no }}}} on its line\nwrite {{{{ ravi://secret/KEY }}}}")]
    Open(usize),
    #[error(
        "line {0}: a placeholder holds no reference\nwrite {{{{ ravi://secret/KEY }}}}; other text in braces stands for nothing here"
    )]
    NoReference(usize),
    #[error("the template names more than 64 credentials\ndivide it")]
    TooMany,
    #[error("the result would be longer than 16 MiB\ndivide the template")]
    TooLong,
    #[error("the file with the template: {}\nsee that its path is right", .0.kind())]
    Template(io::Error),
    #[error("the file was not written: {}\nsee that its directory is there, and that this user may write in it", .0.kind())]
    File(io::Error),
    #[error("the file would take the place of something that is no regular file\nname another path")]
    NotAFile,
}

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    /// The index of a reference.
    Value(usize),
}

/// A template that was understood: its pieces, and each reference once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Template<'a> {
    pieces: Vec<Piece<'a>>,
    references: Vec<Reference>,
}

pub(super) async fn run(context: &mut Context, args: &Inject) -> Result<(), CliError> {
    if args.output.is_none() && context.out.is_terminal() && !args.force {
        return Err(CliError::InjectTerminal);
    }
    let source = read(args.input.as_deref())?;
    let source = std::str::from_utf8(&source).map_err(|_| InjectError::NotText)?;
    let template = Template::parse(source)?;
    let reason = args.purpose.reason.as_ref();
    let leased = context
        .under(&args.session, reason, async |client| {
            Leased::acquire(client, &template.references, &text(reason), Delivery::File).await
        })
        .await?;
    let result = template.filled(&leased)?;
    match &args.output {
        Some(path) => Ok(replace(path, &result)?),
        None => context.out.pieces(&[&result]).map_err(CliError::Output),
    }
}

fn read(path: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let Some(path) = path else { return Ok(input::request(MAX_TEMPLATE)?) };
    let file = File::open(path).map_err(InjectError::Template)?;
    let mut bytes = Zeroizing::new(Vec::new());
    let most = u64::try_from(MAX_TEMPLATE + 1).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes).map_err(InjectError::Template)?;
    if bytes.len() > MAX_TEMPLATE { Err(InputError::RequestTooLong.into()) } else { Ok(bytes) }
}

impl<'a> Template<'a> {
    /// Every pair of braces is a placeholder: one that names nothing is a mistake and no text.
    fn parse(source: &'a str) -> Result<Self, InjectError> {
        let mut template = Self::default();
        let mut rest = source;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let line = || 1 + source[..source.len() - after.len()].matches('\n').count();
            let closed = after.split_once(CLOSE).filter(|(inside, _)| !inside.contains('\n'));
            let (inside, left) = closed.ok_or_else(|| InjectError::Open(line()))?;
            let reference = inside.trim_matches([' ', '\t']).parse();
            let reference = reference.map_err(|_| InjectError::NoReference(line()))?;
            template.pieces.push(Piece::Text(before));
            let value = template.index_of(reference)?;
            template.pieces.push(Piece::Value(value));
            rest = left;
        }
        template.pieces.push(Piece::Text(rest));
        Ok(template)
    }

    fn index_of(&mut self, reference: Reference) -> Result<usize, InjectError> {
        if let Some(index) = self.references.iter().position(|known| *known == reference) {
            return Ok(index);
        }
        if self.references.len() == MAX_REFERENCES {
            return Err(InjectError::TooMany);
        }
        self.references.push(reference);
        Ok(self.references.len() - 1)
    }

    /// The result, in one buffer that does not grow.
    fn filled(&self, leased: &Leased) -> Result<Zeroizing<String>, CliError> {
        let values = self.references.iter().map(|reference| leased.value(reference));
        let values: Vec<&str> = values.collect::<Result<_, _>>()?;
        Ok(self.with(&values)?)
    }

    fn with(&self, values: &[&str]) -> Result<Zeroizing<String>, InjectError> {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => *text,
            Piece::Value(index) => values[*index],
        });
        let length: usize = pieces.clone().map(str::len).sum();
        if length > MAX_RESULT {
            return Err(InjectError::TooLong);
        }
        let mut result = Zeroizing::new(String::with_capacity(length));
        pieces.for_each(|piece| result.push_str(piece));
        Ok(result)
    }
}

/// Writes the file in place of one that is there.
fn replace(path: &Path, content: &str) -> Result<(), InjectError> {
    match path.symlink_metadata() {
        Ok(there) if !there.is_file() && !there.is_symlink() => return Err(InjectError::NotAFile),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(InjectError::File(error)),
        _ => {}
    }
    let (mut file, fresh) = create_beside(path).map_err(InjectError::File)?;
    let written = file.write_all(content.as_bytes()).and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written.map_err(InjectError::File)
}

/// A file of a name that nobody can have prepared.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| io::Error::from(io::ErrorKind::Other))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let name = format!(".ravi-broker-{:016x}", u64::from_ne_bytes(random));
    let fresh = directory.unwrap_or(Path::new(".")).join(name);
    // Mode 0600 before the umask, which can only take from it.
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    Ok((options.open(&fresh)?, fresh))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(source: &str) -> Result<String, InjectError> {
        let template = Template::parse(source)?;
        let values: Vec<String> = template.references.iter().map(|name| format!("<{name}>")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        Ok(template.with(&values)?.to_string())
    }

    #[test]
    fn placeholders_become_values_and_the_rest_stays_as_it_is() {
        assert_eq!(filled("").unwrap(), "");
        assert_eq!(filled("a: }} { b }\n").unwrap(), "a: }} { b }\n");
        assert_eq!(
            filled("a={{ ravi://secret/A }}\nb={{ravi://password/a.example#username}}{{ ravi://secret/A }}")
                .unwrap(),
            "a=<ravi://secret/A>\nb=<ravi://password/a.example#username><ravi://secret/A>"
        );
    }

    #[test]
    fn a_reference_is_fetched_once_however_often_it_is_named() {
        let source = "{{ ravi://secret/A }}{{ ravi://secret/a }}{{ ravi://secret/B }}".repeat(9);
        assert_eq!(Template::parse(&source).unwrap().references.len(), 2);
    }

    #[test]
    fn what_is_no_reference_is_told_with_its_line() {
        for (source, line) in [
            ("{{ }}", 1),
            ("a\n{{ secret/A }}", 2),
            ("{{ ravi://secret/A }}\n\n{{ env.HOME }}", 3),
            ("{{ {{ ravi://secret/A }} }}", 1),
            ("{{ ravi://secret/A | upper }}", 1),
        ] {
            let error = filled(source).unwrap_err();
            assert!(matches!(error, InjectError::NoReference(found) if found == line), "{source}: {error}");
        }
        for source in ["{{ ravi://secret/A", "\n{{ ravi://secret/A\n}}"] {
            assert!(matches!(filled(source), Err(InjectError::Open(_))), "{source}");
        }
    }

    #[test]
    fn there_are_only_so_many_credentials_and_bytes() {
        let many: String = (0..=MAX_REFERENCES).map(|n| format!("{{{{ ravi://secret/A{n} }}}}")).collect();
        assert!(matches!(filled(&many), Err(InjectError::TooMany)));
        let value = "v".repeat(MAX_RESULT / 2);
        let template = Template::parse("{{ ravi://secret/A }}{{ ravi://secret/A }}").unwrap();
        assert!(template.with(&[&value]).is_ok());
        let template = Template::parse("{{ ravi://secret/A }}{{ ravi://secret/A }}.").unwrap();
        assert!(matches!(template.with(&[&value]), Err(InjectError::TooLong)));
    }

    #[test]
    fn both_lines_show_braces_as_they_are_written() {
        assert!(
            InjectError::Open(3).to_string().starts_with("line 3: {{ has no }} on its line\nwrite {{ ravi")
        );
    }
}
