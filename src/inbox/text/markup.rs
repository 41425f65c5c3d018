//! Cuts HTML into text and tags, the way a browser does where mail depends on it: unfinished comments, tags and
//! scripts swallow the rest. One pass, no recursion. Imports nothing of this crate.

/// A piece of a document.
pub(super) enum Piece<'a> {
    /// Characters, entities not yet resolved.
    Text(&'a str),
    Open(Tag<'a>),
    Close(&'a str),
    /// The content of `<style>`.
    Sheet(&'a str),
}

/// A start tag, with the attributes that decide what is seen.
#[derive(Default)]
pub(super) struct Tag<'a> {
    pub(super) name: &'a str,
    pub(super) style: Option<&'a str>,
    pub(super) class: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    pub(super) href: Option<&'a str>,
    pub(super) color: Option<&'a str>,
    pub(super) background: Option<&'a str>,
    pub(super) hidden: bool,
}

/// Elements whose content is no markup, and never shown.
const RAW: [&str; 9] =
    ["script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes", "noscript"];

/// The pieces of a document, in order.
pub(super) struct Pieces<'a> {
    rest: &'a str,
    /// The raw element whose content comes next.
    raw: Option<&'a str>,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(document: &'a str) -> Self {
        Self { rest: document, raw: None }
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    /// The content of a raw element, up to its end tag.
    fn raw(&mut self, name: &str) -> &'a str {
        let bytes = self.rest.as_bytes();
        let ends = |at: usize| {
            let tag = bytes.get(at + 2..at + 2 + name.len());
            bytes[at] == b'<'
                && bytes.get(at + 1) == Some(&b'/')
                && tag.is_some_and(|tag| tag.eq_ignore_ascii_case(name.as_bytes()))
        };
        let end = (0..bytes.len()).find(|at| ends(*at)).unwrap_or(bytes.len());
        self.take(end)
    }

    /// What begins with `<`, if it is markup: how long it is, and what it means.
    fn markup(&mut self) -> Option<Option<Piece<'a>>> {
        let rest = self.rest;
        let bytes = rest.as_bytes();
        match bytes.get(1)? {
            b'!' | b'?' => {
                let end = if rest.starts_with("<!--") { comment_end(rest) } else { through(rest, '>') };
                self.take(end);
                Some(None)
            }
            b'/' if bytes.get(2).is_some_and(u8::is_ascii_alphabetic) => {
                let tag = self.take(through(rest, '>'));
                Some(Some(Piece::Close(name_of(&tag[2..]))))
            }
            b'/' => {
                self.take(through(rest, '>'));
                Some(None)
            }
            byte if byte.is_ascii_alphabetic() => {
                let (tag, length) = read_tag(rest);
                self.take(length);
                if RAW.iter().any(|raw| raw.eq_ignore_ascii_case(tag.name)) {
                    self.raw = Some(tag.name);
                }
                Some(Some(Piece::Open(tag)))
            }
            _ => None,
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            if let Some(name) = self.raw.take() {
                let content = self.raw(name);
                if name.eq_ignore_ascii_case("style") {
                    return Some(Piece::Sheet(content));
                }
            }
            if self.rest.is_empty() {
                return None;
            }
            if self.rest.starts_with('<') {
                match self.markup() {
                    Some(Some(piece)) => return Some(piece),
                    Some(None) => continue,
                    None => {}
                }
            }
            let length = 1 + self.rest.as_bytes()[1..].iter().take_while(|byte| **byte != b'<').count();
            let length = (length..).find(|at| self.rest.is_char_boundary(*at)).unwrap_or(length);
            return Some(Piece::Text(self.take(length)));
        }
    }
}

/// Bytes up to and with the end of the comment that `text` begins with.
fn comment_end(text: &str) -> usize {
    if text.starts_with("<!-->") {
        return 5;
    }
    text[4..].find("-->").map_or(text.len(), |at| at + 7)
}

/// Bytes up to and with the first `end`.
fn through(text: &str, end: char) -> usize {
    text.find(end).map_or(text.len(), |at| at + end.len_utf8())
}

fn name_of(text: &str) -> &str {
    let end = text.bytes().position(|b| b.is_ascii_whitespace() || b == b'/' || b == b'>');
    &text[..end.unwrap_or(text.len())]
}

/// Reads the start tag that `text` begins with; how many bytes it takes.
fn read_tag(text: &str) -> (Tag<'_>, usize) {
    let bytes = text.as_bytes();
    let mut tag = Tag { name: name_of(&text[1..]), ..Tag::default() };
    let mut at = 1 + tag.name.len();
    let space = |b: u8| b.is_ascii_whitespace();
    loop {
        at = skip(bytes, at, |b| space(b) || b == b'/');
        if at >= bytes.len() {
            return (tag, bytes.len());
        }
        if bytes[at] == b'>' {
            return (tag, at + 1);
        }
        let name_end = skip(bytes, at + 1, |b| !space(b) && b != b'/' && b != b'>' && b != b'=');
        let name = text.get(at..name_end).unwrap_or_default();
        at = skip(bytes, name_end, space);
        let mut value = "";
        if bytes.get(at) == Some(&b'=') {
            at = skip(bytes, at + 1, space);
            let quote = bytes.get(at).copied().filter(|b| matches!(b, b'"' | b'\''));
            let from = at + usize::from(quote.is_some());
            let end = skip(bytes, from, |b| match quote {
                Some(quote) => b != quote,
                None => !space(b) && b != b'>',
            });
            value = text.get(from..end).unwrap_or_default();
            at = end + usize::from(quote.is_some());
        }
        tag.set(name, value);
    }
}

fn skip(bytes: &[u8], from: usize, over: impl Fn(u8) -> bool) -> usize {
    let from = from.min(bytes.len());
    from + bytes[from..].iter().take_while(|byte| over(**byte)).count()
}

impl<'a> Tag<'a> {
    /// The first attribute of a name counts.
    fn set(&mut self, name: &str, value: &'a str) {
        let place = match name.to_ascii_lowercase().as_str() {
            "style" => &mut self.style,
            "class" => &mut self.class,
            "id" => &mut self.id,
            "href" => &mut self.href,
            "color" => &mut self.color,
            "bgcolor" => &mut self.background,
            "hidden" => {
                self.hidden = true;
                return;
            }
            _ => return,
        };
        if place.is_none() {
            *place = Some(value);
        }
    }
}
