//! Whether a process is in our own user and PID namespace.

use std::sync::LazyLock;

use crate::sys::facts::{self, Facts, Namespaces};

/// Where a process is, seen from us.
///
/// In namespaces of its own a process can be given any pid and, inside, any user, and can arrange what
/// programs see at any path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// In our user and PID namespace.
    Ours,
    /// In another one.
    Other,
    /// It cannot be told.
    Unknown,
}

impl Namespace {
    /// Of a process of which this was read.
    ///
    /// The namespaces themselves decide where they may be looked at. Else the maps of ids do: a user
    /// namespace that nobody with our own rights made cannot have the same.
    pub(super) fn of(found: &Facts) -> Self {
        static OURS: LazyLock<Option<Namespaces>> =
            LazyLock::new(|| facts::namespaces(std::process::id()).ok());
        match found.nested {
            Some(1) => {}
            Some(_) => return Self::Other,
            None => return Self::Unknown,
        }
        let looked = found.namespaces.zip(*OURS).map(|(its, ours)| its == ours);
        match looked.or(found.same_ids) {
            Some(true) => Self::Ours,
            Some(false) => Self::Other,
            None => Self::Unknown,
        }
    }
}
