//! Sessions: agent processes that have assumed a role.
