//! A message for somebody who may read it but not use its code: everything that could serve as a code, and
//! every link with a token, is replaced.
//!
//! Looser than the search for the code: a number too many is replaced rather than one too few. What
//! [`extract`] would find is left in no form. HTML is answered as the text that it shows, never
//! as markup: what nobody sees is not handed on. Spelled-out numbers, pictures and attachments are not judged.
//! Imports `types`, `inbox::text` and `inbox::code`.

use std::ops::Range;

use super::code::{Cue, Kind, Parts, Scene, Wanted, extract, host};
use super::text::{Message, Seen};
use crate::types::Channel;

/// Stands for what could be a code.
pub const CODE: &str = "[code redacted]";
/// Stands for a link that could sign somebody in.
pub const LINK: &str = "[link redacted]";
/// Ends a part of which not all is shown.
pub const CUT: &str = "[rest of the message not shown]";

/// Fewest characters of a code.
const SHORTEST: usize = 4;

/// What is left of a message.
pub struct Redacted {
    /// The subject.
    pub subject: String,
    /// The plain part, or the body of an SMS.
    pub text: String,
    /// What the HTML part shows, as text.
    pub html: String,
}

/// Replaces codes and links.
pub fn redact(message: &Message<'_>) -> Redacted {
    if !message.is_acceptable() {
        return Redacted { subject: String::new(), text: CUT.to_owned(), html: String::new() };
    }
    let values = values(message);
    // A word in capitals is no code where nothing speaks of one.
    let whole = [Seen::plain(message.subject, message.text), Seen::html("", message.html)];
    let spoken = whole
        .iter()
        .map(Scene::new)
        .any(|scene| [Cue::Code, Cue::Weak, Cue::Auth].iter().any(|cue| scene.has(*cue)));
    let part = |seen: Seen| blank(&seen, &values, spoken);
    Redacted {
        subject: part(Seen::plain("", message.subject)),
        text: part(Seen::plain("", message.text)),
        html: part(Seen::html("", message.html)),
    }
}

/// What would be found: in the message, and in each of its parts.
fn values(message: &Message<'_>) -> Vec<Needle> {
    let only = |subject, text, html| Message { channel: message.channel, subject, text, html };
    let mut parts = vec![only(message.subject, message.text, message.html)];
    if message.channel == Channel::Email {
        parts.push(only(message.subject, message.text, ""));
        parts.push(only(message.subject, "", message.html));
        parts.push(only("", message.text, ""));
        parts.push(only("", "", message.html));
        parts.push(only("", message.subject, ""));
    }
    let mut needles: Vec<Needle> = Vec::new();
    let repeats = message.subject.is_empty() || message.text.is_empty() && message.html.is_empty();
    let parts = if repeats { &parts[..parts.len().min(3)] } else { &parts[..] };
    for part in parts {
        for wanted in [Wanted::Code, Wanted::Link] {
            let Some(found) = extract(part, wanted) else { continue };
            let letters: Vec<char> =
                found.value.expose().chars().filter(char::is_ascii_alphanumeric).collect();
            if !needles.iter().any(|needle| needle.letters == letters) {
                needles.push(Needle { letters, kind: found.kind });
            }
        }
    }
    needles
}

/// A value that must not be left, without its separators.
struct Needle {
    letters: Vec<char>,
    kind: Kind,
}

struct Hole {
    range: Range<usize>,
    mark: &'static str,
}

/// The text of a part with its holes.
fn blank(seen: &Seen, needles: &[Needle], spoken: bool) -> String {
    let text = seen.folded();
    let scene = Scene::new(seen);
    let mut holes = Vec::new();
    let mut addresses: Vec<Range<usize>> = Vec::new();
    for span in &scene.spans {
        let address: String = text[span.range.clone()].iter().collect();
        if !span.web && address.contains('@') && !address.contains('/') {
            continue;
        }
        if is_tokened(&address) {
            holes.push(Hole { range: span.range.clone(), mark: LINK });
        } else {
            addresses.push(span.range.clone());
        }
    }
    holes.extend(
        scene
            .candidates
            .iter()
            .filter(|c| spoken || c.typed.bytes().any(|b| b.is_ascii_digit()))
            .map(|candidate| Hole { range: candidate.range.clone(), mark: CODE }),
    );
    code_like(text, &addresses, &mut holes);
    for needle in needles {
        spelled(text, needle, &mut holes);
    }
    // What an anchor leads to is shown behind it if it carries nothing.
    let links: Vec<(usize, String)> =
        seen.links().iter().filter_map(|link| behind(link.range.end, &link.href)).collect();
    let mut shown = fill(seen, holes, &links);
    if seen.is_cut() {
        shown.push('\n');
        shown.push_str(CUT);
    }
    shown
}

fn behind(at: usize, href: &str) -> Option<(usize, String)> {
    let web = href.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http"));
    if !web {
        return None;
    }
    let plain = host(href).is_some() && !is_tokened(href);
    Some((at, if plain { format!(" <{href}>") } else { format!(" {LINK}") }))
}

/// True if an address carries something that could be used: any query with a value, any part that is no word.
fn is_tokened(address: &str) -> bool {
    let host = host(address).unwrap_or_default();
    let after = address.find("://").map_or(0, |at| at + 3);
    let path = address[after..].find(['/', '?', '#']).map_or("", |at| &address[after + at..]);
    let digits = path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word.len() >= SHORTEST && word.bytes().any(|b| b.is_ascii_digit()) || word.len() >= 16);
    let joined = path.bytes().filter(u8::is_ascii_digit).count() >= SHORTEST;
    let parts = Parts::of(address, &host);
    digits || joined || parts.token || parts.cue && path.len() > 1 || path.contains(['?', '#', '='])
}

/// Runs of digits and of letters with digits, also in groups.
fn code_like(text: &[char], skip: &[Range<usize>], holes: &mut Vec<Hole>) {
    let mut skip = skip.iter().peekable();
    let mut at = 0;
    while at < text.len() {
        while skip.next_if(|span| span.end <= at).is_some() {}
        if let Some(span) = skip.peek().filter(|span| span.contains(&at)) {
            at = span.end;
            continue;
        }
        if !text[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let run = run(text, at);
        if run.is_code() {
            holes.push(Hole { range: at..run.end, mark: CODE });
        }
        at = run.end;
    }
}

/// Letters and digits in groups.
struct Run {
    end: usize,
    digits: usize,
    letters: usize,
}

impl Run {
    fn is_code(&self) -> bool {
        self.digits > 0 && self.digits + self.letters >= SHORTEST
    }
}

/// From `start` on: groups that belong together. Digits go on behind one separator; single characters behind a few;
/// letters behind a dash.
fn run(text: &[char], start: usize) -> Run {
    let mut run = Run { end: start, digits: 0, letters: 0 };
    let mut at = start;
    loop {
        let from = at;
        while text.get(at).is_some_and(char::is_ascii_alphanumeric) {
            if text[at].is_ascii_digit() {
                run.digits += 1
            } else {
                run.letters += 1
            }
            at += 1;
        }
        run.end = at;
        let single = at - from == 1;
        let digits = text[from..at].iter().all(char::is_ascii_digit);
        let gap = text[at..].iter().take(4).take_while(|c| !c.is_alphanumeric()).count();
        let next = at + gap;
        let Some(first) = text.get(next).filter(|c| c.is_ascii_alphanumeric()) else { return run };
        let next_single = !text.get(next + 1).is_some_and(char::is_ascii_alphanumeric);
        let joined = match gap {
            1 => match text[at] {
                '-' | '_' => true,
                ' ' | '.' | '\u{b7}' => digits && first.is_ascii_digit() && (text[at] != '.' || single),
                _ => single && next_single,
            },
            2..=3 => single && next_single,
            _ => false,
        };
        if !joined || gap == 0 {
            return run;
        }
        at = next;
    }
}

/// A value wherever it stands, whatever separates its characters, in any case.
fn spelled(text: &[char], needle: &Needle, holes: &mut Vec<Hole>) {
    if needle.letters.len() < SHORTEST {
        return;
    }
    let places: Vec<usize> = (0..text.len()).filter(|at| text[*at].is_ascii_alphanumeric()).collect();
    let same = |at: usize, letter: char| text[places[at]].eq_ignore_ascii_case(&letter);
    // Knuth, Morris, Pratt: linear also where a message repeats the beginning of its code.
    let letters = &needle.letters;
    let mut back = vec![0; letters.len()];
    let mut k = 0;
    for at in 1..letters.len() {
        while k > 0 && !letters[k].eq_ignore_ascii_case(&letters[at]) {
            k = back[k - 1];
        }
        k += usize::from(letters[k].eq_ignore_ascii_case(&letters[at]));
        back[at] = k;
    }
    k = 0;
    for at in 0..places.len() {
        while k > 0 && !same(at, letters[k]) {
            k = back[k - 1];
        }
        k += usize::from(same(at, letters[k]));
        if k == letters.len() {
            let mark = if needle.kind == Kind::Link { LINK } else { CODE };
            holes.push(Hole { range: places[at + 1 - k]..places[at] + 1, mark });
            k = back[k - 1];
        }
    }
}

/// Writes the text with a mark in each hole; holes that touch are one.
fn fill(seen: &Seen, mut holes: Vec<Hole>, links: &[(usize, String)]) -> String {
    holes.sort_by_key(|hole| (hole.range.start, std::cmp::Reverse(hole.range.end)));
    let mut shown = String::new();
    let mut at = 0;
    let mut links = links.iter().peekable();
    let mut write = |shown: &mut String, mut at: usize, to: usize| {
        while let Some((end, behind)) = links.next_if(|(end, _)| *end <= to) {
            if *end > at {
                shown.push_str(&seen.written(at..*end));
                at = *end;
            }
            shown.push_str(behind);
        }
        shown.push_str(&seen.written(at..to));
    };
    for hole in holes {
        if hole.range.start >= at {
            write(&mut shown, at, hole.range.start);
            shown.push_str(hole.mark);
        }
        at = at.max(hole.range.end);
    }
    write(&mut shown, at, seen.folded().len());
    shown
}

#[cfg(test)]
mod tests;
