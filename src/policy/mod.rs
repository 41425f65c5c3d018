//! Policy: who may do what. Default deny.
//!
//! [`Policy::authorize`] returns a [`Grant`], which nothing else can build and which `lease` and the
//! vault's verbs demand: a path that forgets to ask does not compile. What a role marks with `approve` comes as a
//! [`Conditional`], which only an `Approval` of the operator turns into a grant. May import layers 0 and 1, and
//! `approval`.

mod ask;
mod glob;
mod matching;
mod role;
pub mod scope;

use std::collections::HashMap;
use std::sync::Arc;

pub use ask::Conditional;
pub use matching::Verdict;
pub use role::Role;
use scope::{Kind, Name, Scope, Verb};

use crate::approval::Approval;
use crate::config::{Bounds, Config, Problem};
use crate::peer::{Needs, Peer};
use crate::types::{
    Channel, Delivery, EmailAddress, IdentityName, MessageRef, PasswordName, PhoneNumber, Resource, RoleName,
    SecretKey, Subject,
};

/// The roles of one configuration.
#[derive(Debug, Default)]
pub struct Policy {
    roles: HashMap<RoleName, Arc<Role>>,
    /// Names that no honest agent asks for.
    honeytokens: Vec<Scope>,
}

/// What a session asks to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Be given the value of a resource, in a certain way.
    Acquire(Resource, Delivery),
    /// See names of secrets.
    ListSecrets,
    /// See names of passwords.
    ListPasswords,
    /// Create a secret or replace its value.
    SetSecret(SecretKey),
    /// Delete a secret.
    DeleteSecret(SecretKey),
    /// Add a password.
    CreatePassword(PasswordName),
    /// Change a password.
    UpdatePassword(PasswordName),
    /// Delete a password.
    DeletePassword(PasswordName),
    /// See the identity.
    ReadIdentity,
    /// See what the messages of a channel say.
    ReadMessages(Channel),
    /// See what one message says.
    ReadMessage(MessageRef),
    /// Be given the codes and links that come in over a channel.
    AwaitCode(Channel),
    /// Send a mail to all of these.
    SendEmail(Vec<EmailAddress>),
    /// Send a text message.
    SendSms(PhoneNumber),
    /// Send over a channel at all: to whom is not known yet.
    Send(Channel),
    /// Look for whom the identity knows.
    SearchContacts,
    /// Create an identity beside the session's own.
    CreateIdentity(IdentityName),
    /// Give the session's own identity a telephone number.
    ProvisionPhone,
}

impl Action {
    /// Whether it changes something upstream.
    pub fn is_change(&self) -> bool {
        match self {
            Self::Acquire(..)
            | Self::ListSecrets
            | Self::ListPasswords
            | Self::ReadIdentity
            | Self::ReadMessages(_)
            | Self::ReadMessage(_)
            | Self::AwaitCode(_)
            | Self::Send(_)
            | Self::SearchContacts => false,
            Self::SendEmail(_)
            | Self::SendSms(_)
            | Self::CreateIdentity(_)
            | Self::ProvisionPhone
            | Self::SetSecret(_)
            | Self::DeleteSecret(_)
            | Self::CreatePassword(_)
            | Self::UpdatePassword(_)
            | Self::DeletePassword(_) => true,
        }
    }
}

impl Action {
    /// The resource that it is about, if it is about one.
    pub fn resource(&self) -> Option<Resource> {
        match self {
            Self::Acquire(resource, _) => Some(resource.clone()),
            Self::SetSecret(key) | Self::DeleteSecret(key) => Some(Resource::Secret(key.clone())),
            Self::CreatePassword(name) | Self::UpdatePassword(name) | Self::DeletePassword(name) => {
                Some(Resource::Password(name.clone()))
            }
            _ => None,
        }
    }

    /// What it is about, if that is no resource.
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::ReadMessages(channel) | Self::AwaitCode(channel) | Self::Send(channel) => {
                Some(Subject::Channel(*channel))
            }
            Self::ReadMessage(message) => Some(Subject::Message(*message)),
            Self::SendEmail(addresses) => Some(Subject::Addresses(addresses.clone())),
            Self::SendSms(number) => Some(Subject::Number(number.clone())),
            Self::CreateIdentity(name) => Some(Subject::Identity(name.clone())),
            _ => None,
        }
    }
}

/// What policy decided.
#[derive(Debug)]
pub enum Decision {
    /// It is allowed.
    Granted(Grant),
    /// It is allowed once the operator has said so.
    Ask(Conditional),
}

/// Proof that policy allowed an action. Only [`Policy::authorize`] makes one, or an approval of what it held back.
#[derive(Debug)]
pub struct Grant {
    role: Arc<Role>,
    narrowed: Option<Arc<[Scope]>>,
    action: Action,
    approval: Option<Approval>,
}

/// Which rule refused. For the audit trail and the operator; an agent is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No such role.
    NoRole,
    /// The role exists and does not match the process.
    NoMatch,
    /// No scope of the role allows it.
    NoScope,
    /// The role would allow it, the session gave it up when it was opened.
    Narrowed,
    /// The session may use the value, and the role forbids this way of delivery.
    Delivery,
}

impl Policy {
    /// Compiles the roles; every problem is reported.
    pub fn compile(config: &Config) -> Result<Self, Vec<Problem>> {
        let mut roles = HashMap::with_capacity(config.roles.len());
        let mut problems = Vec::new();
        for role in &config.roles {
            match Role::compile(role) {
                Ok(compiled) => drop(roles.insert(role.name.clone(), Arc::new(compiled))),
                Err(mut found) => problems.append(&mut found),
            }
        }
        let honeytokens = ask::honeytokens(&config.honeytokens, &mut problems);
        if problems.is_empty() { Ok(Self { roles, honeytokens }) } else { Err(problems) }
    }

    /// The role of that name.
    pub fn role(&self, name: &RoleName) -> Option<&Arc<Role>> {
        self.roles.get(name)
    }

    /// The roles, in no order.
    pub fn roles(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.roles.values()
    }

    /// The role, if the process may assume it.
    pub fn assume(&self, name: &RoleName, peer: &Peer) -> Result<Arc<Role>, Denied> {
        let role = self.role(name).ok_or(Denied::NoRole)?;
        if role.matches(peer) { Ok(role.clone()) } else { Err(Denied::NoMatch) }
    }

    /// Which costly facts decide whether the process may assume the role; none if there is no such role.
    pub fn needs(&self, name: &RoleName, peer: &Peer) -> Needs {
        self.role(name).map_or_else(Needs::default, |role| role.needs(peer))
    }

    /// Whether the resource has a name that no honest agent asks for.
    pub fn is_honeytoken(&self, resource: &Resource) -> bool {
        let fits = |kind, name| self.honeytokens.iter().any(|trap| trap.allows(kind, Verb::Read, name));
        match resource {
            Resource::Secret(key) => fits(Kind::Secret, Name::Secret(key)),
            Resource::Password(name) => fits(Kind::Password, Name::Password(name)),
            Resource::SsoToken | Resource::IdentityEmail | Resource::IdentityPhone => false,
        }
    }

    /// Decides an action of a session. The role is looked up afresh, so that a reload reaches sessions
    /// that are open; `narrowed` are the scopes the session was opened with, if fewer.
    pub fn authorize(
        &self,
        role: &RoleName,
        narrowed: Option<&Arc<[Scope]>>,
        action: Action,
    ) -> Result<Decision, Denied> {
        let role = self.role(role).ok_or(Denied::NoRole)?;
        if !permits(role.scopes(), &action) {
            return Err(Denied::NoScope);
        }
        if narrowed.is_some_and(|scopes| !permits(scopes, &action)) {
            return Err(Denied::Narrowed);
        }
        // Last: only who may use the value learns that it is the way that is forbidden.
        if let Action::Acquire(_, delivery) = action
            && !role.delivers(delivery)
        {
            return Err(Denied::Delivery);
        }
        let asks = role.asks(&action);
        let grant = Grant { role: role.clone(), narrowed: narrowed.cloned(), action, approval: None };
        Ok(if asks { Decision::Ask(Conditional::of(grant)) } else { Decision::Granted(grant) })
    }
}

impl Grant {
    /// What was allowed.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// What the operator said to it, if that was asked for.
    pub fn approval(&self) -> Option<&Approval> {
        self.approval.as_ref()
    }

    /// In which way the value was granted; what is not about a value is shown.
    pub fn delivery(&self) -> Delivery {
        match self.action {
            Action::Acquire(_, delivery) => delivery,
            _ => Delivery::Shown,
        }
    }

    /// The bounds of the role.
    pub fn bounds(&self) -> &Bounds {
        &self.role.bounds
    }

    /// The role that allowed it.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// For a granted list of secrets: whether this name belongs in it.
    pub fn lists_secret(&self, key: &SecretKey) -> bool {
        self.covers(Kind::Secret, Verb::List, Name::Secret(key))
    }

    /// For a granted list of passwords: whether this name belongs in it.
    pub fn lists_password(&self, name: &PasswordName) -> bool {
        self.covers(Kind::Password, Verb::List, Name::Password(name))
    }

    fn covers(&self, kind: Kind, verb: Verb, name: Name<'_>) -> bool {
        let narrowed = self.narrowed.as_deref();
        self.role.allows(kind, verb, name)
            && narrowed.is_none_or(|scopes| scopes.iter().any(|scope| scope.allows(kind, verb, name)))
    }
}

fn permits(scopes: &[Scope], action: &Action) -> bool {
    permits_by(scopes, &|kind, verb, name| scopes.iter().any(|scope| scope.allows(kind, verb, name)), action)
}

/// Whether what `any` lets through suffices for the action.
fn permits_by(scopes: &[Scope], any: &dyn Fn(Kind, Verb, Name<'_>) -> bool, action: &Action) -> bool {
    let some = |kind, verb| scopes.iter().any(|scope| scope.touches(kind, verb));
    // Who may see a value may also have it put somewhere.
    let given = |kind, name, delivery| {
        any(kind, Verb::Read, name) || (delivery != Delivery::Shown && any(kind, Verb::Use, name))
    };
    match action {
        Action::Acquire(Resource::Secret(key), delivery) => given(Kind::Secret, Name::Secret(key), *delivery),
        Action::Acquire(Resource::Password(name), delivery) => {
            given(Kind::Password, Name::Password(name), *delivery)
        }
        Action::Acquire(Resource::SsoToken, _) => any(Kind::Sso, Verb::Mint, Name::None),
        Action::Acquire(Resource::IdentityEmail | Resource::IdentityPhone, _) | Action::ReadIdentity => {
            any(Kind::Identity, Verb::Read, Name::None)
        }
        Action::ListSecrets => some(Kind::Secret, Verb::List),
        Action::ListPasswords => some(Kind::Password, Verb::List),
        Action::SetSecret(key) | Action::DeleteSecret(key) => {
            any(Kind::Secret, Verb::Write, Name::Secret(key))
        }
        Action::CreatePassword(name) => any(Kind::Password, Verb::Create, Name::Password(name)),
        Action::UpdatePassword(name) | Action::DeletePassword(name) => {
            any(Kind::Password, Verb::Write, Name::Password(name))
        }
        Action::ReadMessages(channel) => any(kind_of(*channel), Verb::Read, Name::None),
        Action::ReadMessage(message) => any(kind_of(message.channel), Verb::Read, Name::None),
        Action::AwaitCode(channel) => any(kind_of(*channel), Verb::Await, Name::None),
        Action::Send(channel) => some(kind_of(*channel), Verb::Send),
        Action::SendEmail(addresses) => {
            let allowed = |address| any(Kind::Email, Verb::Send, Name::Address(address));
            !addresses.is_empty() && addresses.iter().all(allowed)
        }
        Action::SendSms(number) => any(Kind::Sms, Verb::Send, Name::Number(number)),
        Action::SearchContacts => {
            Channel::ALL.into_iter().any(|channel| any(kind_of(channel), Verb::Read, Name::None))
        }
        Action::CreateIdentity(_) | Action::ProvisionPhone => any(Kind::Identity, Verb::Create, Name::None),
    }
}

fn kind_of(channel: Channel) -> Kind {
    match channel {
        Channel::Email => Kind::Email,
        Channel::Sms => Kind::Sms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment, Overrides, Source, Variable};

    const ROLE: &str = r#"
version = 1
[role.notes]
identity = "assistant-notes-agent"
match = { uid = 1000 }
scopes = ["secret:read:OPENAI_*", "secret:list:OPENAI_*", "password:write:github.com", "password:use:gitlab.com", "identity:read", "email:send:*@example.com", "email:send:boss@corp.test", "email:read", "sms:await"]
inject = ["file", "stdin"]
"#;

    fn policy() -> Policy {
        let environment = Environment::of(
            1000,
            [(Variable::XdgRuntimeDir, "/run/user/1000"), (Variable::Home, "/home/user")],
        );
        let draft = config::read(&Source::of("test", ROLE), &environment, &Overrides::default()).unwrap();
        Policy::compile(&draft.config).unwrap()
    }

    fn acquire(resource: &str) -> Action {
        deliver(resource, Delivery::Shown)
    }

    fn deliver(resource: &str, delivery: Delivery) -> Action {
        Action::Acquire(resource.parse().unwrap(), delivery)
    }

    fn decide(action: Action, narrowed: Option<&str>) -> Option<Denied> {
        let narrowed: Option<Arc<[Scope]>> = narrowed.map(|scope| vec![scope.parse().unwrap()].into());
        policy().authorize(&"notes".parse().unwrap(), narrowed.as_ref(), action).err()
    }

    #[test]
    fn what_no_scope_allows_is_denied() {
        assert_eq!(decide(acquire("secret/OPENAI_API_KEY"), None), None);
        assert_eq!(decide(acquire("secret/STRIPE_API_KEY"), None), Some(Denied::NoScope));
        assert_eq!(decide(acquire("password/github.com"), None), Some(Denied::NoScope));
        assert_eq!(decide(acquire("sso/token"), None), Some(Denied::NoScope));
        assert_eq!(decide(Action::ListPasswords, None), Some(Denied::NoScope));
    }

    #[test]
    fn the_right_to_use_a_value_is_not_the_right_to_see_it() {
        assert_eq!(decide(acquire("password/gitlab.com"), None), Some(Denied::NoScope));
        assert_eq!(decide(deliver("password/gitlab.com", Delivery::File), None), None);
        let narrowed = Some("password:use:gitlab.com");
        assert_eq!(decide(deliver("password/gitlab.com", Delivery::File), narrowed), None);
        assert_eq!(
            decide(deliver("secret/OPENAI_API_KEY", Delivery::File), narrowed),
            Some(Denied::Narrowed)
        );
    }

    #[test]
    fn who_may_see_a_value_may_have_it_delivered_in_the_ways_of_the_role() {
        for delivery in [Delivery::Shown, Delivery::File, Delivery::Stdin] {
            assert_eq!(decide(deliver("secret/OPENAI_API_KEY", delivery), None), None, "{delivery:?}");
            assert_eq!(decide(deliver("identity/email", delivery), None), None, "{delivery:?}");
        }
        for delivery in [Delivery::Descriptor, Delivery::Environment, Delivery::Helper] {
            for resource in ["secret/OPENAI_API_KEY", "password/gitlab.com", "identity/email"] {
                assert_eq!(decide(deliver(resource, delivery), None), Some(Denied::Delivery), "{delivery:?}");
            }
            // Who may not use it at all does not learn about ways.
            assert_eq!(decide(deliver("secret/STRIPE_API_KEY", delivery), None), Some(Denied::NoScope));
        }
    }

    #[test]
    fn a_session_cannot_do_what_it_gave_up() {
        let narrowed = Some("secret:read:OPENAI_ORG_*");
        assert_eq!(decide(acquire("secret/OPENAI_API_KEY"), narrowed), Some(Denied::Narrowed));
        assert_eq!(decide(acquire("secret/OPENAI_ORG_ID"), narrowed), None);
        assert_eq!(decide(Action::ListSecrets, narrowed), Some(Denied::Narrowed));
    }

    #[test]
    fn a_list_shows_the_names_that_both_the_role_and_the_session_cover() {
        let narrowed: Arc<[Scope]> = vec!["secret:list:*_KEY".parse().unwrap()].into();
        let grant = policy().authorize(&"notes".parse().unwrap(), Some(&narrowed), Action::ListSecrets);
        let grant = grant.unwrap_or_else(|denied| panic!("{denied:?}"));
        let Decision::Granted(grant) = grant else { panic!("it waits") };
        assert!(grant.lists_secret(&"OPENAI_API_KEY".parse().unwrap()));
        assert!(!grant.lists_secret(&"OPENAI_ORG_ID".parse().unwrap()));
        assert!(!grant.lists_secret(&"STRIPE_API_KEY".parse().unwrap()));
    }

    #[test]
    fn a_mail_needs_a_scope_for_each_of_its_recipients() {
        let to = |addresses: &[&str]| {
            Action::SendEmail(addresses.iter().map(|address| address.parse().unwrap()).collect())
        };
        assert_eq!(decide(to(&["a@example.com"]), None), None);
        assert_eq!(decide(to(&["A@Example.com", "boss@corp.test"]), None), None);
        for denied in
            [&[][..], &["x@corp.test"], &["a@example.com", "x@corp.test"], &["a@example.com.evil.test"]]
        {
            assert_eq!(decide(to(denied), None), Some(Denied::NoScope), "{denied:?}");
        }
        assert_eq!(decide(to(&["boss@corp.test"]), Some("email:send:*@example.com")), Some(Denied::Narrowed));
        assert_eq!(decide(Action::Send(Channel::Email), None), None);
        assert_eq!(decide(Action::Send(Channel::Sms), None), Some(Denied::NoScope));
    }

    #[test]
    fn to_read_is_not_to_be_given_codes() {
        assert_eq!(decide(Action::AwaitCode(Channel::Sms), None), None);
        assert_eq!(decide(Action::ReadMessages(Channel::Sms), None), Some(Denied::NoScope));
        assert_eq!(decide(Action::ReadMessages(Channel::Email), None), None);
        assert_eq!(decide(Action::AwaitCode(Channel::Email), None), Some(Denied::NoScope));
        assert_eq!(decide(Action::SearchContacts, None), None);
        assert_eq!(decide(Action::ProvisionPhone, None), Some(Denied::NoScope));
    }

    /// The same role, with marks. True: the operator is asked.
    fn asks(marks: &str, action: Action) -> bool {
        let text = format!("{ROLE}approve = [{marks}]\n");
        let environment = Environment::of(
            1000,
            [(Variable::XdgRuntimeDir, "/run/user/1000"), (Variable::Home, "/home/user")],
        );
        let draft = config::read(&Source::of("test", &text), &environment, &Overrides::default()).unwrap();
        assert!(draft.problems.is_empty(), "{:?}", draft.problems);
        let policy = Policy::compile(&draft.config).unwrap_or_else(|problems| panic!("{problems:?}"));
        match policy.authorize(&"notes".parse().unwrap(), None, action) {
            Ok(decision) => matches!(decision, Decision::Ask(_)),
            Err(denied) => panic!("{denied:?}"),
        }
    }

    #[test]
    fn the_operator_is_asked_where_only_a_marked_scope_allows_it() {
        let (openai, gitlab) = ("secret/OPENAI_API_KEY", "password/gitlab.com");
        let file = |resource| deliver(resource, Delivery::File);
        assert!(!asks("", acquire(openai)));
        assert!(asks("\"secret:read:OPENAI_API_*\"", acquire(openai)));
        assert!(!asks("\"secret:read:OPENAI_API_*\"", acquire("secret/OPENAI_ORG_ID")));
        // Read allows use; what is marked is the only right to it.
        assert!(asks("\"secret:read\"", file(openai)));
        assert!(asks("\"password:use\"", file(gitlab)));
        let to = |address: &str| Action::SendEmail(vec![address.parse().unwrap()]);
        assert!(asks("\"email:send:boss@corp.test\"", to("boss@corp.test")));
        assert!(!asks("\"email:send:boss@corp.test\"", to("a@example.com")));
        let both =
            Action::SendEmail(vec!["a@example.com".parse().unwrap(), "boss@corp.test".parse().unwrap()]);
        assert!(asks("\"email:send:boss@corp.test\"", both), "one of them is enough");
        assert!(asks("\"sms:await\"", Action::AwaitCode(Channel::Sms)));
        assert!(!asks("\"email:send\"", Action::Send(Channel::Email)), "nothing is sent yet");
    }

    #[test]
    fn who_is_asked_about_a_use_is_asked_about_showing_it_too() {
        let role = ROLE.replace("password:use:gitlab.com", "secret:use:OPENAI_*");
        let marked = format!("{role}approve = [\"secret:use:OPENAI_*\"]\n");
        let draft = config::read(
            &Source::of("test", &marked),
            &Environment::of(1000, [(Variable::XdgRuntimeDir, "/run"), (Variable::Home, "/home/user")]),
            &Overrides::default(),
        );
        let policy = Policy::compile(&draft.unwrap().config).unwrap();
        let decided =
            policy.authorize(&"notes".parse().unwrap(), None, acquire("secret/OPENAI_API_KEY")).unwrap();
        assert!(matches!(decided, Decision::Ask(_)));
    }

    #[test]
    fn a_role_that_is_gone_denies() {
        let denied =
            Policy::default().authorize(&"notes".parse().unwrap(), None, acquire("secret/OPENAI_API_KEY"));
        assert_eq!(denied.err(), Some(Denied::NoRole));
    }
}
