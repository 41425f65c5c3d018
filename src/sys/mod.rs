//! What the kernel offers and `std` does not. One of the two places where `unsafe` may stand.
//! Imports nothing of this crate but `clock`'s plain types.

#![allow(unsafe_code)]

pub mod time;
