//! Adds a block to the end of a TOML text, and takes exactly that out again.
//!
//! Nothing else of the text changes; whether it still says the same is found by parsing both. Pure.

use toml::{Table, Value};

/// Why a text was left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TomlFault {
    /// It is not TOML.
    NotToml,
    /// What the block adds cannot stand at the end, or the block was changed.
    Shape,
}

/// What the text has at `way`.
pub(super) fn value_at(text: &str, way: &[&str]) -> Result<Option<Value>, TomlFault> {
    let table: Table = text.parse().map_err(|_| TomlFault::NotToml)?;
    Ok(reach(table, way))
}

/// The text with the block at its end, and what exactly was added.
pub(super) fn append(text: &str, block: &str) -> Result<(String, String), TomlFault> {
    let before: Table = text.parse().map_err(|_| TomlFault::NotToml)?;
    let gap = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    let added = format!("{gap}{block}");
    let with = format!("{text}{added}");
    let after: Table = with.parse().map_err(|_| TomlFault::Shape)?;
    if without(after, block)? == pruned(before) { Ok((with, added)) } else { Err(TomlFault::Shape) }
}

/// The text without what `append` added, if that stands there unchanged.
pub(super) fn take(text: &str, added: &str) -> Result<String, TomlFault> {
    let with: Table = text.parse().map_err(|_| TomlFault::NotToml)?;
    let mut found = text.match_indices(added);
    let (Some((at, _)), None) = (found.next(), found.next()) else { return Err(TomlFault::Shape) };
    let left = format!("{}{}", &text[..at], &text[at + added.len()..]);
    let after: Table = left.parse().map_err(|_| TomlFault::Shape)?;
    if without(with, added)? == pruned(after) { Ok(left) } else { Err(TomlFault::Shape) }
}

/// A table without what a block says. What the table has besides in the same place is a change.
fn without(mut table: Table, block: &str) -> Result<Table, TomlFault> {
    let block: Table = block.parse().map_err(|_| TomlFault::NotToml)?;
    if remove(&mut table, &block) { Ok(pruned(table)) } else { Err(TomlFault::Shape) }
}

/// A table that is empty says nothing.
fn pruned(table: Table) -> Table {
    table.into_iter().filter(|(_, value)| value.as_table().is_none_or(|table| !table.is_empty())).collect()
}

/// A block names tables of tables, `[role.NAME]`: those at the second level are its own.
fn remove(table: &mut Table, block: &Table) -> bool {
    block.iter().all(|(name, ours)| match (table.get_mut(name), ours) {
        (Some(Value::Table(theirs)), Value::Table(ours)) => {
            ours.iter().all(|(name, value)| theirs.remove(name).as_ref() == Some(value))
        }
        (Some(theirs), ours) if theirs == ours => table.remove(name).is_some(),
        _ => false,
    })
}

fn reach(table: Table, way: &[&str]) -> Option<Value> {
    way.iter().try_fold(Value::Table(table), |value, name| match value {
        Value::Table(mut table) => table.remove(*name),
        _ => None,
    })
}

/// A string as TOML writes it. What JSON escapes, TOML understands; a control character that it does not
/// escape is found when the result is parsed.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Several of them.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    format!("[{}]", texts.into_iter().map(quoted).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "[mcp_servers.ravi]\ncommand = \"/opt/x\"\nargs = [\"--role\", \"a\"]\n";

    #[test]
    fn a_block_is_added_at_the_end_and_taken_out_to_the_byte() {
        for text in [
            "",
            "model = \"o3\"",
            "# a comment\nmodel = \"o3\"  # another\n\n[mcp_servers.gh]\ncommand = 'x'\n",
            "[mcp_servers]\n",
            "[[x]]\na = 1\n",
        ] {
            let (with, added) = append(text, BLOCK).unwrap();
            assert!(with.starts_with(text) && with.ends_with(BLOCK), "{with}");
            assert!(value_at(&with, &["mcp_servers", "ravi"]).unwrap().is_some());
            assert_eq!(take(&with, &added).unwrap(), text);
            // What is written after it stays.
            let more = format!("{with}\n[other]\nx = 1\n");
            assert_eq!(take(&more, &added).unwrap(), format!("{text}\n[other]\nx = 1\n"));
        }
    }

    #[test]
    fn what_is_not_toml_or_has_no_room_is_refused() {
        assert_eq!(append("a = \n", BLOCK), Err(TomlFault::NotToml));
        assert_eq!(append("mcp_servers = {}\n", BLOCK), Err(TomlFault::Shape));
        assert_eq!(append("[mcp_servers.ravi]\ncommand = 'y'\n", BLOCK), Err(TomlFault::Shape));
    }

    #[test]
    fn a_block_that_was_changed_is_not_taken_out() {
        let (with, added) = append("a = 1\n", BLOCK).unwrap();
        for changed in [
            with.replace("/opt/x", "/opt/y"),
            // A key or a table more belongs to it, and would be left to whatever stands before.
            format!("{with}enabled = false\n"),
            format!("{with}[mcp_servers.ravi.env]\nA = '1'\n"),
            with.replace("[mcp_servers.ravi]\n", "[mcp_servers.ravi]\n# mine\n"),
        ] {
            assert_eq!(take(&changed, &added), Err(TomlFault::Shape), "{changed}");
        }
    }
}
