//! The inbox: what came in, who may have it, and what is told of it.
//!
//! May import layers 0 and 1, `policy` and `audit`.

pub mod store;
