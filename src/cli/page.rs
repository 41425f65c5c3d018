//! A page of text for people: lines, pairs, tables and trees, with colour where it helps.
//!
//! Everything that is put on a page has its control characters shown as escapes: a name or a reason
//! from outside cannot move the cursor, change colours or forge a line. Imports nothing of this crate.

use std::fmt::Write;

/// How a cell is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// No colour.
    Plain,
    /// Bold.
    Strong,
    /// Less important.
    Dim,
    /// All is well.
    Good,
    /// Worth a look.
    Warn,
    /// Something is wrong.
    Bad,
}

/// A piece of text and how it is meant.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell in a tone; `text` is made harmless.
    pub(crate) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: harmless(text.as_ref()), tone }
    }

    /// The harmless text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// How it is meant.
    pub(crate) fn tone(&self) -> Tone {
        self.tone
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// The text so far.
pub(crate) struct Page {
    text: String,
    colour: bool,
}

impl Page {
    /// An empty page.
    pub(crate) fn new(colour: bool) -> Self {
        Self { text: String::new(), colour }
    }

    /// What was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// One line.
    pub(crate) fn line(&mut self, cell: impl Into<Cell>) {
        self.cell(&cell.into());
        self.text.push('\n');
    }

    /// A line for a shell, as it is: escaping would change what it means.
    pub(crate) fn shell(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// One line of several pieces, without spaces between them.
    pub(crate) fn pieces(&mut self, cells: impl AsRef<[Cell]>) {
        for cell in cells.as_ref() {
            self.cell(cell);
        }
        self.text.push('\n');
    }

    /// Names and what belongs to them, in two columns.
    pub(crate) fn pairs<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a str, Cell)>) {
        let pairs: Vec<_> = pairs.into_iter().collect();
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, cell) in pairs {
            self.cell(&Cell::new(format!("{name:width$}"), Tone::Dim));
            self.text.push_str("  ");
            self.cell(&cell);
            self.text.push('\n');
        }
    }

    /// A table with a head, or `none` where there are no rows.
    pub(crate) fn table<const N: usize>(&mut self, head: [&str; N], rows: &[[Cell; N]], none: &str) {
        if rows.is_empty() {
            return self.line(none);
        }
        let head = head.map(|name| Cell::new(name, Tone::Dim));
        let widths: [usize; N] = std::array::from_fn(|column| {
            let cells = rows.iter().chain([&head]).map(|row| width(&row[column]));
            cells.max().unwrap_or(0)
        });
        for row in [&head].into_iter().chain(rows) {
            self.row(row, &widths);
        }
    }

    fn row<const N: usize>(&mut self, row: &[Cell; N], widths: &[usize; N]) {
        for (column, cell) in row.iter().enumerate() {
            self.cell(cell);
            if column + 1 < N {
                let gap = widths[column] - width(cell) + 2;
                self.text.extend(std::iter::repeat_n(' ', gap));
            }
        }
        self.text.push('\n');
    }

    fn cell(&mut self, cell: &Cell) {
        let code = match cell.tone {
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Plain => "",
        };
        if self.colour && !code.is_empty() {
            // Writing to a `String` cannot fail.
            let _ = write!(self.text, "\x1b[{code}m{}\x1b[0m", cell.text);
        } else {
            self.text.push_str(&cell.text);
        }
    }
}

fn width(cell: &Cell) -> usize {
    cell.text.chars().count()
}

/// Control and direction-changing characters as `\u{..}`.
pub(crate) fn harmless(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_last_has_no_trailing_space() {
        let mut page = Page::new(false);
        page.table(["LEASE", "LEFT"], &[["lea_1".into(), "5m".into()], ["lea_22".into(), "10m".into()]], "");
        assert_eq!(page.as_str(), "LEASE   LEFT\nlea_1   5m\nlea_22  10m\n");
    }

    #[test]
    fn an_empty_table_says_so() {
        let mut page = Page::new(true);
        page.table(["LEASE"], &[], "No leases.");
        assert_eq!(page.as_str(), "No leases.\n");
    }

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        let mut page = Page::new(false);
        page.line("evil\x1b[2J\nforged \u{202e}line\u{9b}");
        assert_eq!(page.as_str(), "evil\\u{1b}[2J\\u{a}forged \\u{202e}line\\u{9b}\n");
    }

    #[test]
    fn colour_does_not_change_the_width_of_a_column() {
        let mut page = Page::new(true);
        page.table(["A", "B"], &[[Cell::new("ok", Tone::Good), "x".into()]], "");
        assert_eq!(page.as_str(), "\x1b[2mA\x1b[0m   \x1b[2mB\x1b[0m\n\x1b[32mok\x1b[0m  x\n");
    }
}
