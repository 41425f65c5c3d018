//! One thing that is written into one file: how it is put there, known again, and taken out.
//!
//! Pure: text goes in and comes out. What a piece keeps is names and paths, never a secret. Imports the two
//! forms of text.

use std::path::PathBuf;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::json::{self, JsonFault};
use super::toml::{self, TomlFault};

/// One step on the way to a member of a JSON document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Step {
    /// Into the member of an object.
    Key(String),
    /// Into the item of an array whose member `key` is this text.
    Item {
        /// The member's name.
        key: String,
        /// What it says.
        is: String,
    },
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum What {
    /// A member of a JSON document.
    Json {
        /// The way to it.
        at: Vec<Step>,
        /// What it is set to.
        value: Value,
        /// How many objects around it were made for it.
        made: usize,
    },
    /// Text at the end of a TOML document, as it was added.
    Toml {
        /// The table that it defines: two names.
        table: [String; 2],
        /// The text.
        text: String,
    },
    /// All of a file.
    Whole {
        /// The file's SHA-256, in hexadecimal.
        sha256: String,
        /// Whether it is a program.
        program: bool,
    },
}

/// A piece, where it is, and whether the file was made for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece {
    /// The file.
    pub(super) file: PathBuf,
    /// What is in it.
    pub(super) what: What,
    /// Whether the file was made for it.
    pub(super) created: bool,
    /// Whether the directory of the file was.
    pub(super) directory: bool,
}

/// A piece that is not written yet. `text` is of a whole file or of a block.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// Where.
    pub(super) file: PathBuf,
    /// What.
    pub(super) want: Want,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) enum Want {
    /// A member.
    Json { at: Vec<Step>, value: Value },
    /// A block at the end. `head` goes before it in a file that is not there yet.
    Toml { table: [String; 2], block: String, head: String },
    /// A file.
    Whole { text: String, program: bool },
}

/// Why a file is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not parse.
    Syntax,
    /// It parses and there is no place for the piece.
    Shape,
    /// Somebody else's is in the place.
    Foreign,
    /// Ours was changed since.
    Changed,
}

impl Wish {
    /// The file with the piece in it, and the piece as it is to be remembered; `None` if it is there already.
    /// `known` is what was written there before.
    pub(super) fn put(
        &self,
        old: Option<&str>,
        known: Option<&Piece>,
    ) -> Result<Option<(String, Piece)>, Fault> {
        let created = old.is_none() || known.is_some_and(|piece| piece.created);
        let directory = known.is_some_and(|piece| piece.directory);
        let piece = |what| Piece { file: self.file.clone(), what, created, directory };
        match &self.want {
            Want::Json { at, value } => {
                let text = old.unwrap_or("{}\n");
                let there = json::value_at(text, at)?;
                let (mut made, mut ours) = (0, false);
                if let Some(Piece { what: What::Json { at: was_at, value: was, made: before }, .. }) = known {
                    (made, ours) = (*before, was_at == at && there.as_ref() == Some(was));
                }
                match there {
                    Some(there) if there == *value => return Ok(None),
                    Some(_) if !ours => return Err(Fault::Foreign),
                    _ => {}
                }
                let (new, more) = json::put(text, at, value)?;
                let what = What::Json { at: at.clone(), value: value.clone(), made: made.max(more) };
                Ok(Some((new, piece(what))))
            }
            Want::Toml { table, block, head } => {
                let way = [table[0].as_str(), table[1].as_str()];
                let mut text = old.unwrap_or_default().to_owned();
                let there = toml::value_at(&text, &way)?;
                if there.is_some() && there == toml::value_at(block, &way)? {
                    return Ok(None);
                }
                if let (Some(_), Some(Piece { what: What::Toml { text: added, .. }, .. })) = (&there, known) {
                    text = toml::take(&text, added).map_err(|_| Fault::Changed)?;
                } else if there.is_some() {
                    return Err(Fault::Foreign);
                }
                let block = if text.is_empty() { format!("{head}{block}") } else { block.clone() };
                let (new, added) = toml::append(&text, &block)?;
                Ok(Some((new, piece(What::Toml { table: table.clone(), text: added }))))
            }
            Want::Whole { text, program } => {
                let ours = |old: &str| matches!(known.map(|piece| &piece.what), Some(What::Whole { sha256, .. }) if *sha256 == digest(old));
                match old {
                    Some(old) if old == text => Ok(None),
                    Some(old) if !ours(old) => Err(Fault::Foreign),
                    _ => Ok(Some((
                        text.clone(),
                        piece(What::Whole { sha256: digest(text), program: *program }),
                    ))),
                }
            }
        }
    }

    /// Whether this is for the place of a piece.
    pub(super) fn is_for(&self, piece: &Piece) -> bool {
        self.file == piece.file
            && match (&self.want, &piece.what) {
                (Want::Json { at, .. }, What::Json { at: was, .. }) => at == was,
                (Want::Toml { table, .. }, What::Toml { table: was, .. }) => table == was,
                (Want::Whole { .. }, What::Whole { .. }) => true,
                _ => false,
            }
    }

    /// Texts of ours, which may be shown.
    pub(super) fn texts(&self) -> Vec<String> {
        fn strings(value: &Value, into: &mut Vec<String>) {
            match value {
                Value::String(text) => into.push(text.clone()),
                Value::Array(items) => items.iter().for_each(|item| strings(item, into)),
                Value::Object(members) => members.values().for_each(|value| strings(value, into)),
                _ => {}
            }
        }
        let mut texts = Vec::new();
        match &self.want {
            Want::Json { value, .. } => strings(value, &mut texts),
            Want::Toml { block, head, .. } => texts.extend([block.clone(), head.clone()]),
            Want::Whole { text, .. } => texts.push(text.clone()),
        }
        texts
    }
}

impl Piece {
    /// The file without the piece; `None` where the file goes with it. A file without the piece is left as it is.
    pub(super) fn take(&self, old: &str) -> Result<Option<String>, Fault> {
        let left = match &self.what {
            What::Json { at, value, made } => match json::value_at(old, at)? {
                None => return Ok(Some(old.to_owned())),
                Some(there) if there == *value => json::take(old, at, *made).map_err(|_| Fault::Changed)?,
                Some(_) => return Err(Fault::Changed),
            },
            What::Toml { table, text } => {
                match toml::value_at(old, &[table[0].as_str(), table[1].as_str()])? {
                    None => return Ok(Some(old.to_owned())),
                    Some(_) => toml::take(old, text).map_err(|_| Fault::Changed)?,
                }
            }
            What::Whole { sha256, .. } if *sha256 == digest(old) => return Ok(None),
            What::Whole { .. } => return Err(Fault::Changed),
        };
        let empty = matches!(left.trim(), "" | "{}");
        Ok(if self.created && empty { None } else { Some(left) })
    }
}

fn digest(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

impl From<JsonFault> for Fault {
    fn from(fault: JsonFault) -> Self {
        match fault {
            JsonFault::NotJson => Self::Syntax,
            JsonFault::Shape => Self::Shape,
        }
    }
}

impl From<TomlFault> for Fault {
    fn from(fault: TomlFault) -> Self {
        match fault {
            TomlFault::NotToml => Self::Syntax,
            TomlFault::Shape => Self::Shape,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wish(role: &str) -> Wish {
        let at = ["mcpServers", "ravi"].map(|name| Step::Key(name.to_owned())).to_vec();
        let value = json!({"command": "/opt/ravi-broker-mcp", "args": ["--role", role]});
        Wish { file: "/f".into(), want: Want::Json { at, value } }
    }

    #[test]
    fn what_was_written_is_replaced_and_what_others_wrote_is_not() {
        let (text, piece) = wish("a").put(None, None).unwrap().unwrap();
        assert!(piece.created);
        assert_eq!(wish("a").put(Some(&text), Some(&piece)), Ok(None));
        assert_eq!(wish("b").put(Some(&text), None), Err(Fault::Foreign));
        let (other, replaced) = wish("b").put(Some(&text), Some(&piece)).unwrap().unwrap();
        assert_eq!(replaced.take(&other), Ok(None), "the file was made for it");
        let changed = text.replace("\"a\"", "\"c\"");
        assert_eq!(wish("b").put(Some(&changed), Some(&piece)), Err(Fault::Foreign));
        assert_eq!(piece.take(&changed), Err(Fault::Changed));
        // The objects that were made for it the first time go with it after a change as well.
        let (first, piece) = wish("a").put(Some("{\"x\": 1}"), None).unwrap().unwrap();
        let (second, piece) = wish("b").put(Some(&first), Some(&piece)).unwrap().unwrap();
        assert_eq!(piece.take(&second), Ok(Some("{\"x\": 1}".to_owned())));
    }

    #[test]
    fn a_block_is_replaced_and_a_file_that_was_made_goes() {
        let wish = |role: &str| {
            let block = format!("[role.a]\nscopes = [\"{role}\"]\n");
            let table = ["role".to_owned(), "a".to_owned()];
            Wish { file: "/f".into(), want: Want::Toml { table, block, head: "version = 1\n\n".into() } }
        };
        let (text, piece) = wish("x").put(None, None).unwrap().unwrap();
        assert!(text.starts_with("version = 1\n\n[role.a]\n"));
        assert_eq!(piece.take(&text), Ok(None));
        let (with, piece) = wish("x").put(Some("version = 1\n"), None).unwrap().unwrap();
        let (again, replaced) = wish("y").put(Some(&with), Some(&piece)).unwrap().unwrap();
        assert_eq!(again, "version = 1\n\n[role.a]\nscopes = [\"y\"]\n");
        assert_eq!(replaced.take(&again), Ok(Some("version = 1\n".to_owned())));
        assert_eq!(wish("y").put(Some(&with), None), Err(Fault::Foreign));
    }

    #[test]
    fn a_file_is_ours_by_its_content() {
        let wish =
            |text: &str| Wish { file: "/f".into(), want: Want::Whole { text: text.into(), program: true } };
        let (text, piece) = wish("1").put(None, None).unwrap().unwrap();
        assert_eq!(wish("2").put(Some("mine"), Some(&piece)), Err(Fault::Foreign));
        assert!(wish("2").put(Some(&text), Some(&piece)).unwrap().is_some());
        assert_eq!((piece.take(&text), piece.take("mine")), (Ok(None), Err(Fault::Changed)));
    }
}
