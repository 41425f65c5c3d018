//! The inbox: what a message shows, the code or sign-in link in it, who sent it, and what is left of it when
//! nobody may see its code.
//!
//! [`text`], [`code`] and [`redact`] judge a message that somebody else wrote: they are pure, take linear time
//! and bounded memory whatever it holds, and prefer no answer to a guess. Imports layers 0 and 1.

pub mod code;
pub mod redact;
pub mod sender;
pub mod text;
