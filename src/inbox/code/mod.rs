//! Finds the code or the sign-in link of a message.
//!
//! What decides is the form of a candidate (`shape`) and the words around it (`words`, by language), never who
//! sent the message or which service it names. Where two candidates compete, where the plain part and the HTML
//! disagree, and where the words do not say that it is a code, the answer is none: a guess is worse.
//!
//! Invariants: what is found was visible to a reader ([`Seen`]); a link is `https` and carries a token. Time is
//! linear in the message. Nothing here is kept: buffers are freed, and the allocator wipes them. Imports `secret`, `types`
//! and `inbox::text`.

mod context;
mod cue;
mod judge;
mod label;
mod link;
mod place;
mod scene;
mod shape;
mod url;
mod words;

use crate::inbox::text::{Message, Seen};
use crate::secret::Secret;
use crate::types::Channel;

pub(super) use cue::Cue;
pub(super) use link::Parts;
pub(super) use scene::Scene;
pub(super) use url::host;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A code.
    Code,
    /// A link.
    Link,
    /// The code; the link, if there is none.
    Either,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something to type.
    Code,
    /// Something to open.
    Link,
}

/// The code or link of a message.
pub struct Found {
    /// Which of both.
    pub kind: Kind,
    /// What to type: without the blanks and dashes of a number (`123 456` is `123456`), digits in ASCII; a code with
    /// letters as it is (`K7QX-2MPA`). Of a link, its address.
    pub value: Secret,
    /// As the service wrote it.
    pub written: Secret,
    /// Where a link leads, in small letters: to be shown before it is opened.
    pub host: Option<String>,
}

/// Finds what is wanted in a message. `None` if there is none, or no single one.
pub fn extract(message: &Message<'_>, wanted: Wanted) -> Option<Found> {
    if !message.is_acceptable() {
        return None;
    }
    let (plain, html) = parts(message);
    let plain = plain.as_ref().map(Scene::new);
    let html = html.as_ref().map(Scene::new);
    let code = || agree(plain.as_ref(), html.as_ref(), find_code);
    let link = || agree(plain.as_ref(), html.as_ref(), find_link);
    match wanted {
        Wanted::Code => code(),
        Wanted::Link => link(),
        Wanted::Either => code().or_else(link),
    }
}

/// The parts of a message as they are seen; a part without a visible character counts as absent.
fn parts(message: &Message<'_>) -> (Option<Seen>, Option<Seen>) {
    let subject = if message.channel == Channel::Email { message.subject } else { "" };
    let html = (message.channel == Channel::Email && !message.html.trim().is_empty())
        .then(|| Seen::html(subject, message.html));
    let plain =
        (!message.text.trim().is_empty() || html.is_none()).then(|| Seen::plain(subject, message.text));
    (plain, html)
}

/// What one part has to say.
enum Answer {
    Nothing,
    One(Found),
    Many,
}

fn find_code(scene: &Scene<'_>) -> Answer {
    match judge::judge(scene) {
        judge::Verdict::Nothing => Answer::Nothing,
        judge::Verdict::Many => Answer::Many,
        judge::Verdict::One(index) => scene.candidates.get(index).map_or(Answer::Nothing, |candidate| {
            Answer::One(Found {
                kind: Kind::Code,
                value: Secret::copy_of(&candidate.typed),
                written: Secret::new(scene.seen.written(candidate.range.clone())),
                host: None,
            })
        }),
    }
}

fn find_link(scene: &Scene<'_>) -> Answer {
    match link::judge(scene) {
        link::Verdict::Nothing => Answer::Nothing,
        link::Verdict::Many => Answer::Many,
        link::Verdict::One(link) => Answer::One(Found {
            kind: Kind::Link,
            value: Secret::copy_of(&link.address),
            written: Secret::new(link.address),
            host: Some(link.host),
        }),
    }
}

/// The answer of both parts. If both have one it is the same; if the HTML has none, what the plain part says is
/// at least to be seen in it.
fn agree(
    plain: Option<&Scene<'_>>,
    html: Option<&Scene<'_>>,
    find: fn(&Scene<'_>) -> Answer,
) -> Option<Found> {
    let first = plain.map_or(Answer::Nothing, find);
    let second = html.map_or(Answer::Nothing, find);
    match (first, second) {
        (Answer::Many, _) | (_, Answer::Many) => None,
        (Answer::One(first), Answer::One(second)) => {
            (first.value.expose() == second.value.expose()).then_some(first)
        }
        (Answer::Nothing, Answer::One(found)) => Some(found),
        (Answer::One(found), Answer::Nothing) => html.is_none_or(|html| shows(html, &found)).then_some(found),
        (Answer::Nothing, Answer::Nothing) => None,
    }
}

/// True if a part shows what was found, or leads there.
fn shows(scene: &Scene<'_>, found: &Found) -> bool {
    let value = found.value.expose();
    match found.kind {
        Kind::Code => scene.candidates.iter().any(|candidate| candidate.typed == value),
        Kind::Link => {
            let text: String = scene.seen.folded().iter().collect();
            text.contains(value) || scene.seen.links().iter().any(|link| link.href == value)
        }
    }
}
