//! `inbox list|show|watch` and `wait-code`.
//!
//! What a message says is a stranger's text: its control characters are shown, not obeyed. A code goes to standard
//! output alone, and to a terminal only where that is asked for.

use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;

use super::args::{InboxCommand, KindName, ListInbox, ShowMessage, WaitCode, WatchInbox};
use super::context::{Context, text};
use super::error::CliError;
use super::output::{Document, moment};
use super::page::{Cell, Page, Tone};
use crate::client::{AgentClient, Code, CodeKind, Message, MessageSummary, OpenWatch};
use crate::clock::{BootInstant, Clock};
use crate::types::{Channel, WatchId};

/// Messages in one answer.
const PAGE: u32 = 50;

pub(super) async fn run(context: &mut Context, command: &InboxCommand) -> Result<(), CliError> {
    match command {
        InboxCommand::List(args) => list(context, args).await,
        InboxCommand::Show(args) => show(context, args).await,
        InboxCommand::Watch(args) => watch(context, args).await,
    }
}

async fn list(context: &mut Context, args: &ListInbox) -> Result<(), CliError> {
    let channel = args.channel.map(Channel::from);
    let wanted = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let fetch = async |client: &AgentClient| {
        let (mut messages, mut page) = (Vec::new(), None);
        while messages.len() < wanted {
            let listed = client.list_messages(channel, args.limit.min(PAGE), page.as_deref()).await?;
            messages.extend(listed.messages);
            page = listed.next;
            if page.is_none() {
                break;
            }
        }
        messages.truncate(wanted);
        Ok(messages)
    };
    let messages = context.under(&args.session, None, fetch).await?;
    context.show(&SummariesView(messages.iter().map(SummaryView::of).collect()))
}

async fn show(context: &mut Context, args: &ShowMessage) -> Result<(), CliError> {
    let fetch = async |client: &AgentClient| Ok(client.message(args.message).await?);
    let message = context.under(&args.session, None, fetch).await?;
    if context.out.is_json() {
        return context.out.secret_document(&MessageView::of(&message)).map_err(CliError::Output);
    }
    context.out.page(|page| human(&message, page)).map_err(CliError::Output)
}

async fn watch(context: &mut Context, args: &WatchInbox) -> Result<(), CliError> {
    let (client, _) = context.session(&args.session).await?;
    let mut events = client.watch_inbox(args.channel.map(Channel::from)).await?;
    while let Some(event) = events.next().await {
        match event? {
            Some(summary) => context.show(&SummaryView::of(&summary))?,
            None => context.notes.say("Some messages were missed: `ravi-broker inbox list` shows them."),
        }
    }
    context.notes.say("The session has ended.");
    Ok(())
}

pub(super) async fn wait_code(context: &mut Context, args: &WaitCode) -> Result<(), CliError> {
    if !args.open && context.out.is_terminal() && !args.reveal {
        return Err(CliError::Terminal);
    }
    let reason = args.purpose.reason.as_ref();
    let until = context.clock.now() + args.timeout;
    if args.open {
        let open = async |client: &AgentClient| Ok(client.open_watch(opening(args)?).await?);
        let watch = context.under(&args.session, reason, open).await?;
        return context
            .show(&WatchView { watch: watch.id.to_string(), expires_at: moment(watch.expires_at) });
    }
    let clock = context.clock;
    let wait = async |client: &AgentClient| {
        let id = match args.watch {
            Some(id) => id,
            None => client.open_watch(opening(args)?).await?.id,
        };
        let triggered = trigger(args).await;
        let code = match triggered {
            Ok(()) => code(client, id, until, &clock).await,
            Err(error) => Err(error),
        };
        if args.watch.is_none() {
            let _ = client.close_watch(id).await;
        }
        code
    };
    context.notes.say("Waiting for the code.");
    let code = context.under(&args.session, reason, wait).await?;
    let out = &mut context.out;
    let written =
        if out.is_json() { out.secret_document(&CodeView::of(&code)) } else { out.value(&code.value, true) };
    written.map_err(CliError::Output)
}

fn opening(args: &WaitCode) -> Result<OpenWatch, CliError> {
    let usage =
        || CliError::Usage("--channel is missing".into(), "add `--channel sms` or `--channel email`".into());
    Ok(OpenWatch {
        channel: args.channel.ok_or_else(usage)?.into(),
        from: args.from.clone().unwrap_or_default(),
        kind: match args.kind {
            KindName::Any => CodeKind::Any,
            KindName::Code => CodeKind::Code,
            KindName::Link => CodeKind::Link,
        },
        purpose: text(args.purpose.reason.as_ref()),
        ttl: Some(args.timeout),
    })
}

/// Runs what makes the service send the code. Its output goes to standard error: ours is the code's.
async fn trigger(args: &WaitCode) -> Result<(), CliError> {
    let Some((program, arguments)) = args.trigger.split_first() else { return Ok(()) };
    let (program, arguments) = (program.clone(), arguments.to_vec());
    let run = move || {
        let mut command = std::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(std::io::stderr()).status()
    };
    let status = tokio::task::spawn_blocking(run).await.map_err(|_| CliError::Trigger)?;
    if status.is_ok_and(|status| status.success()) { Ok(()) } else { Err(CliError::Trigger) }
}

async fn code(
    client: &AgentClient,
    id: WatchId,
    until: BootInstant,
    clock: &impl Clock,
) -> Result<Code, CliError> {
    loop {
        let left = until.since(clock.now());
        if left < Duration::from_millis(1) {
            return Err(CliError::NoCode);
        }
        if let Some(code) = client.await_code(id, Some(left)).await? {
            return Ok(code);
        }
    }
}

#[derive(Serialize)]
struct SummaryView<'a> {
    message: String,
    channel: &'static str,
    from: &'a str,
    to: &'a str,
    subject: &'a str,
    created_at: String,
    outgoing: bool,
    attachments: u32,
}

impl<'a> SummaryView<'a> {
    fn of(summary: &'a MessageSummary) -> Self {
        Self {
            message: summary.message.to_string(),
            channel: summary.message.channel.name(),
            from: &summary.from,
            to: &summary.to,
            subject: &summary.subject,
            created_at: moment(summary.created_at),
            outgoing: summary.outgoing,
            attachments: summary.attachments,
        }
    }

    fn who(&self) -> String {
        if self.outgoing { format!("to {}", self.to) } else { self.from.to_owned() }
    }
}

impl Document for SummaryView<'_> {
    fn human(&self, page: &mut Page) {
        page.line(format!("{}  {}  {}  {}", self.created_at, self.message, self.who(), self.subject));
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct SummariesView<'a>(Vec<SummaryView<'a>>);

impl Document for SummariesView<'_> {
    fn human(&self, page: &mut Page) {
        let row = |summary: &SummaryView<'_>| -> [Cell; 4] {
            let message = Cell::new(&summary.message, Tone::Strong);
            [message, Cell::from(&summary.created_at), Cell::from(summary.who()), summary.subject.into()]
        };
        let rows: Vec<_> = self.0.iter().map(row).collect();
        page.table(["MESSAGE", "TIME", "FROM", "SUBJECT"], &rows, "No messages.");
    }
}

/// Its texts may hold a code: it is written past every buffer.
#[derive(Serialize)]
struct MessageView<'a> {
    #[serde(flatten)]
    summary: SummaryView<'a>,
    cc: &'a str,
    thread: &'a str,
    text: &'a str,
    truncated: bool,
    redacted: bool,
    files: Vec<FileView<'a>>,
}

#[derive(Serialize)]
struct FileView<'a> {
    name: &'a str,
    content_type: &'a str,
    size: u64,
}

impl<'a> MessageView<'a> {
    fn of(message: &'a Message) -> Self {
        let file = |(name, content_type, size): &'a (String, String, u64)| FileView {
            name,
            content_type,
            size: *size,
        };
        Self {
            summary: SummaryView::of(&message.summary),
            cc: &message.cc,
            thread: &message.thread,
            text: message.text.expose(),
            truncated: message.truncated,
            redacted: message.redacted,
            files: message.attachments.iter().map(file).collect(),
        }
    }
}

fn human(message: &Message, page: &mut Page) {
    let view = MessageView::of(message);
    let summary = &view.summary;
    page.pairs([
        ("Message", Cell::new(&summary.message, Tone::Strong)),
        ("Time", Cell::from(&summary.created_at)),
        ("From", summary.from.into()),
        ("To", summary.to.into()),
        ("Subject", summary.subject.into()),
    ]);
    for file in &view.files {
        page.pairs([(
            "Attached",
            Cell::from(format!("{} ({}, {} bytes)", file.name, file.content_type, file.size)),
        )]);
    }
    page.line("");
    view.text.lines().for_each(|line| page.line(line));
    if view.truncated {
        page.line("[the rest is not shown]");
    }
    if view.redacted {
        page.line("[codes and links are left out: the session has no await scope]");
    }
}

#[derive(Serialize)]
struct WatchView {
    watch: String,
    expires_at: String,
}

impl Document for WatchView {
    /// The handle alone, so that a shell can keep it.
    fn human(&self, page: &mut Page) {
        page.line(&self.watch);
    }
}

#[derive(Serialize)]
struct CodeView<'a> {
    value: &'a str,
    kind: &'static str,
    message: String,
    from: &'a str,
    created_at: String,
    link_host: Option<&'a str>,
}

impl<'a> CodeView<'a> {
    fn of(code: &'a Code) -> Self {
        Self {
            value: code.value.expose(),
            kind: if code.is_link { "link" } else { "code" },
            message: code.message.to_string(),
            from: &code.from,
            created_at: moment(code.created_at),
            link_host: Some(code.link_host.as_str()).filter(|host| !host.is_empty()),
        }
    }
}
