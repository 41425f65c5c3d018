//! Usage errors in our own words. Clap would quote the argument that it could not place, and that
//! may be a secret that somebody put on the command line by mistake: nothing of it is repeated, only
//! what the definition of the arguments says. Imports nothing of this crate but its siblings.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What is wrong with the command line, and what to do; both without a line break.
pub(super) fn explain(error: &clap::Error) -> (String, String) {
    let what = match error.kind() {
        ErrorKind::MissingRequiredArgument => format!("missing: {}", own(error, ContextKind::InvalidArg)),
        ErrorKind::ArgumentConflict => conflict(error),
        ErrorKind::InvalidValue | ErrorKind::NoEquals => invalid_value(error),
        ErrorKind::ValueValidation => validation(error),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "a command is missing".into()
        }
        ErrorKind::InvalidSubcommand => "there is no such command".into(),
        ErrorKind::UnknownArgument => "an argument is unknown or one too many".into(),
        _ => "the arguments do not fit the command".into(),
    };
    (what, remedy(error))
}

fn remedy(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::UnknownArgument && usage_of(error).contains("ravi-broker set ") {
        return "pipe the value in; if you typed it, it is in the shell's history now: choose another".into();
    }
    let suggested =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let suggestion = suggested.map(|kind| own(error, kind)).into_iter().find(|text| !text.is_empty());
    match suggestion {
        Some(text) => format!("did you mean {text}? `--help` after the command shows its arguments"),
        None => "`--help` after the command shows its arguments and an example".into(),
    }
}

fn usage_of(error: &clap::Error) -> String {
    match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    }
}

fn conflict(error: &clap::Error) -> String {
    let (one, other) = (own(error, ContextKind::InvalidArg), own(error, ContextKind::PriorArg));
    if other.is_empty() || one == other {
        format!("{one} is given twice or does not fit the others")
    } else {
        format!("{one} and {other} exclude each other")
    }
}

fn invalid_value(error: &clap::Error) -> String {
    let argument = own(error, ContextKind::InvalidArg);
    match own(error, ContextKind::ValidValue) {
        values if values.is_empty() => format!("{argument} needs a value"),
        values => format!("{argument} takes one of {values}"),
    }
}

/// The message of our own parser; those of `std` and of ranges do not quote more than numbers.
fn validation(error: &clap::Error) -> String {
    let argument = own(error, ContextKind::InvalidArg);
    let ours = std::error::Error::source(error).filter(|_| !numeric(&argument));
    match ours {
        Some(reason) => format!("{argument}: {reason}"),
        None => format!("{argument}: not a number within its bounds"),
    }
}

/// Arguments that clap's own range parser reads: it quotes what it was given.
fn numeric(argument: &str) -> bool {
    ["--length", "--lines", "-n", "--pid"].iter().any(|name| argument.starts_with(name))
}

/// A piece of context that comes from the definition and not from the command line. (`InvalidArg` of an
/// unknown argument is what was typed: it is not asked for.)
fn own(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Cli;

    const CANARY: &str = "sk-canary-5f2c";

    fn explained(arguments: &[&str]) -> (String, String) {
        let line = ["ravi-broker"].iter().chain(arguments);
        explain(&Cli::try_parse_from(line).unwrap_err())
    }

    #[test]
    fn what_was_typed_is_never_repeated() {
        let option = format!("--{CANARY}");
        let glued = format!("--key={CANARY}");
        let cases: [&[&str]; 14] = [
            &["set", "secret/A", CANARY],
            &["set", "secret/A", &glued],
            &["set", CANARY],
            &["set", &option],
            &[CANARY],
            &["get", CANARY],
            &["--format", CANARY, "status"],
            &["lease", "acquire", "secret/A", "--ttl", CANARY],
            &["lease", CANARY],
            &["audit", "tail", "-n", CANARY],
            &["password", "create", "github.com", "--length", CANARY],
            &["session", "open", "--role", CANARY, "--scopes", CANARY],
            &["session", "delegate", "--pid", CANARY],
            &["explain", CANARY],
        ];
        for case in cases {
            let (what, remedy) = explained(case);
            assert!(!format!("{what}{remedy}").contains("canary"), "{case:?}");
            assert!(!format!("{what}{remedy}").contains('\n'), "{case:?}");
        }
    }

    #[test]
    fn the_reason_of_our_own_parsers_is_told() {
        let (what, _) = explained(&["get", "secret/"]);
        assert!(what.contains("<RESOURCE>: a secret key is"), "{what}");
        let (what, _) = explained(&["lease", "acquire", "secret/A", "--ttl", "5"]);
        assert!(what.contains("--ttl <TTL>: a duration is"), "{what}");
    }

    #[test]
    fn a_slip_of_the_pen_gets_a_suggestion() {
        let (_, remedy) = explained(&["get", "secret/A", "--reveel"]);
        assert!(remedy.contains("--reveal"), "{remedy}");
        let (_, remedy) = explained(&["statsu"]);
        assert!(remedy.contains("status"), "{remedy}");
    }

    #[test]
    fn who_types_a_value_is_told_to_pipe_it() {
        assert!(explained(&["set", "secret/A", CANARY]).1.starts_with("pipe the value in"));
    }

    #[test]
    fn arguments_that_are_missing_or_exclude_each_other_are_named() {
        assert!(explained(&["session", "open"]).0.contains("--role <ROLE>"));
        let (what, _) = explained(&["get", "secret/A", "--role", "a", "--session-file", "/f"]);
        assert!(what.contains("exclude each other"), "{what}");
    }
}
