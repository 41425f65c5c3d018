//! What the operator is asked about (`approve`), and what nobody should ask for (`honeytokens`).

use super::scope::{Scope, Verb};
use super::{Action, Grant, Role};
use crate::approval::{Approval, Wish};
use crate::config::{Located, Problem, RoleConfig};
use crate::types::{Channel, Delivery, Resource};

/// What policy allows under the condition that the operator does. Only [`super::Policy::authorize`] makes one.
#[derive(Debug)]
pub struct Conditional(Grant);

impl Conditional {
    pub(super) fn of(grant: Grant) -> Self {
        Self(grant)
    }

    /// The role that allows it so.
    pub fn role(&self) -> &Role {
        self.0.role()
    }

    /// What is allowed so.
    pub fn action(&self) -> &Action {
        self.0.action()
    }

    /// What the operator is asked about.
    pub fn wish(&self) -> Wish {
        wish(self.0.action())
    }

    /// The grant, if the operator allowed exactly this; else the condition stays.
    pub fn approved(self, approval: &Approval) -> Result<Grant, Self> {
        if *approval.wish() != self.wish() {
            return Err(self);
        }
        Ok(Grant { approval: Some(approval.clone()), ..self.0 })
    }
}

/// To the letter: of a mail, every recipient is named.
fn wish(action: &Action) -> Wish {
    let (verb, delivery) = match action {
        Action::Acquire(resource, delivery) => (verb_of_value(resource, *delivery), Some(*delivery)),
        Action::ListSecrets => ("secret:list", None),
        Action::ListPasswords => ("password:list", None),
        Action::SetSecret(_) => ("secret:write", None),
        Action::DeleteSecret(_) => ("secret:write (delete)", None),
        Action::CreatePassword(_) => ("password:create", None),
        Action::UpdatePassword(_) => ("password:write", None),
        Action::DeletePassword(_) => ("password:write (delete)", None),
        Action::ReadIdentity => ("identity:read", None),
        Action::ReadMessages(channel) => (of_channel(*channel, "email:read", "sms:read"), None),
        Action::ReadMessage(message) => (of_channel(message.channel, "email:read", "sms:read"), None),
        Action::AwaitCode(channel) => (of_channel(*channel, "email:await", "sms:await"), None),
        Action::Send(channel) => (of_channel(*channel, "email:send", "sms:send"), None),
        Action::SendEmail(_) => ("email:send", None),
        Action::SendSms(_) => ("sms:send", None),
        Action::SearchContacts => ("email:read (contacts)", None),
        Action::CreateIdentity(_) => ("identity:create", None),
        Action::ProvisionPhone => ("identity:create (phone)", None),
    };
    let about = match action {
        Action::SendEmail(addresses) => {
            let mut all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            all.sort_unstable();
            all.join(", ")
        }
        action => {
            let subject = || action.subject().map(|subject| subject.to_string());
            action.resource().map(|resource| resource.to_string()).or_else(subject).unwrap_or_default()
        }
    };
    Wish { verb, about, delivery }
}

fn verb_of_value(resource: &Resource, delivery: Delivery) -> &'static str {
    match (resource, delivery) {
        (Resource::Secret(_), Delivery::Shown) => "secret:read",
        (Resource::Secret(_), _) => "secret:use",
        (Resource::Password(_), Delivery::Shown) => "password:read",
        (Resource::Password(_), _) => "password:use",
        (Resource::SsoToken, _) => "sso:mint",
        (Resource::IdentityEmail | Resource::IdentityPhone, _) => "identity:read",
    }
}

fn of_channel(channel: Channel, email: &'static str, sms: &'static str) -> &'static str {
    match channel {
        Channel::Email => email,
        Channel::Sms => sms,
    }
}

/// The marks of a role. One that could never ask is a mistake.
pub(super) fn marks(config: &RoleConfig, scopes: &[Scope], problems: &mut Vec<Problem>) -> Vec<Scope> {
    let mut marks = Vec::with_capacity(config.approve.len());
    for text in &config.approve {
        let parsed = text.value.parse::<Scope>().map_err(|error| error.to_string());
        match parsed.and_then(|mark| may_ask(&mark, scopes).map(|()| mark)) {
            Ok(mark) => marks.push(mark),
            Err(message) => problems.push(Problem {
                line: text.line,
                message: format!("role.{}.approve: {:?}: {message}", config.name, text.value),
            }),
        }
    }
    marks
}

fn may_ask(mark: &Scope, scopes: &[Scope]) -> Result<(), String> {
    let (kind, verb) = mark.means();
    if verb == Verb::List {
        return Err("names are listed without a question; leave the scope away instead".to_owned());
    }
    // Who may read a value may use it.
    let gives = |scope: &Scope| {
        let (of, granted) = scope.means();
        of == kind && (granted == verb || (verb == Verb::Use && granted == Verb::Read))
    };
    match scopes.iter().any(gives) {
        true => Ok(()),
        false => Err("no scope of the role grants this; add one to `scopes`".to_owned()),
    }
}

/// Names that no honest agent asks for, each as a scope to read it.
pub(super) fn honeytokens(texts: &[Located<String>], problems: &mut Vec<Problem>) -> Vec<Scope> {
    let mut traps = Vec::with_capacity(texts.len());
    for text in texts {
        match honeytoken(&text.value) {
            Ok(trap) => traps.push(trap),
            Err(message) => problems.push(Problem {
                line: text.line,
                message: format!("honeytokens: {:?}: {message}", text.value),
            }),
        }
    }
    traps
}

fn honeytoken(text: &str) -> Result<Scope, String> {
    const FORM: &str = "expected secret/PATTERN or password/DOMAIN[/USERNAME], for example secret/AWS_ROOT_*";
    let (kind, pattern) = text.split_once('/').ok_or(FORM)?;
    if !matches!(kind, "secret" | "password") {
        return Err(FORM.to_owned());
    }
    let trap: Scope = format!("{kind}:read:{pattern}").parse().map_err(|_| FORM)?;
    match trap.is_for_all() {
        true => Err("this is every name; no agent could ask for any".to_owned()),
        false => Ok(trap),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_honeytoken_is_a_name_or_a_pattern_and_never_every_name() {
        for text in
            ["secret/AWS_ROOT_KEY", "secret/aws_root_*", "password/bank.example", "password/b.test/root"]
        {
            honeytoken(text).unwrap_or_else(|message| panic!("{text}: {message}"));
        }
        for text in
            ["", "AWS", "secret/", "secret/*", "secret/**", "password/*", "password/*/root", "sso/token"]
        {
            assert!(honeytoken(text).is_err(), "{text}");
        }
    }
}
