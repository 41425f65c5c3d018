//! `ssh-askpass`: answers the questions of ssh for a password or a passphrase.
//!
//! The question is text for a person. What it asks is taken from it only where the whole of it has a form of
//! OpenSSH's, in which host, user and file are what ssh was told and not what the server says.

use std::str::FromStr;

use super::target::{Target, resource_for};
use super::{RequestError, leased, one_line, refuse_terminal, whole};
use crate::cli::args::SshAskpass;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::types::{NameError, Reference, Username};

/// Set by ssh where it wants a yes, or says something and wants nothing.
const KIND_VARIABLE: &str = "SSH_ASKPASS_PROMPT";

/// A key's file, and where its passphrase is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PromptKey {
    path: String,
    reference: Reference,
}

impl FromStr for PromptKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // A path may hold the sign, a reference begins in one way.
        let (path, reference) = text.split_once("=ravi://").ok_or(NameError::Reference)?;
        let reference = ["ravi://", reference].concat().parse()?;
        if path.is_empty() { Err(NameError::Reference) } else { Ok(Self { path: path.into(), reference }) }
    }
}

/// What ssh asks for.
#[derive(Debug, PartialEq, Eq)]
enum Question<'a> {
    /// Of a user at a host.
    Password { username: Username, target: Target },
    /// Of a key in a file.
    Passphrase(&'a str),
}

pub(in crate::cli) async fn ask(context: &mut Context, args: &SshAskpass) -> Result<(), CliError> {
    refuse_terminal(context)?;
    if std::env::var_os(KIND_VARIABLE).is_some_and(|kind| !kind.is_empty()) {
        return Err(RequestError::NotOurs.into());
    }
    let reference = reference(args, &args.prompt).ok_or(RequestError::NotOurs)?;
    let leased = leased(context, &args.session, &[&reference], "ssh-askpass").await?;
    let answer = one_line(leased.value(&reference)?)?;
    context.out.pieces(&[answer, "\n"]).map_err(CliError::Output)
}

fn reference(args: &SshAskpass, prompt: &str) -> Option<Reference> {
    match question(prompt)? {
        // Unlike git, ssh has no configuration for each host: without --host nothing is answered.
        Question::Password { .. } if args.bound.hosts.is_empty() => None,
        Question::Password { username, target } => {
            resource_for(&args.bound.hosts, &target, Some(&username)).map(whole)
        }
        Question::Passphrase(path) => {
            args.keys.iter().find(|key| key.path == path).map(|key| key.reference.clone())
        }
    }
}

fn question(prompt: &str) -> Option<Question<'_>> {
    if prompt.chars().any(char::is_control) {
        return None;
    }
    let prompt = prompt.trim_end_matches(' ');
    if let Some(key) = prompt.strip_prefix("Enter passphrase for ") {
        let path = key.strip_suffix(':')?;
        let quoted = path.strip_prefix("key '").map(|path| path.strip_suffix('\''));
        return quoted.unwrap_or(Some(path)).map(Question::Passphrase);
    }
    // Before 8.5 a server could have written the whole of the first form in a dialogue of its own.
    let account = match prompt.strip_prefix('(') {
        Some(rest) => rest.strip_suffix(") Password:").or_else(|| rest.strip_suffix(") password:"))?,
        None => prompt.strip_suffix("'s password:")?,
    };
    let (username, host) = account.rsplit_once('@')?;
    let plain =
        !host.contains(':') && username.bytes().all(|b| b.is_ascii_graphic() && b != b'(' && b != b')');
    let (username, target) = (username.parse().ok()?, host.parse().ok()?);
    plain.then_some(Question::Password { username, target })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Bound, OneCall};

    fn answered(prompt: &str) -> Option<String> {
        let hosts = ["build.example.com", "git.example.com=ravi://password/example.com"];
        let bound = Bound { hosts: hosts.iter().map(|host| host.parse().unwrap()).collect() };
        let keys = ["/home/a/.ssh/id=x=ravi://secret/KEY_PASSPHRASE"].iter();
        let keys = keys.map(|key| key.parse().unwrap()).collect();
        let session = OneCall { role: None, session_file: None };
        let args = SshAskpass { bound, keys, prompt: prompt.into(), session };
        reference(&args, prompt).map(|reference| reference.to_string())
    }

    #[test]
    fn the_questions_of_openssh_are_understood() {
        for prompt in ["ci@build.example.com's password: ", "(ci@build.example.com) Password: "] {
            assert_eq!(answered(prompt).as_deref(), Some("ravi://password/build.example.com/ci"));
        }
        let bound = answered("ci@git.example.com's password: ");
        assert_eq!(bound.as_deref(), Some("ravi://password/example.com/ci"));
        for prompt in
            ["Enter passphrase for key '/home/a/.ssh/id=x': ", "Enter passphrase for /home/a/.ssh/id=x: "]
        {
            assert_eq!(answered(prompt).as_deref(), Some("ravi://secret/KEY_PASSPHRASE"));
        }
    }

    #[test]
    fn no_other_question_is_answered() {
        for prompt in [
            "",
            "Password: ",
            "Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
            "The authenticity of host 'build.example.com (192.0.2.1)' can't be established.\nAre you sure? ",
            "ci@other.example.com's password: ",
            "ci@build.example.com.evil.example's password: ",
            "ci@build.example.com:22's password: ",
            "ci@build.example.com's old password: ",
            "ci@build.example.com's password: yes or no? ",
            // What a server says, after what ssh says.
            "(ci@evil.example) ci@build.example.com's password: ",
            "(ci@evil.example) (ci@build.example.com) Password: ",
            "(ci@evil.example) x@build.example.com) Password: ",
            "(ci@build.example.com) One-time code: ",
            "(ci@build.example.com) Password for root@other: ",
            "Enter passphrase for key '/home/a/.ssh/other': ",
            "Enter passphrase for key '/home/a/.ssh/../.ssh/id=x': ",
            "Enter passphrase for key '/home/a/.ssh/id=x'\n: ",
            "Enter PIN for ED25519-SK key /home/a/.ssh/id=x: ",
            "Confirm user presence for key ED25519-SK",
            "Allow use of key /home/a/.ssh/id=x?",
        ] {
            assert_eq!(answered(prompt), None, "{prompt:?}");
        }
    }

    #[test]
    fn a_helper_that_is_bound_to_no_host_answers_for_none() {
        let session = OneCall { role: None, session_file: None };
        let bound = Bound { hosts: Vec::new() };
        let args = SshAskpass { bound, keys: Vec::new(), prompt: String::new(), session };
        assert_eq!(reference(&args, "ci@build.example.com's password: "), None);
    }
}
