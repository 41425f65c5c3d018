//! Words of the domain as types that cannot be wrong: every name is parsed once, at the edge, into
//! its one canonical form, or refused. Holds no secret. Imports nothing of this crate.

mod base_url;
mod callback;
mod delivery;
mod host;
mod ids;
mod message;
mod names;
mod reference;
mod resource;
mod subject;
mod trace;

pub use base_url::{BaseUrl, BaseUrlError, LOCALHOST};
pub use callback::{CallbackUrl, CallbackUrlError};
pub use delivery::Delivery;
pub use host::{CgroupPath, FileHash, HostNameError, UnitName};
pub use ids::{
    ApprovalId, DenialId, DispatchId, EntryUuid, IdentityUuid, LeaseId, SendId, SessionId, WatchId,
};
pub use message::{Channel, EmailAddress, MessageRef, PhoneNumber};
pub use names::{Domain, IdentityName, NameError, Reason, RoleName, SecretKey, Username};
pub use reference::{Field, Reference};
pub use resource::{PasswordName, Resource};
pub use subject::Subject;
pub use trace::TraceParent;

/// What `--version` says: the version, and the commit that the programs were built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("RAVI_BROKER_COMMIT"), ")");
