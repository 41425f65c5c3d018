//! What a part of a message is about as a whole. Imports `inbox::text`.

use super::cue::Cue;
use super::scene::Scene;
use super::shape::{Shape, is_currency};

/// How much of a line is looked at.
const REACH: usize = 200;

/// What the whole part is about.
pub(super) struct Context {
    pub(super) code: bool,
    pub(super) auth: bool,
    pub(super) life: bool,
    pub(super) guard: bool,
    pub(super) sells: bool,
    /// Several other numbers are named: a receipt, a statement.
    pub(super) lists: bool,
    /// A sum or another number is named.
    pub(super) paid: bool,
    pub(super) meeting: bool,
    /// The subject speaks of signing in, or of a code.
    pub(super) subject: bool,
}

impl Context {
    pub(super) fn of(scene: &Scene<'_>) -> Self {
        let subject = 0..scene.seen.subject_end();
        Self {
            code: scene.has(Cue::Code),
            auth: scene.has(Cue::Auth) || scene.has(Cue::Code),
            life: scene.has(Cue::Life),
            guard: scene.has(Cue::Guard),
            sells: scene.has(Cue::Promo) || scene.has(Cue::Trade),
            lists: is_list(scene),
            paid: scene.has(Cue::Label) || scene.lower.iter().copied().any(is_currency),
            meeting: scene.has(Cue::Meeting),
            subject: scene.tells(&subject, Cue::Auth) || scene.tells(&subject, Cue::Code),
        }
    }

    /// Whether a name that may mean another code means this kind.
    pub(super) fn trusts_weak(&self, shape: Shape) -> bool {
        self.guard || !self.sells && (self.life || !self.lists && (self.auth || shape.is_plain()))
    }

    /// Whether something that is entered to sign in is a code.
    pub(super) fn is_about(&self, shape: Shape) -> bool {
        self.code || self.guard || self.life || shape.is_plain()
    }
}

/// True if two lines name other numbers.
fn is_list(scene: &Scene<'_>) -> bool {
    let mut lines =
        scene.hits.iter().filter(|hit| hit.what == Cue::Label).map(|hit| scene.line(hit.start, REACH).start);
    lines.next().is_some_and(|first| lines.any(|line| line != first))
}
