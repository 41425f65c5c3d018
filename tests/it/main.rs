//! The integration tests: one binary, real processes, real sockets, real TLS.

mod audit;
mod cli;
mod clients;
mod config;
mod mcp;
mod request;
mod sandbox;
mod socket;
mod support;
mod upstream;
