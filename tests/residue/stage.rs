//! A stack whose secrets are canaries, and the stages at which its daemon is searched.

use std::time::{Duration, Instant};

use ravi_broker::client::{AgentClient, OpenSession};
use ravi_broker::sandbox::{NewMail, NewSms};
use ravi_broker::secret::Secret;

use crate::canary::{Canary, Kind};
use crate::census::{Census, Table};
use crate::support::{DEPLOY, NOTES, Setup, Stack};

/// What a call that has been answered may take to let go of its buffers.
const SETTLES: Duration = Duration::from_secs(3);
/// Idle connections go after 15 s, or up to a quarter later.
const RETIRES: Duration = Duration::from_secs(40);

/// `notes` reads and writes all it has, `deploy` does so and signs in, `few` may do next to nothing.
const ROLES: &str = r#"
[role.notes]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["secret:read", "secret:list", "secret:write", "password:read", "password:list", "password:write", "password:create", "identity:read", "email:read", "email:await", "email:send", "sms:read", "sms:await", "sms:send", "identity:create"]
session = { max_live = 1000 }
lease = { max_live = 4096 }
rate = { read = "1000000/min", send = "60000/min" }
[role.deploy]
identity = "deploy-agent"
match = { uid = UID }
scopes = ["secret:read", "secret:list", "secret:write", "password:read", "password:list", "password:write", "password:create", "identity:read", "sso:mint"]
session = { max_live = 1000 }
lease = { max_live = 4096 }
rate = { read = "1000000/min", send = "60000/min" }
[role.few]
identity = "deploy-agent"
match = { uid = UID }
scopes = ["secret:read:NOTHING"]
rate = { read = "1000000/min", send = "60000/min" }
"#;

/// A stack, what was planted in it, and what was found so far.
pub(crate) struct Stage {
    pub(crate) stack: Stack,
    pub(crate) canaries: Vec<Canary>,
    pub(crate) table: Table,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        Self::with(|_| {}).await
    }

    /// The same, changed before it starts.
    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let stack = Stack::with(|setup| {
            setup.roles = ROLES.to_owned();
            setup.sections = "[limits]\nopen = \"60000/min\"\n".to_owned();
            change(setup);
        });
        let stack = stack.await;
        let control = stack.control();
        let management = control.management_key().expect("the sandbox has one");
        let canaries = vec![Canary::seen(Kind::ManagementKey, management.expose())];
        // The key that is seeded stays outside; the broker mints one of its own.
        control.revoke_identity_keys(DEPLOY).unwrap();
        let mut stage = Self { stack, canaries, table: Table::default() };
        stage.plant_messages();
        stage
    }

    /// Something that was seen and has to be gone later.
    pub(crate) fn saw(&mut self, kind: Kind, value: &str) {
        if self.canaries.iter().all(|canary| canary.value() != value) {
            self.canaries.push(Canary::seen(kind, value));
        }
    }

    /// A fresh canary; its value is for planting.
    pub(crate) fn fresh(&mut self, kind: Kind) -> Secret {
        let canary = Canary::fresh(kind);
        let value = Secret::copy_of(canary.value());
        self.canaries.push(canary);
        value
    }

    /// As a secret of the identity of `notes`.
    pub(crate) fn plant_secret(&mut self, key: &str) -> Secret {
        let value = self.fresh(Kind::Secret);
        self.stack.control().set_secret(NOTES, key, Secret::copy_of(value.expose())).unwrap();
        value
    }

    /// As the password of an entry that the sandbox has.
    pub(crate) fn plant_password(&mut self, identity: &str, domain: &str, username: &str) -> Secret {
        let value = self.fresh(Kind::Password);
        let copy = Secret::copy_of(value.expose());
        self.stack.control().set_password(identity, domain, username, copy).unwrap();
        value
    }

    /// Codes lie in the identity's mail and SMS.
    fn plant_messages(&mut self) {
        let control = self.stack.control();
        let (mail, sms) = (Canary::key(Kind::Code), Canary::key(Kind::Code));
        let new = NewMail {
            identity: NOTES.to_owned(),
            from: "codes@example.com".to_owned(),
            subject: "Your code".to_owned(),
            text: format!("Your code is {}", mail.value()),
            ..NewMail::default()
        };
        control.deliver_mail(new).unwrap();
        let (from, body) = ("+12025550199".to_owned(), format!("{} is your code", sms.value()));
        control.deliver_sms(NewSms { identity: NOTES.to_owned(), from, body, ..NewSms::default() }).unwrap();
        self.canaries.extend([mail, sms]);
    }

    /// A session of this process whose token is a canary.
    pub(crate) async fn agent(&mut self, role: &str) -> AgentClient {
        let client = self.stack.stranger().await;
        let (_, token) = client.open_session(OpenSession::role(role)).await.expect("the role matches");
        self.saw(Kind::SessionToken, token.expose());
        client.with_token(token)
    }

    /// Waits until the daemon has retired the connections on which nothing happens.
    pub(crate) async fn retired(&self) {
        let admin = self.stack.admin().await;
        let quiet = || async { admin.status().await.expect("the daemon answers").connections == 0 };
        let waited = tokio::time::timeout(RETIRES, async {
            while !quiet().await {
                tokio::task::yield_now().await;
            }
        });
        waited.await.expect("every idle connection is retired in time");
    }

    /// Searches the daemon until there is nothing more than allowed, or nothing changes any more.
    pub(crate) fn search(&mut self, stage: &'static str, allowed: &dyn Fn(Kind) -> usize) {
        let census = settled(self.stack.daemon.pid(), &self.canaries, allowed);
        self.table.add(stage, census);
    }

    /// Prints the table.
    #[expect(clippy::print_stdout, reason = "the counts are what the test is for")]
    pub(crate) fn show(&self) {
        println!("{}", self.table);
    }

    /// What was found at a stage beyond what was allowed; empty if all is well.
    pub(crate) fn beyond(&self, stage: &'static str, allowed: &dyn Fn(Kind) -> usize) -> String {
        let census = self.table.stage(stage);
        if census.is_within(allowed) { String::new() } else { format!("{stage}:\n{census}") }
    }
}

/// Nothing but tokens of live sessions, in the buffers of their clients' open connections: those are worth
/// nothing to other processes, and go when the connection is retired.
pub(crate) fn tokens_of_open_connections(kind: Kind) -> usize {
    if kind == Kind::SessionToken { usize::MAX } else { 0 }
}

/// Nothing at all.
pub(crate) fn nothing(_: Kind) -> usize {
    0
}

/// Searches a process again until it is as wanted: an answer arrives before its sender has freed it.
pub(crate) fn settled(pid: i32, canaries: &[Canary], allowed: &dyn Fn(Kind) -> usize) -> Census {
    #[expect(clippy::disallowed_methods, reason = "the end of a wait of the test itself")]
    let (now, begin) = (Instant::now, Instant::now());
    loop {
        let census = Census::of_process(pid, canaries);
        if census.is_within(allowed) || now().duration_since(begin) > SETTLES {
            return census;
        }
        std::thread::yield_now();
    }
}
