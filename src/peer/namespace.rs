//! Whether a process is in our own user and PID namespace.

use std::sync::LazyLock;

use crate::sys::facts::{self, Namespaces};

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
    /// Of the process with this pid, which the caller pins; `found` is what the attestor or we saw of it.
    ///
    /// The namespaces themselves decide where they may be looked at. Else the maps of ids do: a user
    /// namespace that nobody with our own rights made cannot have the same.
    pub(super) fn of(pid: u32, found: Option<Namespaces>) -> Self {
        static OURS: LazyLock<Option<Namespaces>> =
            LazyLock::new(|| facts::namespaces(std::process::id()).ok());
        match facts::pid_namespaces(pid) {
            Ok(1) => {}
            Ok(_) => return Self::Other,
            Err(_) => return Self::Unknown,
        }
        let looked = found.zip(*OURS).map(|(its, ours)| its == ours);
        let compared = || Some(facts::id_maps(pid).ok()? == facts::id_maps(std::process::id()).ok()?);
        match looked.or_else(compared) {
            Some(true) => Self::Ours,
            Some(false) => Self::Other,
            None => Self::Unknown,
        }
    }
}
