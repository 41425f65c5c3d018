//! The corpus: how its files are written, and reading them.
//!
//! A message begins with a line `--- CHANNEL LABEL`: `mail` or `sms`, and what it holds:
//!
//! - `none`;
//! - `code TEXT`: a code, as the message writes it;
//! - `link URL`: a link that signs in or confirms;
//! - `code TEXT ; link URL`: both.
//!
//! Then, in a mail, `Subject: …`; then the plain part, and behind a line `[html]` the HTML part. Before the first
//! message, lines are comments.

use std::fs;
use std::path::Path;

use ravi_broker::inbox::text::Message;
use ravi_broker::types::Channel;

/// What was written to measure the rules, by the beginning of the files' names; all other files are `first`.
pub(crate) const SETS: [&str; 5] = ["held-out", "second", "third", "fourth", "fifth"];

pub(crate) struct Labelled {
    pub(crate) place: String,
    pub(crate) set: &'static str,
    pub(crate) channel: Channel,
    pub(crate) code: Option<String>,
    pub(crate) link: Option<String>,
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
}

impl Labelled {
    pub(crate) fn message(&self) -> Message<'_> {
        Message { channel: self.channel, subject: &self.subject, text: &self.text, html: &self.html }
    }

    /// What is typed for the label: digits without what separates them; a code with letters as it stands.
    pub(crate) fn typed(&self) -> Option<String> {
        let code = self.code.as_ref()?;
        let digits: String = code.chars().filter_map(digit).collect();
        let number = code.chars().all(|c| digit(c).is_some() || matches!(c, ' ' | '-' | '\u{a0}'));
        Some(if number { digits } else { code.clone() })
    }
}

/// ASCII, full-width, Arabic-Indic (both), Devanagari.
fn digit(c: char) -> Option<char> {
    [0x30, 0xff10, 0x660, 0x6f0, 0x966].into_iter().find_map(|zero| {
        let value = (c as u32).checked_sub(zero)?;
        char::from_digit(value, 10)
    })
}

pub(crate) fn read() -> Vec<Labelled> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/codes/messages"));
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let content = fs::read_to_string(&file).unwrap();
        let mut line = 0;
        for (index, entry) in content.split("\n--- ").enumerate() {
            if index > 0 {
                all.push(labelled(&name, line + 1, entry));
            }
            line += 1 + entry.matches('\n').count();
        }
    }
    all
}

fn labelled(file: &str, line: usize, entry: &str) -> Labelled {
    let place = format!("{file}:{line}");
    let (head, body) = entry.split_once('\n').unwrap_or_else(|| panic!("{place}: no body"));
    let (channel, label) = head.trim().split_once(' ').unwrap_or_else(|| panic!("{place}: no label"));
    let channel = match channel {
        "mail" => Channel::Email,
        "sms" => Channel::Sms,
        _ => panic!("{place}: no channel"),
    };
    let (mut code, mut link) = (None, None);
    for part in label.split(" ; ") {
        match part.split_once(' ') {
            Some(("code", value)) => code = Some(value.to_owned()),
            Some(("link", value)) => link = Some(value.to_owned()),
            _ => assert_eq!(part, "none", "{place}"),
        }
    }
    let (subject, body) = match body.strip_prefix("Subject: ") {
        Some(rest) => rest.split_once('\n').unwrap_or((rest, "")),
        None => ("", body),
    };
    let (text, html) = body.split_once("[html]\n").unwrap_or((body, ""));
    Labelled {
        set: SETS.into_iter().find(|set| file.starts_with(set)).unwrap_or("first"),
        place,
        channel,
        code,
        link,
        subject: subject.to_owned(),
        text: text.trim_matches('\n').to_owned(),
        html: html.to_owned(),
    }
}
