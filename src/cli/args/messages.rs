//! Arguments of the commands that send, and of those that look for whom.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::agent::{OneCall, Purpose, UnderSession};
use super::parse::mail;
use crate::types::{EmailAddress, MessageRef, PhoneNumber, SendId};

#[derive(Debug, Subcommand)]
pub(crate) enum SendCommand {
    /// Send a mail; what it says comes from standard input
    Email(SendEmail),
    /// Send a text message
    Sms(SendSms),
}

/// What a mail says, and to whom besides.
#[derive(Args, Debug)]
pub(crate) struct Content {
    /// What it says; from standard input if absent
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// What it says is HTML, and is sent as it is
    #[arg(long)]
    pub(crate) html: bool,
    /// Another recipient; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) cc: Vec<EmailAddress>,
    /// A recipient whom the others do not see; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bcc: Vec<EmailAddress>,
    /// A file of at most 10 MiB; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) attach: Vec<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
It is sent once and never repeated by itself. If it cannot be known whether it went out, the error
names the command that looks.

Example:
  ravi-broker send email --to jane@example.com --subject \"Minutes\" --attach minutes.pdf < minutes.txt")]
pub(crate) struct SendEmail {
    /// One address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: EmailAddress,
    /// One line
    #[arg(long, value_name = "TEXT")]
    pub(crate) subject: String,
    #[command(flatten)]
    pub(crate) content: Content,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ravi-broker send sms --to +15550100001 --text \"Running late\"")]
pub(crate) struct SendSms {
    /// A number in international form
    #[arg(long, value_name = "NUMBER")]
    pub(crate) to: PhoneNumber,
    /// At most 1,600 characters; from standard input if absent
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: Option<String>,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ravi-broker reply email/42 --all --text \"Thursday suits me.\"")]
pub(crate) struct Reply {
    /// The mail, such as email/42
    #[arg(value_parser = mail)]
    pub(crate) message: MessageRef,
    /// Answer everybody whom the mail names
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) content: Content,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Args, Debug)]
#[command(after_help = "\
A mail with a code or a link that signs in is sent on only for a session that may wait for codes.

Example:
  ravi-broker forward email/42 --to jane@example.com --text \"For you.\"")]
pub(crate) struct Forward {
    /// The mail, such as email/42
    #[arg(value_parser = mail)]
    pub(crate) message: MessageRef,
    /// One address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: EmailAddress,
    #[command(flatten)]
    pub(crate) content: Content,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Args, Debug)]
#[command(after_help = "\
It looks among what the identity sent, in the session that sent it. What has just gone out may take
a minute to be found.

Example:
  ravi-broker check-send snd_mfrggzdfmztwq2lknnwg23tpoa")]
pub(crate) struct CheckSend {
    /// The send, as the error named it
    #[arg(value_name = "SEND")]
    pub(crate) send: SendId,
    #[command(flatten)]
    pub(crate) session: UnderSession,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ravi-broker contacts jane")]
pub(crate) struct Contacts {
    /// Part of a name or an address
    pub(crate) query: String,
    #[command(flatten)]
    pub(crate) session: OneCall,
}
