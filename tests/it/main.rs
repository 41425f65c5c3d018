//! The integration tests: one binary, real processes, real sockets, real TLS.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod audit;
mod cli;
mod clients;
mod config;
mod dispatch;
mod life;
mod mcp;
mod request;
mod sandbox;
mod socket;
mod support;
mod upstream;
mod wire;
