//! A stand-in for Ravi's API over real TLS, for the demo, the tests and the benchmarks.
//!
//! It follows the contract sheet of the upstream API, not our client: where the sheet marks something as
//! unknown, [`Behaviour`] has a switch, set to the sheet's default. Everything is in memory, seeded by
//! [`seed`]; keys are random at every start unless given. It listens on loopback alone.
//!
//! A program of its own beside the layers: it imports `secret` and `clock`, nothing else of the crate.
//!
//! Not Ravi's: everything under `/__sandbox__/` (faults, deliveries, decisions, counts, switches; `GET
//! /__sandbox__/` lists them), which [`Control`] offers within the process. Invented, because Ravi does
//! not document it: the answer of `GET /api/auth/keys/identity/`, statuses of a mismatched `?identity=`, the
//! bounds of generated passwords, what `/device/` looks like, the payload of events, the answers of the storage
//! that takes uploads. Not there: calls.

mod account;
mod address;
mod arrival;
mod attachments;
mod auth;
mod behaviour;
mod body;
mod budget;
mod compose;
mod contacts;
mod control;
mod control_http;
mod device;
mod domain;
mod embed;
mod events;
mod fault;
mod generate;
mod identities;
mod mail;
mod outbox;
mod passwords;
mod query;
mod random;
mod reply;
mod routes;
mod run;
mod secrets;
pub mod seed;
mod server;
mod sms;
mod sso;
mod state;
mod tls;
mod traffic;

pub use arrival::{Batch, Delivered, NewAttachment, NewMail, NewSms};
pub use behaviour::{
    Absent, Behaviour, ListShape, ListValues, MintStatus, MismatchStatus, SecretLookup, StorageHost, Visible,
    WithoutIdentity, WithoutPhoneStatus, WrongKindStatus,
};
pub use control::{Control, ControlError};
pub use embed::{EmbedError, Embedded, embed};
pub use fault::{Answer, Fault};
pub use outbox::{Sent, SentKind};
pub use random::NoRandomness;
pub use run::{Args, Format, RunError, run, write_ca};
pub use seed::Seed;
pub use server::{Sandbox, SandboxConfig, StartError};
pub use tls::NoCertificates;
pub use traffic::RequestCount;
