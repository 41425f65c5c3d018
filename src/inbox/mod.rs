//! The inbox: what came in, what a message shows, the code or sign-in link in it, who sent it, what is left of it
//! when nobody may see its code, who may have it, and what is told of it.
//!
//! [`text`], [`code`] and [`redact`] judge a message that somebody else wrote: they are pure, take linear time
//! and bounded memory whatever it holds, and prefer no answer to a guess. [`store`] is what outlives a restart.
//!
//! May import layers 0 and 1, `policy` and `audit`.

pub mod code;
pub mod redact;
pub mod sender;
pub mod store;
pub mod text;
