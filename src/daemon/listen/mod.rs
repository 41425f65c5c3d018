//! The sockets: bound here or inherited from the service manager, and the connections that come in.
//!
//! Nothing that lies at the path is ever removed but a dead socket of our own. A socket cannot be
//! connected to before its owner, group and mode are what they should be. Accepting ends when the
//! daemon stops, never because of an error. May import layers 0 to 2.

mod adopt;
mod bind;
mod connection;
mod incoming;

pub use adopt::{AdoptError, Adopted, adopt};
pub use bind::{BindError, Bound, Mode, Occupant, bind, prepare};
pub use connection::{Begun, Connection, Spoken, Stranger};
pub use incoming::{Admission, Connections, Incoming, Limits, Permit};
