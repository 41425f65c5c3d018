//! The link: a connection that a launcher leaves open for what it starts, for sandboxes in which a process
//! may neither connect to a socket nor send on one. What both ends agree on: the form of their frames and how
//! they seal them.
//!
//! A link begins with [`PREFACE`] and a frame [`Kind::Bind`] with the launcher's session token. From then on
//! the session's processes take turns: each opens a conversation under a random number, and what is in its
//! frames is a connection like any other. A frame is written by one `write(2)`, which a Unix socket takes
//! whole; so frames of two processes never mix, and the kernel names the sender of each. A reader that
//! was killed may leave part of a frame behind: whoever comes next reads on until its own [`Kind::Opened`].
//!
//! Whoever holds a copy of the descriptor can read what the broker writes, and the kernel tells nobody. So a
//! conversation is sealed: [`Kind::Open`] carries a key that the process made for it, [`Kind::Opened`] the
//! broker's, and every frame after them opens to the other end alone. That no key is somebody else's follows
//! from the socket: the kernel names the sender of the one, and only the broker can have written the other.
//! Imports `sys`.

mod frame;
mod seal;

pub use frame::{HEAD, Head, Kind, MAX_PAYLOAD, NoHead, PREFACE, VARIABLE, VERSION, write};
pub use seal::{Broken, End, Ephemeral, MAX_PLAIN, Opener, PUBLIC_KEY, Sealer, TAG};
