//! The daemon's process: composition, sockets, life cycle.

pub mod listen;
pub mod notify;
