//! Sessions: agent processes that have assumed a role.

pub mod peer;
