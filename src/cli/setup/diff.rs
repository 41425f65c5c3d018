//! The difference of two texts, as people read it: unified, and without the lines around it.
//!
//! A host's configuration can hold keys of others. So only lines that change are shown, and of them every
//! string that is not ours is struck out. Pure.

use std::path::Path;

/// Lines that are compared with each other at most, in pairs; beyond that one block replaces the other.
const MAX_PAIRS: usize = 4 << 20;

/// What changes in a file; `None` is a file that is not there. Strings of `ours` are shown.
pub(super) fn unified(path: &Path, old: Option<&str>, new: Option<&str>, ours: &[String]) -> String {
    let name = |text: Option<&str>| match text {
        Some(_) => path.display().to_string(),
        None => "/dev/null".to_owned(),
    };
    let mut shown = format!("--- {}\n+++ {}\n", name(old), name(new));
    let [before, after] = [old, new].map(|text| text.unwrap_or_default().lines().collect::<Vec<_>>());
    for hunk in hunks(&before, &after) {
        let (gone, come) = (&before[hunk.0.0..hunk.0.1], &after[hunk.1.0..hunk.1.1]);
        shown.push_str(&format!("@@ -{} +{} @@\n", range(hunk.0), range(hunk.1)));
        gone.iter().for_each(|line| shown.push_str(&format!("-{}\n", struck(line, ours))));
        come.iter().for_each(|line| shown.push_str(&format!("+{}\n", struck(line, ours))));
    }
    shown
}

/// Where lines of the old text give way to lines of the new one: from and up to, counted from 0.
type Hunk = ((usize, usize), (usize, usize));

fn hunks(before: &[&str], after: &[&str]) -> Vec<Hunk> {
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = before.iter().zip(after).take_while(same).count();
    let (before_left, after_left) = (&before[head..], &after[head..]);
    let tail = before_left.iter().rev().zip(after_left.iter().rev()).take_while(same).count();
    let (rows, columns) = (before_left.len() - tail, after_left.len() - tail);
    if rows * columns > MAX_PAIRS {
        return vec![((head, head + rows), (head, head + columns))];
    }
    // How long the longest common part of what is left from here on is.
    let mut longest = vec![vec![0_u32; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            longest[row][column] = if before_left[row] == after_left[column] {
                longest[row + 1][column + 1] + 1
            } else {
                longest[row + 1][column].max(longest[row][column + 1])
            };
        }
    }
    let (mut hunks, mut row, mut column) = (Vec::new(), 0, 0);
    while row < rows || column < columns {
        let (from_row, from_column) = (row, column);
        let meets = |row: usize, column: usize| {
            row < rows && column < columns && before_left[row] == after_left[column]
        };
        while (row < rows || column < columns) && !meets(row, column) {
            if column == columns || (row < rows && longest[row + 1][column] >= longest[row][column + 1]) {
                row += 1;
            } else {
                column += 1;
            }
        }
        if (row, column) != (from_row, from_column) {
            hunks.push(((head + from_row, head + row), (head + from_column, head + column)));
        }
        while meets(row, column) {
            (row, column) = (row + 1, column + 1);
        }
    }
    hunks
}

/// As `diff -U0` has it: an empty range names the line before it.
fn range((from, to): (usize, usize)) -> String {
    match to - from {
        0 => format!("{from},0"),
        1 => (from + 1).to_string(),
        count => format!("{},{count}", from + 1),
    }
}

/// The line with `…` in place of every string that is neither a name nor ours.
fn struck(line: &str, ours: &[String]) -> String {
    if ours.iter().any(|text| text.lines().any(|own| own == line)) {
        return line.to_owned();
    }
    let (mut shown, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(start) = rest.find(['"', '\'']) {
        let quote = &rest[start..=start];
        let inside = &rest[start + 1..];
        let end = end_of_string(inside, quote);
        let (text, after) = (&inside[..end], inside.get(end + 1..).unwrap_or_default());
        let is_name = after.trim_start().starts_with([':', '=']);
        let is_ours = ours.iter().any(|own| {
            own == text || serde_json::Value::from(own.as_str()).to_string().trim_matches('"') == text
        });
        let text = if is_name || is_ours || text.is_empty() { text } else { "…" };
        shown.push_str(&format!("{}{quote}{text}{quote}", &rest[..start]));
        rest = after;
    }
    shown + rest
}

fn end_of_string(text: &str, quote: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == "\"" => escaped = true,
            c if quote.starts_with(c) => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(old: &str, new: &str) -> String {
        unified(Path::new("/f"), Some(old), Some(new), &[])
    }

    #[test]
    fn only_what_changes_is_shown() {
        assert_eq!(
            lines("a\nb\nc\n", "a\nx\nc\nd\n"),
            "--- /f\n+++ /f\n@@ -2 +2 @@\n-b\n+x\n@@ -3,0 +4 @@\n+d\n"
        );
        assert_eq!(lines("a\nb\n", "b\n"), "--- /f\n+++ /f\n@@ -1 +0,0 @@\n-a\n");
        let made = unified(Path::new("/f"), None, Some("a\nb\n"), &[]);
        assert_eq!(made, "--- /dev/null\n+++ /f\n@@ -0,0 +1,2 @@\n+a\n+b\n");
    }

    #[test]
    fn two_changes_far_apart_are_two_hunks() {
        let old: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let mut new = old.clone();
        new.insert(40, "x".into());
        new.insert(3, "y".into());
        let shown = lines(&old.join("\n"), &new.join("\n"));
        assert!(shown.contains("@@ -3,0 +4 @@\n+y\n") && shown.contains("@@ -40,0 +42 @@\n+x\n"), "{shown}");
        assert_eq!(shown.lines().count(), 6);
    }

    #[test]
    fn a_string_of_somebody_else_is_struck_out() {
        let ours = ["--role".to_owned(), "/opt/a\"b".to_owned()];
        let shown = |line: &str| struck(line, &ours);
        assert_eq!(shown(r#""TOKEN": "ghp_\"canary","#), r#""TOKEN": "…","#);
        assert_eq!(
            shown(r#"{"a": "canary", "args": ["--role", "x"], "c": "/opt/a\"b"}"#),
            r#"{"a": "…", "args": ["--role", "…"], "c": "/opt/a\"b"}"#
        );
        assert_eq!(shown("KEY = 'canary' # \"canary"), "KEY = '…' # \"…\"");
        assert_eq!(shown("}, "), "}, ");
        let one =
            unified(Path::new("/f"), Some("{\"t\": \"canary\"}"), Some("{\"t\": \"canary\", \"r\": 1}"), &[]);
        assert!(!one.contains("canary") && one.contains("\"r\": 1"), "{one}");
    }
}
