//! Rules: which messages wake which agent. Compiled from the configuration once; a mistake goes into its report.
//!
//! A rule names an identity as the configuration does; what identity that is, is noted when it was looked up. Imports
//! `config`, `types` and `inbox::sender`.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::config::{Config, DispatchConfig, IdentityRef, Problem};
use crate::inbox::sender::{Sender, SenderPattern};
use crate::types::{Channel, IdentityName, IdentityUuid};

/// All rules in force.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// Bounded by the rules. Written by whoever looks names up, read for a look-up at most.
    known: RwLock<HashMap<IdentityName, IdentityUuid>>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// As it is configured.
    pub config: DispatchConfig,
    /// Where it goes, as the queue has it.
    pub target: String,
    senders: Vec<SenderPattern>,
}

impl Rules {
    /// Compiles the rules.
    ///
    /// # Errors
    /// Every pattern of senders that is none, or that can never fit the channel.
    pub fn compile(config: &Config) -> Result<Self, Vec<Problem>> {
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        for dispatch in &config.dispatches {
            let mut senders = Vec::new();
            for (at, text) in dispatch.from.iter().enumerate() {
                let wrong = |message: &str| Problem {
                    line: text.line,
                    message: format!("dispatch.{}.from[{at}]: {message}", dispatch.name),
                };
                match text.value.parse::<SenderPattern>() {
                    Ok(pattern) if fits(&pattern, dispatch.on) => senders.push(pattern),
                    Ok(_) => problems.push(wrong("no sender on this channel is like that")),
                    Err(error) => problems.push(wrong(&error.to_string())),
                }
            }
            rules.push(Rule { target: dispatch.to.to_string(), config: dispatch.clone(), senders });
        }
        if problems.is_empty() { Ok(Self { rules, known: RwLock::default() }) } else { Err(problems) }
    }

    /// Every rule.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The rule of this name.
    pub fn named(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.config.name == name)
    }

    /// The identities that rules name, each with the channels that are to be looked at. Whoever looks at them
    /// [notes](Self::note) what identities they are.
    pub fn wants(&self) -> Vec<(IdentityRef, Vec<Channel>)> {
        let mut wants: Vec<(IdentityRef, Vec<Channel>)> = Vec::new();
        for rule in &self.rules {
            let DispatchConfig { identity, on, .. } = &rule.config;
            match wants.iter_mut().find(|(known, _)| known == identity) {
                Some((_, channels)) if channels.contains(on) => {}
                Some((_, channels)) => channels.push(*on),
                None => wants.push((identity.clone(), vec![*on])),
            }
        }
        wants
    }

    /// Notes what identity a name is of. Until then no rule that names it fits.
    pub fn note(&self, identity: &IdentityRef, uuid: IdentityUuid) {
        let named = self.rules.iter().any(|rule| rule.config.identity == *identity);
        if let (IdentityRef::Name(name), true) = (identity, named) {
            self.known.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), uuid);
        }
    }

    /// The rules for a message from this sender. `None`: it has no plain one.
    pub fn fitting(
        &self,
        identity: IdentityUuid,
        channel: Channel,
        sender: Option<&Sender>,
    ) -> impl Iterator<Item = &Rule> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        let own = move |rule: &&Rule| match &rule.config.identity {
            IdentityRef::Uuid(uuid) => *uuid == identity,
            IdentityRef::Name(name) => known.get(name) == Some(&identity),
        };
        self.rules.iter().filter(own).filter(move |rule| rule.config.on == channel && rule.admits(sender))
    }
}

impl Rule {
    /// Whether messages from this sender are told. One without a plain sender fits only where anybody does.
    pub fn admits(&self, sender: Option<&Sender>) -> bool {
        let listed = |sender| self.senders.iter().any(|pattern| pattern.matches(sender));
        self.senders.is_empty() || sender.is_some_and(listed)
    }
}

fn fits(pattern: &SenderPattern, channel: Channel) -> bool {
    let of_mail = matches!(pattern, SenderPattern::Domain(_) | SenderPattern::Exact(Sender::Mail { .. }));
    of_mail == (channel == Channel::Email)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment, Overrides, Source, Variable};

    const NOTES: IdentityUuid = IdentityUuid(uuid::Uuid::from_u128(1));

    fn compiled(text: &str) -> Result<Rules, Vec<Problem>> {
        let places = [(Variable::Home, "/home/agent"), (Variable::XdgRuntimeDir, "/run/user/1")];
        let environment = Environment::of(1, places);
        let source = Source::of("config.toml", &format!("version = 1\n{text}"));
        let draft = config::read(&source, &environment, &Overrides::default()).unwrap();
        Rules::compile(&draft.finish(Vec::new()).unwrap_or_else(|error| panic!("{error}")))
    }

    fn rule(more: &str) -> String {
        let to = "http://127.0.0.1:3000/external/sessions/notes/messages";
        format!("[[dispatch]]\nidentity = \"notes\"\nto = \"{to}\"\n{more}\n")
    }

    fn names(rules: &Rules, identity: IdentityUuid, channel: Channel, from: &str) -> Vec<String> {
        let sender = match channel {
            Channel::Email => Sender::mail(from).ok(),
            Channel::Sms => Sender::sms(from).ok(),
        };
        rules.fitting(identity, channel, sender.as_ref()).map(|rule| rule.config.name.clone()).collect()
    }

    #[test]
    fn a_rule_fits_its_identity_its_channel_and_its_senders() {
        let text = rule("on = \"email\"\nfrom = [\"github.com\"]")
            + &rule("on = \"sms\"\nfrom = [\"+15550100001\"]")
            + &rule("on = \"email\"\nname = \"all\"");
        let rules = compiled(&text).unwrap();
        let notes = IdentityRef::Name("notes".parse().unwrap());
        assert_eq!(names(&rules, NOTES, Channel::Email, "a@github.com"), Vec::<String>::new());
        assert_eq!(rules.wants(), [(notes.clone(), vec![Channel::Email, Channel::Sms])]);
        rules.note(&notes, NOTES);
        assert_eq!(names(&rules, NOTES, Channel::Email, "a@github.com"), ["dispatch-1", "all"]);
        assert_eq!(names(&rules, NOTES, Channel::Email, "a@github.com.evil.example"), ["all"]);
        assert_eq!(names(&rules, NOTES, Channel::Email, "a@github.com, b@evil.example"), ["all"]);
        assert_eq!(names(&rules, NOTES, Channel::Sms, "+15550100001"), ["dispatch-2"]);
        assert_eq!(names(&rules, NOTES, Channel::Sms, "+15550100002"), Vec::<String>::new());
        let other = IdentityUuid(uuid::Uuid::from_u128(2));
        assert_eq!(names(&rules, other, Channel::Email, "a@github.com"), Vec::<String>::new());
    }

    #[test]
    fn every_pattern_that_can_never_fit_is_reported_with_its_line() {
        let problems =
            compiled(&rule("on = \"sms\"\nfrom = [\n\"github.com\",\n\"com\",\n\"+15550100001\"]"));
        let lines: Vec<u32> = problems.unwrap_err().iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [7, 8]);
    }
}
