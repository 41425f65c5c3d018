//! The link of a message that signs in, confirms or resets: told by its own words, the words around it and its
//! path, and by the token that it carries. Links that leave, help, sell or report are never it. Imports
//! `inbox::text`.

use std::ops::Range;
use std::sync::OnceLock;

use super::cue::{Cue, Hit, Phrases};
use super::scene::Scene;
use super::url;
use super::words::{self, NEUTRAL, NEVER_HOSTS, NEVER_PATHS, PATHS, TOKENS};
use crate::inbox::text::lower;

/// What the words at a link say that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// Confirms an address, a number, an account.
    Verify,
    /// Signs in.
    SignIn,
    /// Signs in, without a doubt: `magic link`.
    Magic,
    /// Sets a new password.
    Reset,
    /// Something else: leaves a list, reports, helps, sells.
    Never,
}

/// A link that may be handed out.
pub(crate) struct Address {
    pub(crate) address: String,
    pub(crate) host: String,
}

/// What a part of a message says.
pub(crate) enum Verdict {
    Nothing,
    One(Address),
    Many,
}

/// A link as it stands in the text.
struct Place {
    range: Range<usize>,
    address: String,
    /// The words are the address itself.
    bare: bool,
}

struct Judged {
    level: u8,
    says: Says,
    address: Address,
}

const REACH: usize = 300;

/// Finds the link of a part.
pub(crate) fn judge(scene: &Scene<'_>) -> Verdict {
    let phrases = phrases();
    let hits = phrases.find(&scene.lower);
    let mut judged: Vec<Judged> = Vec::new();
    for place in places(scene) {
        if let Some(found) = judge_one(scene, &hits, &place) {
            judged.push(found);
        }
    }
    let Some(top) = judged.iter().map(|judged| judged.level).max() else { return Verdict::Nothing };
    // Behind the button there is often the same link once more, counted by another host.
    let mut best = judged.into_iter().filter(|judged| judged.level == top);
    let Some(first) = best.next() else { return Verdict::Nothing };
    let same = |other: &Judged| {
        other.address.address == first.address.address
            && (other.says == first.says || other.says != Says::Never)
    };
    if best.all(|other| same(&other)) { Verdict::One(first.address) } else { Verdict::Many }
}

fn phrases() -> &'static Phrases<Says> {
    static TABLE: OnceLock<Phrases<Says>> = OnceLock::new();
    const LISTS: [(Says, &str); 5] = [
        (Says::Magic, "magic"),
        (Says::Reset, "reset"),
        (Says::Verify, "verify"),
        (Says::SignIn, "sign_in"),
        (Says::Never, "never"),
    ];
    TABLE.get_or_init(|| Phrases::new(LISTS.map(|(says, name)| (says, words::links(name)))))
}

/// The links of the HTML, and the addresses that are written out.
fn places(scene: &Scene<'_>) -> Vec<Place> {
    let links = scene.seen.links();
    let inside = |range: &Range<usize>| {
        links.iter().any(|link| link.range.start <= range.start && range.end <= link.range.end)
    };
    // As it is written: an address with a folded letter in it leads elsewhere, and is refused for its letters.
    let text = |range: &Range<usize>| scene.seen.written(range.clone());
    let mut places: Vec<Place> = Vec::new();
    for link in links {
        let shown = text(&link.range);
        let shown = shown.trim();
        let (shown_host, host) = (url::host(shown), url::host(&link.href));
        let bare = shown_host.is_some();
        // What is shown is what a person goes to; where the link leads elsewhere, it is a counter or a trap.
        let address = match (shown_host, host) {
            (Some(shown_host), Some(host)) if site(&shown_host) != site(&host) => shown.to_owned(),
            _ => link.href.clone(),
        };
        places.push(Place { range: link.range.clone(), address, bare });
    }
    for span in scene.spans.iter().filter(|span| span.secure).take(256) {
        let cut = scene.seen.folded().get(span.range.end) == Some(&'…');
        if !cut && (links.is_empty() || !inside(&span.range)) {
            places.push(Place { range: span.range.clone(), address: text(&span.range), bare: true });
        }
    }
    places
}

/// The last two labels of a host.
fn site(host: &str) -> &str {
    let mut dots = host.rmatch_indices('.').map(|(at, _)| at);
    dots.nth(1).map_or(host, |at| &host[at + 1..])
}

fn judge_one(scene: &Scene<'_>, hits: &[Hit<Says>], place: &Place) -> Option<Judged> {
    let host = url::host(&place.address)?;
    let parts = Parts::of(&place.address, &host);
    if parts.never || !parts.token {
        return None;
    }
    let own = if place.bare { None } else { says(hits, &place.range) };
    let around = around(scene, hits, place);
    if own == Some(Says::Never) || own.is_none() && around == Some(Says::Never) {
        return None;
    }
    // To confirm a visit or an order is not to sign in.
    let at =
        place.range.start + scene.lower[place.range.clone()].iter().take_while(|c| c.is_whitespace()).count();
    let sentence = scene.sentence(at, REACH);
    if own.or(around) == Some(Says::Verify)
        && scene.tells(&(sentence.start..sentence.end.max(at)), Cue::Trade)
    {
        return None;
    }
    if own.or(around) == Some(Says::Verify) && scene.has(Cue::Trade) && !parts.cue {
        return None;
    }
    let neutral = place.bare || is_neutral(scene, &place.range);
    let said = own.or(around.filter(|_| neutral));
    let urgent = scene.has(Cue::Life) || scene.has(Cue::Guard);
    let magic = hits.iter().any(|hit| hit.what == Says::Magic);
    let level = match said {
        Some(Says::Never) => return None,
        Some(Says::SignIn) if !(urgent || magic || parts.named_token && parts.cue) => return None,
        Some(_) if parts.cue => 3,
        Some(_) => 2,
        None if parts.cue && parts.named_token && neutral && urgent => 1,
        None => return None,
    };
    Some(Judged {
        level,
        says: said.unwrap_or(Says::Verify),
        address: Address { address: place.address.clone(), host },
    })
}

/// What the phrases in a range say. One that rules it out comes first.
fn says(hits: &[Hit<Says>], range: &Range<usize>) -> Option<Says> {
    let from = hits.partition_point(|hit| hit.end <= range.start);
    let inside = || hits[from..].iter().take_while(|hit| hit.start < range.end);
    inside()
        .map(|hit| hit.what)
        .find(|what| *what == Says::Never)
        .or_else(|| inside().map(|hit| hit.what).last())
}

/// What the sentence around a link says, or the lines before one that stands alone.
fn around(scene: &Scene<'_>, hits: &[Hit<Says>], place: &Place) -> Option<Says> {
    let at =
        place.range.start + scene.lower[place.range.clone()].iter().take_while(|c| c.is_whitespace()).count();
    let mut sentence = scene.sentence(at, REACH);
    sentence.end = sentence.end.max(place.range.end);
    let before = sentence.start..at;
    let after = place.range.end..sentence.end.max(place.range.end);
    let here = [before, after].iter().filter_map(|range| says(hits, range)).collect::<Vec<_>>();
    if here.contains(&Says::Never) {
        return Some(Says::Never);
    }
    if let Some(what) = here.first() {
        return Some(*what);
    }
    let line = scene.line(at, REACH);
    let alone = !scene.lower[line.start..at].iter().any(|c| c.is_alphanumeric());
    if !alone {
        let begins = !scene.lower[sentence.start..at].iter().any(|c| c.is_alphanumeric());
        let before = scene.sentence(sentence.start.saturating_sub(1), REACH);
        return says(hits, &(before.start.max(line.start)..at)).filter(|_| begins);
    }
    let above = scene.line_before(at, 1)?;
    // The last sentence above is the one that leads here.
    let last = scene.sentence(above.end.saturating_sub(2).max(above.start), REACH);
    says(hits, &(last.start..at)).or_else(|| says(hits, &above)).or_else(|| {
        let further = scene.line_before(at, 2)?;
        says(hits, &further).filter(|what| *what != Says::Never)
    })
}

/// `Click here`, `Continue`: words that say nothing by themselves.
fn is_neutral(scene: &Scene<'_>, range: &Range<usize>) -> bool {
    let text: String = scene.lower[range.clone()].iter().collect();
    let text = text.trim_matches(|c: char| !c.is_alphanumeric());
    text.chars().count() <= 40 && NEUTRAL.iter().any(|word| text.contains(word))
}

/// What an address says by itself.
pub(crate) struct Parts {
    /// It carries something that only this reader got.
    pub(crate) token: bool,
    /// In a parameter or after a word that is named for it.
    named_token: bool,
    /// The path speaks of signing in or confirming.
    pub(crate) cue: bool,
    never: bool,
}

impl Parts {
    pub(crate) fn of(address: &str, host: &str) -> Self {
        let rest = address.get(8 + host.len()..).unwrap_or_default();
        let path_end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (path, query) = rest.split_at(path_end);
        let small: String = path.chars().map(lower).collect();
        let words: Vec<&str> =
            small.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let hosts: Vec<&str> = host.split('.').collect();
        let cue = words.iter().any(|word| PATHS.has(word))
            || hosts[..hosts.len().saturating_sub(2)].iter().any(|label| PATHS.has(label));
        let query_small = query.to_ascii_lowercase();
        let parameters: Vec<(&str, &str)> = query
            .split(['?', '&', '#', ';', '/'])
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, part)))
            .collect();
        let is_named = |name: &str| TOKENS.has(&name.to_ascii_lowercase());
        let named = parameters.iter().any(|(name, value)| is_named(name) && value.len() >= 4);
        let in_query = parameters.iter().any(|(_, value)| is_token(value));
        let in_path = path.split('/').any(is_token);
        let query_cue = query_small.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| PATHS.has(word));
        let site = site(host);
        let never = words.iter().any(|word| NEVER_PATHS.has(word))
            || NEVER_HOSTS.has(site)
            || NEVER_HOSTS.has(host)
            || [".png", ".jpg", ".jpeg", ".gif", ".svg", ".css", ".js", ".webp", ".pdf", ".ics"]
                .iter()
                .any(|end| small.ends_with(end));
        Self {
            token: named || in_query || in_path,
            named_token: named || cue && in_path,
            cue: cue || query_cue,
            never,
        }
    }
}

/// True for what a machine has made up: letters with digits, long, or many digits.
fn is_token(text: &str) -> bool {
    let count = |of: fn(&char) -> bool| text.chars().filter(of).count();
    let digits = count(char::is_ascii_digit);
    let small = count(char::is_ascii_lowercase);
    let capitals = count(char::is_ascii_uppercase);
    let letters = small + capitals;
    let length = digits + letters;
    let words = text.contains(['-', '_'])
        && capitals == 0
        && text.split(['-', '_']).all(|w| {
            w.chars().all(|c| c.is_ascii_lowercase()) || w.chars().all(|c| c.is_ascii_digit()) && w.len() <= 4
        });
    if words {
        return false;
    }
    digits >= 8 && letters == 0
        || length >= 6 && digits >= 1 && capitals >= 1 && small >= 1
        || length >= 8 && digits >= 2 && letters >= 2
        || length >= 10 && capitals >= 2 && small >= 2
        || length >= 24
}
