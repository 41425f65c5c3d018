//! A strict reader of TOML tables: every key is asked for by name, every value is of one type, and
//! what was not asked for is reported together with the key that was probably meant.
//!
//! Values are never quoted in a problem: somebody may have pasted a key into the wrong line.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Located;
use super::report::Report;
use super::suggest::closest;

/// A table whose keys are being asked for.
pub(super) struct Table<'d> {
    report: &'d Report,
    /// `role.notes-agent`; empty for the whole file.
    path: String,
    line: u32,
    left: BTreeMap<&'d str, (u32, &'d Spanned<DeValue<'d>>)>,
    asked: Vec<&'static str>,
}

impl<'d> Table<'d> {
    pub(super) fn root(report: &'d Report, table: &'d DeTable<'d>) -> Self {
        Self::of(report, String::new(), 0, Some(table))
    }

    fn of(report: &'d Report, path: String, line: u32, table: Option<&'d DeTable<'d>>) -> Self {
        let entries = table.into_iter().flatten();
        let left = entries.map(|(key, value)| (key.get_ref().as_ref(), (report.line(&key.span()), value)));
        Self { report, path, line, left: left.collect(), asked: Vec::new() }
    }

    /// The value of `key` as `read` understands it; `None` if it is absent or was reported.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'d>) -> Result<T, String>,
    ) -> Option<Located<T>> {
        let value = self.value(key)?;
        match read(&value) {
            Ok(read) => Some(Located { value: read, line: value.line }),
            Err(message) => {
                value.refuse(&message);
                None
            }
        }
    }

    /// The same for a key that must be there.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'d>) -> Result<T, String>,
    ) -> Option<Located<T>> {
        if !self.left.contains_key(key) {
            self.report.add(self.line, format!("{} is missing", joined(&self.path, key)));
        }
        self.read(key, read)
    }

    /// The value of `key`, unread.
    pub(super) fn value(&mut self, key: &'static str) -> Option<Value<'d>> {
        self.asked.push(key);
        let (line, value) = self.left.remove(key)?;
        Some(Value { report: self.report, path: joined(&self.path, key), line, value: value.get_ref() })
    }

    /// The table under `key`; an absent one reads as empty.
    pub(super) fn table(&mut self, key: &'static str) -> Table<'d> {
        match self.value(key) {
            Some(value) => value.table(),
            None => Self::of(self.report, joined(&self.path, key), self.line, None),
        }
    }

    /// All entries of a table whose keys are names, in the order of their lines.
    pub(super) fn into_named(self) -> Vec<(&'d str, Value<'d>)> {
        let Self { report, path, left, .. } = self;
        let mut named: Vec<_> = left
            .into_iter()
            .map(|(name, (line, value))| {
                let path = joined(&path, &shown_key(name));
                (name, Value { report, path, line, value: value.get_ref() })
            })
            .collect();
        named.sort_by_key(|(_, value)| value.line);
        named
    }

    /// How many keys nobody has asked for.
    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// Reports something about the table as a whole.
    pub(super) fn refuse(&self, message: &str) {
        self.report.add(self.line, format!("{}: {message}", self.path));
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for (key, (line, _)) in &self.left {
            let hint = match closest(key, &self.asked) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", self.asked.join(", ")),
            };
            let place = if self.path.is_empty() { String::new() } else { format!(" in {}", self.path) };
            self.report.add(*line, format!("unknown key `{}`{place}; {hint}", shown_key(key)));
        }
    }
}

/// A value, where it stands and what it is called.
#[derive(Clone)]
pub(super) struct Value<'d> {
    report: &'d Report,
    path: String,
    line: u32,
    value: &'d DeValue<'d>,
}

impl<'d> Value<'d> {
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    pub(super) fn refuse(&self, message: &str) {
        self.report.add(self.line, format!("{}: {message}", self.path));
    }

    pub(super) fn text(&self) -> Result<&'d str, String> {
        match self.value {
            DeValue::String(text) => Ok(text.as_ref()),
            other => Err(format!("expected a text in quotes, found {}", kind(other))),
        }
    }

    /// A whole number within bounds.
    pub(super) fn integer(&self, bounds: RangeInclusive<u64>) -> Result<u64, String> {
        let DeValue::Integer(integer) = self.value else {
            return Err(format!("expected a whole number, found {}", kind(self.value)));
        };
        u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| bounds.contains(number))
            .ok_or_else(|| format!("expected a whole number from {} to {}", bounds.start(), bounds.end()))
    }

    pub(super) fn boolean(&self) -> Result<bool, String> {
        match self.value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(format!("expected true or false, found {}", kind(other))),
        }
    }

    pub(super) fn is_integer(&self) -> bool {
        matches!(self.value, DeValue::Integer(_))
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub(super) fn is_array(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    /// The value as a table; anything else is reported and reads as empty.
    pub(super) fn table(self) -> Table<'d> {
        let table = self.value.as_table();
        if table.is_none() {
            self.refuse(&format!("expected a table, found {}", kind(self.value)));
        }
        Table::of(self.report, self.path, self.line, table)
    }

    /// The elements of an array of at most `max`, each with its own line.
    pub(super) fn items(&self, max: usize) -> Result<Vec<Value<'d>>, String> {
        let DeValue::Array(array) = self.value else {
            return Err(format!("expected an array, found {}", kind(self.value)));
        };
        if array.len() > max {
            return Err(format!("expected at most {max} entries"));
        }
        let items = array.iter().enumerate().map(|(at, item)| Value {
            report: self.report,
            path: format!("{}[{at}]", self.path),
            line: self.report.line(&item.span()),
            value: item.get_ref(),
        });
        Ok(items.collect())
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A key fit to be shown: what does not look like one might be a credential in the wrong place.
fn shown_key(key: &str) -> String {
    let plain = key.len() <= 64 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    let credential = ["ravi_mgmt_", "ravi_id_", "rvt_"].iter().any(|prefix| key.starts_with(prefix));
    if plain && !credential { key.to_owned() } else { "(not shown)".to_owned() }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
