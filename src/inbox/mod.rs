//! The inbox: what came in, who may have it, and what is told of it; and what goes out.
//!
//! [`text`], [`code`], [`sender`] and [`redact`] judge a message that somebody else wrote: they are pure, take linear
//! time and bounded memory whatever it holds, and prefer no answer to a guess. [`message`] is one message, whichever
//! way it came; [`poll`] looks for new ones, [`watch`] decides who is given the code in one. [`letter`] makes what is
//! sent, [`budget`] counts it, [`sends`] remembers what became of it. [`store`] remembers what must hold over a
//! restart. May import layers 0 and 1, `policy` and `audit`.

pub mod budget;
pub mod code;
pub mod dispatch;
pub mod letter;
pub mod message;
pub mod poll;
pub mod redact;
pub mod sender;
pub mod sends;
pub mod store;
pub mod text;
pub mod watch;
