//! ravi-broker: one Ravi login per machine, one scoped, accountable identity per agent.
//!
//! Layers import only downwards; `tests/architecture.rs` fails on a breach.
//!
//! ```text
//! 5  bin/*   program   demo                        wiring only
//! 4  daemon   grpc   client   cli   mcp            edges: process, wire, people, models
//! 3  broker                                        the request path: one function per verb
//! 2  session  policy  limit  lease  audit          the rules
//! 1  vault -> upstream   peer                      secrets at rest; the only outbound network; who calls
//! 0  secret  clock  types  config  sys  telemetry  pb
//! ```

use zeroizing_alloc::ZeroAlloc;

pub mod audit;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
#[cfg(feature = "sandbox")]
pub mod demo;
pub mod grpc;
pub mod lease;
pub mod limit;
pub mod mcp;
pub mod pb;
pub mod peer;
pub mod policy;
pub mod program;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod secret;
pub mod session;
pub mod sys;
pub mod telemetry;
pub mod types;
pub mod upstream;
pub mod vault;

/// Wipes every block that is freed, in all programs (invariant I1).
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);
