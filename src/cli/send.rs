//! `send`, `reply`, `forward`, `check-send` and `contacts`. What is said comes from standard input or an argument and
//! is never printed.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use serde::Serialize;
use zeroize::Zeroizing;

use super::args::{CheckSend, Contacts, Content, Forward, OneCall, Reply, SendCommand, SendEmail, SendSms};
use super::context::{Context, text};
use super::error::CliError;
use super::input::{self, InputError};
use super::output::{Document, moment};
use super::page::{Cell, Page, Tone};
use crate::client::{
    AgentClient, Answered, Body, ClientError, Contact, MailContent, NewFile, NewMail, SendBudget, SendState,
    Sent,
};
use crate::secret::Secret;
use crate::types::{EmailAddress, Reason};

/// The largest file that Ravi takes.
const MAX_FILE: u64 = 10 * 1024 * 1024;

/// Types by extension: what a reader's program opens by itself. Others are bytes.
const TYPES: [(&str, &str); 12] = [
    ("csv", "text/csv"),
    ("gif", "image/gif"),
    ("html", "text/html"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("json", "application/json"),
    ("md", "text/markdown"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("txt", "text/plain"),
    ("webp", "image/webp"),
    ("zip", "application/zip"),
];

pub(super) async fn send(context: &mut Context, command: &SendCommand) -> Result<(), CliError> {
    match command {
        SendCommand::Email(args) => send_email(context, args).await,
        SendCommand::Sms(args) => send_sms(context, args).await,
    }
}

async fn send_email(context: &mut Context, args: &SendEmail) -> Result<(), CliError> {
    let letter = Letter::read(&args.content)?;
    let reason = args.purpose.reason.as_ref();
    let (to, subject) = (args.to.to_string(), args.subject.clone());
    let send = async |client: &AgentClient| {
        let content = letter.content(client).await?;
        Ok(client.send_email(NewMail { to, subject, content, reason: text(reason) }).await?)
    };
    hand_over(context, &args.session, reason, send).await
}

async fn send_sms(context: &mut Context, args: &SendSms) -> Result<(), CliError> {
    let said = said(args.text.as_deref())?;
    let reason = args.purpose.reason.as_ref();
    let send =
        async |client: &AgentClient| Ok(client.send_sms(args.to.as_str(), &said, &text(reason)).await?);
    hand_over(context, &args.session, reason, send).await
}

pub(super) async fn reply(context: &mut Context, args: &Reply) -> Result<(), CliError> {
    let letter = Letter::read(&args.content)?;
    let answered = if args.all { Answered::All } else { Answered::Sender };
    let (message, reason) = (args.message.to_string(), args.purpose.reason.as_ref());
    let send = async |client: &AgentClient| {
        let content = letter.content(client).await?;
        Ok(client.reply(&message, answered, content, &text(reason)).await?)
    };
    hand_over(context, &args.session, reason, send).await
}

pub(super) async fn forward(context: &mut Context, args: &Forward) -> Result<(), CliError> {
    let letter = Letter::read(&args.content)?;
    let (message, reason) = (args.message.to_string(), args.purpose.reason.as_ref());
    let send = async |client: &AgentClient| {
        let content = letter.content(client).await?;
        Ok(client.forward(&message, args.to.as_str(), content, &text(reason)).await?)
    };
    hand_over(context, &args.session, reason, send).await
}

pub(super) async fn check(context: &mut Context, args: &CheckSend) -> Result<(), CliError> {
    let (client, _) = context.session(&args.session).await?;
    let state = client.check_send(args.send).await?;
    context.show(&StateView::of(state))
}

pub(super) async fn contacts(context: &mut Context, args: &Contacts) -> Result<(), CliError> {
    let found = async |client: &AgentClient| Ok(client.search_contacts(&args.query).await?);
    let found = context.under(&args.session, None, found).await?;
    context.show(&ContactsView(found.iter().map(ContactView::of).collect()))
}

/// Sends, and shows what went out. The handle of a send in doubt ends with its session: one that is open for this call
/// alone asks at once.
async fn hand_over(
    context: &mut Context,
    session: &OneCall,
    reason: Option<&Reason>,
    send: impl AsyncFnOnce(&AgentClient) -> Result<Sent, CliError>,
) -> Result<(), CliError> {
    let is_own = session.role.is_some();
    let outcome = context
        .under(session, reason, async |client| match send(client).await {
            Err(CliError::Client(ClientError::Broker(mut error))) if is_own && error.send.is_some() => {
                let id = error.send.take();
                let state = match id {
                    Some(id) => client.check_send(id).await.ok(),
                    None => None,
                };
                match state {
                    Some(SendState::Sent(message)) => Ok((message, None)),
                    _ => Err(ClientError::Broker(error).into()),
                }
            }
            sent => sent.map(|sent| (sent.message, Some(sent.budget))),
        })
        .await;
    let (message, budget) = outcome?;
    context.show(&SentView { message, budget: budget.map(BudgetView::of) })
}

/// A mail that is ready but for its files, which are attached in the session that sends it.
struct Letter {
    body: Body,
    cc: Vec<String>,
    bcc: Vec<String>,
    files: Vec<NewFile>,
}

impl Letter {
    fn read(args: &Content) -> Result<Self, CliError> {
        let said = said(args.text.as_deref())?;
        let body = if args.html { Body::Html(said) } else { Body::Text(said) };
        let files = args.attach.iter().map(|path| read_file(path)).collect::<Result<_, _>>()?;
        let texts = |addresses: &[EmailAddress]| addresses.iter().map(ToString::to_string).collect();
        Ok(Self { body, cc: texts(&args.cc), bcc: texts(&args.bcc), files })
    }

    async fn content(self, client: &AgentClient) -> Result<MailContent, CliError> {
        let Self { body, cc, bcc, files } = self;
        let mut attachments = Vec::with_capacity(files.len());
        for file in files {
            attachments.push(client.attach(file).await?);
        }
        Ok(MailContent { body, cc, bcc, attachments })
    }
}

fn said(argument: Option<&str>) -> Result<Secret, CliError> {
    let usage = |what: &str, remedy: &str| CliError::Usage(what.to_owned(), remedy.to_owned());
    if let Some(argument) = argument {
        return Ok(Secret::copy_of(argument));
    }
    let missing = "pipe it in, or give --text";
    if io::stdin().is_terminal() {
        return Err(usage("there is nothing to send", missing));
    }
    input::secret("", false).map_err(|error| match error {
        InputError::Empty => usage("there is nothing to send: standard input is empty", missing),
        InputError::TooLong => {
            usage("the message is longer than 48 KiB", "attach it as a file with --attach")
        }
        error => error.into(),
    })
}

/// Into one buffer of the file's size, which is wiped.
fn read_file(path: &Path) -> Result<NewFile, CliError> {
    let refused = |what: &str, remedy: &str| CliError::Usage(what.to_owned(), remedy.to_owned());
    let unread =
        || refused("a file to be attached cannot be read", "see that it is there and a regular file");
    let mut file = File::open(path).map_err(|_| unread())?;
    let known = file.metadata().map_err(|_| unread())?;
    if !known.is_file() {
        return Err(unread());
    }
    if known.len() > MAX_FILE {
        return Err(refused(
            "a file to be attached is larger than 10 MiB",
            "send a link to it, or a part of it",
        ));
    }
    let size = usize::try_from(known.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(vec![0; size]);
    file.read_exact(&mut bytes).map_err(|_| unread())?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| refused("the name of a file is not text", "rename it"))?.to_owned();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let known = TYPES.iter().find(|(known, _)| extension.as_deref() == Some(known));
    let content_type = known.map_or("application/octet-stream", |(_, kind)| kind).to_owned();
    Ok(NewFile { name, content_type, bytes })
}

#[derive(Serialize)]
struct SentView {
    message: String,
    /// Absent where what became of it had to be asked.
    budget: Option<BudgetView>,
}

impl Document for SentView {
    fn human(&self, page: &mut Page) {
        page.line(format!("Sent: {}", self.message));
        if let Some(budget) = &self.budget {
            page.line(Cell::new(budget.in_words(), Tone::Dim));
        }
    }
}

/// How much may be sent in a day.
#[derive(Serialize)]
pub(super) struct BudgetView {
    limit: u32,
    used: u32,
    resets_at: String,
}

impl BudgetView {
    pub(super) fn of(budget: SendBudget) -> Self {
        let SendBudget { limit, used, resets_at } = budget;
        Self { limit, used, resets_at: moment(resets_at) }
    }

    /// For people.
    pub(super) fn in_words(&self) -> String {
        format!("{} of {} today, anew at {}", self.used, self.limit, self.resets_at)
    }
}

#[derive(Serialize)]
struct StateView {
    /// `sent`, `not_found` or `ambiguous`.
    state: &'static str,
    message: Option<String>,
}

impl StateView {
    fn of(state: SendState) -> Self {
        match state {
            SendState::Sent(message) => Self { state: "sent", message: Some(message) },
            SendState::NotFound => Self { state: "not_found", message: None },
            SendState::Ambiguous => Self { state: "ambiguous", message: None },
        }
    }
}

impl Document for StateView {
    fn human(&self, page: &mut Page) {
        match (self.state, &self.message) {
            (_, Some(message)) => page.line(format!("It was sent: {message}")),
            ("not_found", _) => page.line(Cell::new(
                "It is not among what the identity sent; ask once more in a minute before you repeat it.",
                Tone::Warn,
            )),
            _ => page.line(Cell::new("Several messages fit: look at what the identity sent.", Tone::Warn)),
        }
    }
}

#[derive(Serialize)]
struct ContactView<'a> {
    name: &'a str,
    email: &'a str,
    phone: &'a str,
    trusted: bool,
}

impl<'a> ContactView<'a> {
    fn of(contact: &'a Contact) -> Self {
        let Contact { name, email, phone, trusted } = contact;
        Self { name, email, phone, trusted: *trusted }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct ContactsView<'a>(Vec<ContactView<'a>>);

impl Document for ContactsView<'_> {
    fn human(&self, page: &mut Page) {
        let trusted = |yes| if yes { "yes" } else { "no" };
        let row = |contact: &ContactView<'_>| {
            let [name, email, phone] = [contact.name, contact.email, contact.phone]
                .map(|text| if text.is_empty() { "-" } else { text });
            [name.into(), email.into(), phone.into(), trusted(contact.trusted).into()]
        };
        let rows: Vec<[Cell; 4]> = self.0.iter().map(row).collect();
        page.table(["NAME", "EMAIL", "PHONE", "TRUSTED"], &rows, "Nobody of that name or address.");
    }
}
