//! What a part of a message is about as a whole. Imports `inbox::text`.

use super::cue::Cue;
use super::scene::Scene;
use super::shape::Shape;

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
    pub(super) meeting: bool,
}

impl Context {
    pub(super) fn of(scene: &Scene<'_>) -> Self {
        Self {
            code: scene.has(Cue::Code),
            auth: scene.has(Cue::Auth) || scene.has(Cue::Code),
            life: scene.has(Cue::Life),
            guard: scene.has(Cue::Guard),
            sells: scene.has(Cue::Promo) || scene.has(Cue::Trade),
            lists: is_list(scene),
            meeting: scene.has(Cue::Meeting),
        }
    }

    /// Whether a name that may mean another code means this kind.
    pub(super) fn trusts_weak(&self, shape: Shape) -> bool {
        let plain = matches!(shape, Shape::Digits | Shape::Grouped);
        self.guard || !self.sells && (self.life || !self.lists && (self.auth || plain))
    }
}

impl Context {
    /// Whether something that is entered to sign in is a code.
    pub(super) fn is_about(&self, shape: Shape) -> bool {
        self.code || self.guard || self.life || matches!(shape, Shape::Digits | Shape::Grouped)
    }
}

/// True if two lines name other numbers.
fn is_list(scene: &Scene<'_>) -> bool {
    let mut lines =
        scene.hits.iter().filter(|hit| hit.what == Cue::Label).map(|hit| scene.line(hit.start, REACH).start);
    lines.next().is_some_and(|first| lines.any(|line| line != first))
}
