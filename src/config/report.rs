//! Collects what is wrong with a file, each with its line, instead of stopping at the first.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use super::Problem;

/// More than a person will read; a hostile file must not make a report without end.
const MAX_PROBLEMS: usize = 200;

/// The problems found so far. Shared by all readers of one file, hence the cells.
pub(super) struct Report {
    /// Offset of the first byte of each line.
    line_starts: Vec<usize>,
    broken_lines: RefCell<BTreeSet<u32>>,
    problems: RefCell<Vec<Problem>>,
}

impl Report {
    pub(super) fn of(text: &str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Self {
            line_starts: std::iter::once(0).chain(after_breaks).collect(),
            broken_lines: RefCell::default(),
            problems: RefCell::default(),
        }
    }

    /// The line that a byte of the text is on, counted from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> u32 {
        let line = self.line_starts.partition_point(|start| *start <= span.start);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    /// Reports a line that is not TOML. What the parser made of the rest of that line is not judged.
    pub(super) fn add_broken(&self, line: u32, message: impl Into<String>) {
        if self.broken_lines.borrow_mut().insert(line) {
            self.push(line, message.into());
        }
    }

    pub(super) fn add(&self, line: u32, message: impl Into<String>) {
        if !self.broken_lines.borrow().contains(&line) {
            self.push(line, message.into());
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn push(&self, line: u32, message: String) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            problems.push(Problem { line, message });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_after_the_break() {
        let report = Report::of("a\nbc\n\nd");
        for (offset, line) in [(0, 1), (1, 1), (2, 2), (4, 2), (5, 3), (6, 4), (7, 4)] {
            assert_eq!(report.line(&(offset..offset)), line, "offset {offset}");
        }
    }

    #[test]
    fn a_report_is_bounded() {
        let report = Report::of("");
        (0..1000).for_each(|_| report.add(1, "again"));
        assert_eq!(report.into_problems().len(), MAX_PROBLEMS);
    }
}
