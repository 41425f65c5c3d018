//! What the kernel offers and `std` does not. One of the two places where `unsafe` may stand.
//! Imports nothing of this crate.

#![allow(unsafe_code, reason = "system calls; each block says why it is sound")]

pub mod attestor;
pub mod capability;
pub mod cgroup;
pub mod confine;
mod descriptors;
pub mod digest;
pub mod facts;
pub mod harden;
pub mod inherited;
pub mod lineage;
pub mod locked;
pub mod memfd;
pub mod peer;
pub mod pty;
pub mod socket;
pub mod spawn;
pub mod stack;
pub mod time;

/// How far one protection of the process got, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// What is protected, in a few words.
    pub name: &'static str,
    /// The level that was reached, in words.
    pub tier: &'static str,
    /// True if nothing better is to be had.
    pub full: bool,
}

impl Protection {
    /// A protection that is either there or not.
    pub(crate) fn of(name: &'static str, reached: bool) -> Self {
        Self { name, tier: if reached { "on" } else { "off" }, full: reached }
    }
}
