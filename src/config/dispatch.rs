//! `[[dispatch]]`: which messages wake which agent, and how it is told.
//!
//! From the file to what applies, in one place, as no flag and no variable touches it. Patterns of senders stay
//! text here and are compiled by `inbox`, which adds its own problems to the same report. Imports `types` and its
//! neighbours.

use std::path::PathBuf;

use super::origin::{Origin, Origins};
use super::reader::{Table, Value};
use super::report::Report;
use super::values::{count, identity, one_of, path};
use super::{IdentityRef, Located};
use crate::types::{CallbackUrl, CallbackUrlError, Channel};

/// Rules in all. A page of messages that fits them all still fits into the queue.
pub(super) const MAX_RULES: usize = 64;
const MAX_SENDERS: usize = 64;
const MAX_SENDER_BYTES: usize = 256;
const MAX_NAME: usize = 64;
const MAX_SESSION: usize = 256;
/// Where kcosr/assistant takes what an agent says.
const SAY: &str = "/external/sessions/";
/// Where it takes what a person says.
const TURN: &str = "/api/plugins/sessions/operations/message";

/// One rule: a message that fits is told to a callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatchConfig {
    /// `name`: unique. Default `dispatch-<n>`, counted from 1.
    pub name: String,
    /// Line of the table's header, for messages.
    pub line: u32,
    /// `identity`: whose messages, by name or UUID.
    pub identity: IdentityRef,
    /// `on`: `email` or `sms`.
    pub on: Channel,
    /// `from`, still text. Empty: anybody.
    pub from: Vec<Located<String>>,
    /// `trusted`: only contacts that the owner trusts. Default false.
    pub trusted: bool,
    /// `to`: where it is posted.
    pub to: CallbackUrl,
    /// `form`: what is posted.
    pub form: Form,
    /// `allow_remote`: the callback may be on another machine. Default false.
    pub allow_remote: bool,
    /// `reveal`: codes and sign-in links stay in the text. Default false.
    pub reveal: bool,
    /// `max_attempts`. Default 12.
    pub max_attempts: u32,
}

/// What is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// `assistant`: the text alone.
    Assistant {
        /// `token_file`: sent as a bearer token.
        token_file: Option<PathBuf>,
    },
    /// `assistant-turn`: the text as what is said to a session of kcosr/assistant, which its agent then answers.
    AssistantTurn {
        /// `session`: its id.
        session: String,
        /// `token_file`: sent as a bearer token.
        token_file: Option<PathBuf>,
    },
    /// `json`: a signed document.
    Json {
        /// `secret_file`: the key of the signature.
        secret_file: PathBuf,
    },
}

impl Form {
    /// As the file says it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Assistant { .. } => "assistant",
            Self::AssistantTurn { .. } => "assistant-turn",
            Self::Json { .. } => "json",
        }
    }

    /// The file with the key or token.
    pub fn key_file(&self) -> Option<&PathBuf> {
        match self {
            Self::Assistant { token_file } | Self::AssistantTurn { token_file, .. } => token_file.as_ref(),
            Self::Json { secret_file } => Some(secret_file),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Assistant,
    Turn,
    Json,
}

const WORDS: [(&str, Word); 3] =
    [("assistant", Word::Assistant), ("assistant-turn", Word::Turn), ("json", Word::Json)];
const CHANNELS: [(&str, Channel); 2] = [("email", Channel::Email), ("sms", Channel::Sms)];

/// Reads every `[[dispatch]]`. A rule with a mistake is reported and left out: nothing of the file is in force then.
pub(super) fn read(file: &mut Table<'_>, report: &Report, origins: &mut Origins) -> Vec<DispatchConfig> {
    let tables = file.read("dispatch", |value| value.items(MAX_RULES));
    let mut rules: Vec<DispatchConfig> = Vec::new();
    for (at, value) in tables.map_or_else(Vec::new, |tables| tables.value).into_iter().enumerate() {
        let Some(rule) = rule(at, value.table(), report, origins) else { continue };
        if rules.iter().any(|other| other.name == rule.name) {
            report.add(rule.line, format!("dispatch[{at}].name: another dispatch has this name"));
        }
        rules.push(rule);
    }
    rules
}

fn rule(at: usize, mut table: Table<'_>, report: &Report, origins: &mut Origins) -> Option<DispatchConfig> {
    let line = table.line();
    let name = table.read("name", plain_name);
    let identity = table.require("identity", identity);
    let on = table.require("on", |value| one_of(&CHANNELS, value));
    let from = table.read("from", |value| value.items(MAX_SENDERS));
    let trusted = table.read("trusted", Value::boolean);
    let to = table.require("to", callback);
    let word = table.read("form", |value| one_of(&WORDS, value));
    let session = table.read("session", session);
    let secret_file = table.read("secret_file", path);
    let token_file = table.read("token_file", path);
    let allow_remote = table.read("allow_remote", Value::boolean);
    let reveal = table.read("reveal", Value::boolean);
    let max_attempts = table.read("max_attempts", count(1..=100));
    table.finish();

    let known = name.as_ref().map_or_else(|| format!("dispatch-{}", at + 1), |name| name.value.clone());
    let lines = [
        ("identity", identity.as_ref().map(|set| set.line)),
        ("on", on.as_ref().map(|set| set.line)),
        ("from", from.as_ref().map(|set| set.line)),
        ("trusted", trusted.as_ref().map(|set| set.line)),
        ("to", to.as_ref().map(|set| set.line)),
        ("form", word.as_ref().map(|set| set.line)),
        ("session", session.as_ref().map(|set| set.line)),
        ("secret_file", secret_file.as_ref().map(|set| set.line)),
        ("token_file", token_file.as_ref().map(|set| set.line)),
        ("allow_remote", allow_remote.as_ref().map(|set| set.line)),
        ("reveal", reveal.as_ref().map(|set| set.line)),
        ("max_attempts", max_attempts.as_ref().map(|set| set.line)),
    ];
    for (key, line) in lines {
        if let Some(line) = line {
            origins.note(&format!("dispatch.{known}.{key}"), Origin::File(line));
        }
    }

    let from = from.map_or_else(Vec::new, |items| items.value.iter().filter_map(sender).collect());
    let to = to?;
    let allow_remote = allow_remote.is_some_and(|set| set.value);
    let refuse = |line: u32, key: &str, message: &str| {
        report.add(line, format!("dispatch[{at}].{key}: {message}"));
    };
    if !allow_remote && to.value.literal().is_some_and(|address| !address.is_loopback()) {
        refuse(to.line, "to", "another machine; expected a loopback address, or allow_remote = true");
    }
    let word = word.map(|word| word.value).or_else(|| by_path(to.value.path()));
    let Some(word) = word else {
        refuse(to.line, "form", "is missing: only paths of kcosr/assistant decide it by themselves");
        return None;
    };
    let misplaced = [
        ("session", session.as_ref().map(|set| set.line), word == Word::Turn),
        ("secret_file", secret_file.as_ref().map(|set| set.line), word == Word::Json),
        ("token_file", token_file.as_ref().map(|set| set.line), word != Word::Json),
    ];
    for (key, line, fits) in misplaced {
        if let (Some(line), false) = (line, fits) {
            refuse(line, key, "is of no use to this form");
        }
    }
    let token_file = token_file.map(|file| file.value);
    let form = match (word, session, secret_file) {
        (Word::Assistant, ..) => Form::Assistant { token_file },
        (Word::Turn, Some(session), _) => Form::AssistantTurn { session: session.value, token_file },
        (Word::Json, _, Some(file)) => Form::Json { secret_file: file.value },
        (Word::Turn, None, _) => {
            refuse(line, "session", "is missing: the id of the session that is spoken to");
            return None;
        }
        (Word::Json, _, None) => {
            refuse(line, "secret_file", "is missing: a document that nobody signed proves nothing");
            return None;
        }
    };
    Some(DispatchConfig {
        name: known,
        line,
        identity: identity?.value,
        on: on?.value,
        from,
        trusted: trusted.is_some_and(|set| set.value),
        to: to.value,
        form,
        allow_remote,
        reveal: reveal.is_some_and(|set| set.value),
        max_attempts: max_attempts.and_then(|set| u32::try_from(set.value).ok()).unwrap_or(12),
    })
}

fn by_path(path: &str) -> Option<Word> {
    let path = path.split('?').next().unwrap_or_default();
    let session = path.strip_prefix(SAY).and_then(|rest| rest.strip_suffix("/messages"));
    match session {
        Some(session) if !session.is_empty() && !session.contains('/') => Some(Word::Assistant),
        _ => (path == TURN).then_some(Word::Turn),
    }
}

fn callback(value: &Value<'_>) -> Result<CallbackUrl, String> {
    value.text()?.parse().map_err(|error: CallbackUrlError| error.to_string())
}

/// It stands in the audit trail and in the queue.
fn plain_name(value: &Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    if plain && (1..=MAX_NAME).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 64 small letters, digits, hyphens, underscores and dots".into())
}

fn session(value: &Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    let fits = (1..=MAX_SESSION).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or_else(|| format!("expected an id of 1 to {MAX_SESSION} bytes"))
}

fn sender(item: &Value<'_>) -> Option<Located<String>> {
    let text = item.text().and_then(|text| match text.len() {
        1..=MAX_SENDER_BYTES => Ok(text.to_owned()),
        _ => Err(format!("expected 1 to {MAX_SENDER_BYTES} bytes")),
    });
    text.map_err(|message| item.refuse(&message)).ok().map(|value| Located { value, line: item.line() })
}

/// Its settings for `config show`, by their keys.
pub(super) fn shown(rule: &DispatchConfig) -> Vec<(String, String)> {
    let file =
        |file: Option<&PathBuf>| file.map_or_else(|| "-".to_owned(), |file| file.display().to_string());
    let from: Vec<&str> = rule.from.iter().map(|sender| sender.value.as_str()).collect();
    let mut settings = vec![
        ("identity", rule.identity.to_string()),
        ("on", rule.on.to_string()),
        ("from", if from.is_empty() { "anybody".to_owned() } else { from.join(", ") }),
        ("trusted", rule.trusted.to_string()),
        ("to", rule.to.to_string()),
        ("form", rule.form.name().to_owned()),
    ];
    match &rule.form {
        Form::Assistant { token_file } => settings.push(("token_file", file(token_file.as_ref()))),
        Form::AssistantTurn { session, token_file } => {
            settings.push(("session", session.clone()));
            settings.push(("token_file", file(token_file.as_ref())));
        }
        Form::Json { secret_file } => settings.push(("secret_file", file(Some(secret_file)))),
    }
    settings.push(("allow_remote", rule.allow_remote.to_string()));
    settings.push(("reveal", rule.reveal.to_string()));
    settings.push(("max_attempts", rule.max_attempts.to_string()));
    let keyed = |(key, value): (&str, String)| (format!("dispatch.{}.{key}", rule.name), value);
    settings.into_iter().map(keyed).collect()
}
