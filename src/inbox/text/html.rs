//! From HTML to what is seen: walks the pieces with a stack of open elements, each with what it inherits.
//!
//! Invariants: the stack has at most [`DEEPEST`] elements (what is nested deeper belongs to the deepest), an end
//! tag costs no search unless its element is open. Imports nothing of this crate.

use std::collections::HashMap;

use super::markup::{Piece, Pieces, Tag};
use super::sheet::Sheet;
use super::style::{Color, Style, color, unseen};
use super::{Folded, Link, MAX_HREF, MAX_LINKS, Seen, entity, fold};

/// Most elements that are open at once.
const DEEPEST: usize = 256;

const VOID: [&str; 14] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track",
    "wbr",
];

/// Never shown, whatever is in them.
const UNSHOWN: [&str; 18] = [
    "head", "script", "style", "title", "template", "textarea", "xmp", "iframe", "noembed", "noframes",
    "noscript", "object", "svg", "canvas", "audio", "video", "select", "datalist",
];

const BLOCKS: [&str; 36] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "center",
    "dd",
    "details",
    "dir",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "html",
    "legend",
    "li",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "table",
    "ul",
];

const ROWS: [&str; 5] = ["tr", "thead", "tbody", "tfoot", "caption"];

/// What an element passes on to what is in it.
#[derive(Clone, Copy, Default)]
struct Inherited {
    gone: bool,
    invisible: bool,
    tiny: bool,
    color: Option<Color>,
    background: Option<Color>,
}

impl Inherited {
    fn is_seen(&self) -> bool {
        !self.gone && !self.invisible && !self.tiny && !unseen(self.color, self.background)
    }
}

struct Open {
    name: String,
    inherited: Inherited,
    breaks: Break,
    /// The link that ends with this element.
    link: Option<usize>,
}

/// What separates two pieces of text, the weaker first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Break {
    None,
    Space,
    Cell,
    Line,
}

/// Reads a document, behind what is already seen.
pub(super) fn read(seen: Seen, document: &str) -> Seen {
    let mut reader = Reader {
        seen,
        stack: Vec::new(),
        open: HashMap::new(),
        sheet: Sheet::default(),
        before: Break::None,
        skipped: 0,
    };
    for piece in Pieces::new(document) {
        match piece {
            Piece::Text(text) => reader.text(text),
            Piece::Open(tag) => reader.open(&tag),
            Piece::Close(name) => reader.close(&name.to_ascii_lowercase()),
            Piece::Sheet(block) => reader.sheet.add(block),
        }
        if reader.seen.is_full() {
            break;
        }
    }
    reader.pop_to(0);
    reader.seen
}

struct Reader {
    seen: Seen,
    stack: Vec<Open>,
    /// How many of each name are open.
    open: HashMap<String, usize>,
    sheet: Sheet,
    /// What comes before the next character.
    before: Break,
    /// Open elements beyond the bound.
    skipped: usize,
}

impl Reader {
    fn inherited(&self) -> Inherited {
        self.stack.last().map(|open| open.inherited).unwrap_or_default()
    }

    fn text(&mut self, text: &str) {
        if !self.inherited().is_seen() {
            return;
        }
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            let reference = (c == '&').then(|| entity::read(rest)).flatten();
            match reference {
                Some((c, accent, taken)) => {
                    self.character(c);
                    accent.into_iter().for_each(|accent| self.character(accent));
                    rest = &rest[taken..];
                }
                None => self.character(c),
            }
            if self.seen.is_full() {
                return;
            }
        }
    }

    fn character(&mut self, c: char) {
        if c.is_ascii_whitespace() {
            self.separate(Break::Space);
            return;
        }
        // An invisible character takes no place, and moves no break.
        if matches!(fold(c), Folded::Hidden) {
            return;
        }
        let before = std::mem::replace(&mut self.before, Break::None);
        match before {
            _ if self.seen.shown.is_empty() => {}
            Break::None => {}
            Break::Space if matches!(self.seen.last(), Some(' ' | '\n')) => {}
            Break::Space => self.seen.push(' '),
            Break::Cell => self.cell(),
            Break::Line => self.seen.push('\n'),
        }
        self.seen.push(c);
    }

    /// The border between two cells of a row. Kept apart from a space: a row is no sentence.
    fn cell(&mut self) {
        if self.seen.last() != Some('\n') {
            self.seen.push(' ');
            self.seen.push(' ');
        }
    }

    fn separate(&mut self, by: Break) {
        self.before = self.before.max(by);
    }

    fn open(&mut self, tag: &Tag<'_>) {
        let name = tag.name.to_ascii_lowercase();
        if name == "br" {
            if self.inherited().is_seen() {
                self.separate(Break::Line);
            }
            return;
        }
        self.imply_ends(&name);
        let style = self.style(tag, &name);
        let inherited = self.pass_on(tag, &name, &style);
        let breaks = breaks(&name, &style);
        if !inherited.gone {
            self.separate(breaks);
        }
        if VOID.contains(&name.as_str()) {
            return;
        }
        if self.stack.len() >= DEEPEST {
            // Too deep: it has no place of its own, and its end tag ends nothing.
            self.skipped += 1;
            if let Some(last) = self.stack.last_mut() {
                last.inherited.gone |= inherited.gone;
            }
            return;
        }
        let link = (name == "a").then(|| self.link(tag, &inherited)).flatten();
        *self.open.entry(name.clone()).or_default() += 1;
        self.stack.push(Open { name, inherited, breaks, link });
    }

    fn close(&mut self, name: &str) {
        if self.skipped > 0 {
            self.skipped -= 1;
            self.separate(Break::Line);
            return;
        }
        if name == "p" && !self.is_open("p") {
            self.separate(Break::Line);
        }
        if !self.is_open(name) {
            return;
        }
        if let Some(at) = self.stack.iter().rposition(|open| open.name == name) {
            self.pop_to(at);
        }
    }

    fn is_open(&self, name: &str) -> bool {
        self.open.get(name).is_some_and(|count| *count > 0)
    }

    fn pop_to(&mut self, depth: usize) {
        while self.stack.len() > depth {
            let Some(closed) = self.stack.pop() else { return };
            if let Some(count) = self.open.get_mut(&closed.name) {
                *count -= 1;
                if *count == 0 {
                    self.open.remove(&closed.name);
                }
            }
            if let Some(link) = closed.link {
                self.seen.links[link].range.end = self.seen.folded.len();
            }
            if !closed.inherited.gone {
                self.separate(closed.breaks);
            }
        }
    }

    /// Ends what HTML ends by itself: a paragraph at the next block, a cell at the next cell.
    fn imply_ends(&mut self, name: &str) {
        let (ends, within): (&[&str], &[&str]) = match name {
            "body" => (&["head"], &[]),
            "li" => (&["li"], &["ul", "ol", "table"]),
            "dt" | "dd" => (&["dt", "dd"], &["dl", "table"]),
            "td" | "th" => (&["td", "th"], &["tr", "table"]),
            "tr" => (&["tr"], &["table"]),
            "a" => (&["a"], &["table", "td"]),
            "option" => (&["option"], &["select"]),
            _ if BLOCKS.contains(&name) => (&["p"], &["table", "td", "div"]),
            _ => return,
        };
        if !ends.iter().any(|end| self.is_open(end)) {
            return;
        }
        for at in (0..self.stack.len()).rev() {
            let open = self.stack[at].name.as_str();
            if ends.contains(&open) {
                return self.pop_to(at);
            }
            if within.contains(&open) {
                return;
            }
        }
    }

    fn style(&self, tag: &Tag<'_>, name: &str) -> Style {
        let rules = self.sheet.style(tag, name);
        match tag.style {
            Some(inline) => rules.with(Style::read(&entity::resolve(inline))),
            None => rules,
        }
    }

    fn pass_on(&self, tag: &Tag<'_>, name: &str, style: &Style) -> Inherited {
        let around = self.inherited();
        let attribute = |value: Option<&str>| value.map(|value| color(&value.to_ascii_lowercase()));
        // The button that is hidden from Outlook alone is the one that everybody else sees.
        let mso = style.mso && !(name == "a" && tag.href.is_some());
        let own_background = style.background.or_else(|| attribute(tag.background));
        Inherited {
            gone: around.gone
                || style.gone
                || mso
                || style.none == Some(true)
                || tag.hidden && style.none.is_none()
                || UNSHOWN.contains(&name),
            invisible: style.invisible.unwrap_or(around.invisible),
            tiny: style.tiny.unwrap_or(around.tiny),
            color: style.color.or_else(|| attribute(tag.color)).or(around.color),
            background: match own_background {
                Some(Color::Clear) | None => around.background,
                own => own,
            },
        }
    }

    /// Notes a link that somebody sees; its end is not known yet.
    fn link(&mut self, tag: &Tag<'_>, inherited: &Inherited) -> Option<usize> {
        let href = tag.href?;
        if inherited.gone
            || inherited.invisible
            || href.len() > MAX_HREF
            || self.seen.links.len() >= MAX_LINKS
        {
            return None;
        }
        let href = entity::resolve(href);
        let at = self.seen.folded.len();
        self.seen.links.push(Link { range: at..at, href: href.trim().to_owned() });
        Some(self.seen.links.len() - 1)
    }
}

fn breaks(name: &str, style: &Style) -> Break {
    if style.inline && name != "tr" {
        return match name {
            "td" | "th" => Break::Cell,
            _ => Break::None,
        };
    }
    if style.block || BLOCKS.contains(&name) || ROWS.contains(&name) {
        return Break::Line;
    }
    match name {
        "td" | "th" => Break::Cell,
        "img" | "input" | "button" => Break::Space,
        _ => Break::None,
    }
}
