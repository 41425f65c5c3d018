//! Residue: what is left of secrets in the running processes. Canaries are planted as every kind of
//! secret, every call is made, then the processes are frozen and all that can be read of them is searched.
//!
//! A binary of its own, since it stops processes, reads their memory (as root) and takes its time. What
//! cannot be done on a host is printed as `skipped: …`. A hit is reported by kind, form and place, never by
//! its text.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod able;
mod adapter;
mod canary;
mod census;
mod command;
mod drive;
mod dump;
mod files;
mod form;
mod frozen;
mod inbox;
mod leases;
mod link;
mod memory;
mod rest;
mod scan;
mod sealing;
mod sending;
mod serving;
mod stage;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the integration tests use the rest of it")]
mod support;

mod wire;
