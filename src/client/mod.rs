//! Typed client of the daemon's sockets; the only way that `cli` and `mcp` reach it.
//!
//! What goes in and comes out are the plain types of `model`; the wire types stay in here. A secret
//! is moved, not copied, from the decoded answer into a [`Secret`](crate::secret::Secret). Every call
//! has a deadline, no call is repeated by itself, and an answer is bounded in size. Errors are the
//! closed enum [`ClientError`], told apart by the broker's reason code and never by text.
//!
//! Works on a current-thread runtime. May import `pb`, `secret`, `types` and `config`.

mod admin;
mod agent;
mod approvals;
mod channel;
mod convert;
mod dispatch;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod inbox;
pub mod link;
pub mod locate;
mod messages;
mod model;
mod model_messages;
mod session_file;

pub use admin::AdminClient;
pub use agent::{AgentClient, HeldSession};
pub use approvals::{Alarm, ApprovalDecision, Attention, PendingApproval};
pub use channel::Events;
pub use dispatch::{DispatchBacklog, DispatchInfo, DispatchState, Dispatched};
pub use error::{Attempt, BrokerError, ClientError, ConnectFailure, ErrorReason};
pub use inbox::{Code, CodeKind, CodeWatch, Message, MessagePage, MessageSummary, OpenWatch};
pub use model::*;
pub use model_messages::*;
pub use session_file::{SessionFile, SessionFileError};

#[cfg(test)]
mod tests;
