//! What the account holds at the start and after a reset. Identifiers are fixed and documented here, so
//! that demos and tests can name them; values say that they are of the sandbox; keys are random unless
//! given. Imports `secret`, `state`.

use std::time::Duration;

use aws_lc_rs::hmac;
use jiff::Timestamp;
use uuid::Uuid;

use crate::secret::Secret;

use super::auth::{IDENTITY_PREFIX, MANAGEMENT_PREFIX};
use super::behaviour::Behaviour;
use super::budget::Budgets;
use super::contacts;
use super::random::{self, NoRandomness};
use super::state::{
    Direction, Identity, Inbox, Key, KeyKind, Mail, Owner, PasswordRow, Phone, SecretRow, Text, World,
    to_micros,
};

/// Mail domain of every identity.
pub const MAIL_DOMAIN: &str = "agents.sandbox.example";
pub(super) const MAIL_DOMAIN_UUID: Uuid = Uuid::from_u128(0x5a0d_0000_0000_4000_8000_0000_0000_0001);

/// The keys that the account begins with. What is `None` is made at the start.
#[derive(Default)]
pub struct Seed {
    /// `ravi_mgmt_…`.
    pub management_key: Option<Secret>,
    /// `ravi_id_…` of [`NOTES_AGENT`].
    pub notes_agent_key: Option<Secret>,
    /// `ravi_id_…` of [`DEPLOY_AGENT`].
    pub deploy_agent_key: Option<Secret>,
}

/// A seeded identity.
#[derive(Clone, Copy, Debug)]
pub struct SeedIdentity {
    /// `Identity.uuid`.
    pub uuid: Uuid,
    /// `Identity.name`.
    pub name: &'static str,
    /// `Identity.inbox`.
    pub email: &'static str,
    /// `Identity.phone`.
    pub phone: &'static str,
    /// The number in the field `identity` of its rows.
    pub id: i64,
    /// `id` of `GET /api/email/`.
    pub inbox_id: i64,
    /// `id` of `GET /api/phone/`.
    pub phone_id: i64,
}

/// The identity of an agent that keeps notes.
pub const NOTES_AGENT: SeedIdentity = SeedIdentity {
    uuid: Uuid::from_u128(0x6f1c_2a34_0b7e_4c3d_9a55_0e8d_3f0c_1b2a),
    name: "assistant-notes-agent",
    email: "assistant-notes-agent@agents.sandbox.example",
    phone: "+12025550111",
    id: 4101,
    inbox_id: 71,
    phone_id: 1,
};

/// The identity of an agent that deploys.
pub const DEPLOY_AGENT: SeedIdentity = SeedIdentity {
    uuid: Uuid::from_u128(0xb3d8_57e0_94c1_4f62_8e07_d21a_65f9_c4b8),
    name: "deploy-agent",
    email: "deploy-agent@agents.sandbox.example",
    phone: "+12025550122",
    id: 4102,
    inbox_id: 72,
    phone_id: 2,
};

/// A seeded secret: owner, key, value.
pub type SeedSecret = (SeedIdentity, &'static str, &'static str);

/// The secrets. The last digits of their uuids count from 0.
pub const SECRETS: [SeedSecret; 6] = [
    (NOTES_AGENT, "OPENAI_API_KEY", "sandbox-openai-notes-7c1f20"),
    (NOTES_AGENT, "OPENAI_ORG_ID", "sandbox-org-notes-0d44ab"),
    (NOTES_AGENT, "STRIPE_API_KEY", "sandbox-stripe-notes-91be3d"),
    (DEPLOY_AGENT, "OPENAI_API_KEY", "sandbox-openai-deploy-e2a6c9"),
    (DEPLOY_AGENT, "STRIPE_API_KEY", "sandbox-stripe-deploy-58f0d1"),
    (DEPLOY_AGENT, "REGISTRY_TOKEN", "sandbox-registry-deploy-3b7e64"),
];

/// A seeded password: owner, domain, user name, password.
pub type SeedPassword = (SeedIdentity, &'static str, &'static str, &'static str);

/// The passwords. The last digits of their uuids count from 0.
pub const PASSWORDS: [SeedPassword; 6] = [
    (NOTES_AGENT, "github.com", "notes-agent", "sandbox-github-notes-a81c"),
    (NOTES_AGENT, "github.com", "notes-agent-ci", "sandbox-github-notes-ci-52d7"),
    (
        NOTES_AGENT,
        "example.com",
        "assistant-notes-agent@agents.sandbox.example",
        "sandbox-example-notes-c03e",
    ),
    (DEPLOY_AGENT, "github.com", "deploy-agent", "sandbox-github-deploy-6f98"),
    (DEPLOY_AGENT, "example.co.uk", "deploy", "sandbox-example-deploy-be15"),
    (DEPLOY_AGENT, "grafana.net", "deploy-agent", "sandbox-grafana-deploy-2a70"),
];

/// Minutes before the start, owner, thread, from, subject, text. An empty `from`: sent by the owner.
type SeedMail = (u64, SeedIdentity, &'static str, &'static str, &'static str, &'static str);

const MAILS: [SeedMail; 5] = [
    (
        240,
        NOTES_AGENT,
        "<welcome-1@news.example.com>",
        "welcome@example.com",
        "Welcome aboard",
        "Your account is ready. Reference 20260105.",
    ),
    (
        90,
        NOTES_AGENT,
        "<plan-7@people.example.org>",
        "kim@example.org",
        "Plan for Thursday",
        "Could you collect the notes of the last three meetings?",
    ),
    (
        80,
        NOTES_AGENT,
        "<plan-7@people.example.org>",
        "",
        "Re: Plan for Thursday",
        "They are in the shared folder.",
    ),
    (
        12,
        NOTES_AGENT,
        "<code-3@github.example.com>",
        "noreply@github.example.com",
        "Your sign-in code",
        "Order 88213344 aside, your sign-in code is 481920. It is good for 10 minutes.",
    ),
    (
        30,
        DEPLOY_AGENT,
        "<alert-9@status.example.net>",
        "alerts@status.example.net",
        "Disk almost full",
        "Volume data on host web-2 is 91 % full.",
    ),
];

/// Minutes before the start, owner, number at the other end, direction, body.
type SeedText = (u64, SeedIdentity, &'static str, Direction, &'static str);

const TEXTS: [SeedText; 4] = [
    (65, NOTES_AGENT, "+12025550177", Direction::Incoming, "Example: your parcel 20394857 arrives today."),
    (60, NOTES_AGENT, "+12025550177", Direction::Outgoing, "Thank you."),
    (5, NOTES_AGENT, "+12025550188", Direction::Incoming, "Example: 730154 is your verification code."),
    (20, DEPLOY_AGENT, "+12025550188", Direction::Incoming, "Example: 264801 is your verification code."),
];

/// A key that was supplied is not of the form that Ravi's keys have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongKeyForm;

impl Seed {
    /// Refuses supplied keys that no `Authorization` header could carry.
    pub(super) fn check(&self) -> Result<(), WrongKeyForm> {
        let keys = [
            (&self.management_key, MANAGEMENT_PREFIX),
            (&self.notes_agent_key, IDENTITY_PREFIX),
            (&self.deploy_agent_key, IDENTITY_PREFIX),
        ];
        let good = |(key, prefix): (&Option<Secret>, &str)| {
            key.as_ref().is_none_or(|key| {
                let rest = key.expose().strip_prefix(prefix).unwrap_or("");
                (1..=256).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_graphic())
            })
        };
        if keys.into_iter().all(good) { Ok(()) } else { Err(WrongKeyForm) }
    }

    /// Makes the keys that were not given.
    pub(super) fn completed(self) -> Result<Self, NoRandomness> {
        let or_fresh = |key: Option<Secret>, prefix| key.map_or_else(|| random::key(prefix), Ok).map(Some);
        Ok(Self {
            management_key: or_fresh(self.management_key, MANAGEMENT_PREFIX)?,
            notes_agent_key: or_fresh(self.notes_agent_key, IDENTITY_PREFIX)?,
            deploy_agent_key: or_fresh(self.deploy_agent_key, IDENTITY_PREFIX)?,
        })
    }

    fn keys(&self, created: Timestamp) -> Vec<Key> {
        let all = [
            (KeyKind::Management, &self.management_key),
            (KeyKind::Identity(NOTES_AGENT.id), &self.notes_agent_key),
            (KeyKind::Identity(DEPLOY_AGENT.id), &self.deploy_agent_key),
        ];
        let key = |(kind, value): (KeyKind, &Option<Secret>)| {
            let value = Secret::copy_of(value.as_ref()?.expose());
            Some(Key { kind, value, label: "seed".to_owned(), created })
        };
        all.into_iter().filter_map(key).collect()
    }
}

/// The account as it begins, `now` being the start.
pub(super) fn world(seed: &Seed, behaviour: Behaviour, now: Timestamp) -> Result<World, NoRandomness> {
    let now = to_micros(now);
    let mut world = World {
        behaviour,
        owner: Owner { id: 17, email: "owner@sandbox.example", first_name: "Sandy", last_name: "Box" },
        identities: [NOTES_AGENT, DEPLOY_AGENT].map(|identity| seeded_identity(identity, now)).into(),
        keys: seed.keys(now),
        logins: Vec::new(),
        mails: Vec::new(),
        texts: Vec::new(),
        contacts: Vec::new(),
        attachments: Vec::new(),
        budgets: Budgets::default(),
        sent: Vec::new(),
        keys_at_storage: 0,
        passwords: passwords(now),
        secrets: secrets(now),
        sso_key: hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()?),
        next_id: 9000,
    };
    for mail in mails(now) {
        let other = if mail.direction == Direction::Incoming { &mail.from } else { &mail.to };
        contacts::note(&mut world, mail.identity, other, mail.created);
        world.file_mail(mail);
    }
    for text in texts(now) {
        contacts::note(&mut world, text.identity, &text.remote, text.created);
        world.file_text(text);
    }
    Ok(world)
}

fn minutes_before(now: Timestamp, minutes: u64) -> Timestamp {
    now.checked_sub(Duration::from_secs(minutes * 60)).unwrap_or(now)
}

fn seeded_identity(identity: SeedIdentity, now: Timestamp) -> Identity {
    let created = minutes_before(now, 60 * 24);
    Identity {
        id: identity.id,
        uuid: identity.uuid,
        name: identity.name.to_owned(),
        inbox: Some(Inbox { id: identity.inbox_id, address: identity.email.to_owned() }),
        phone: Some(Phone { id: identity.phone_id, number: identity.phone.to_owned(), created }),
        created,
        updated: created,
    }
}

fn mails(now: Timestamp) -> Vec<Mail> {
    let row = |(index, (minutes, owner, thread, from, subject, text)): (i64, SeedMail)| {
        let own = owner.email.to_owned();
        let (from, to, direction) = match from {
            "" => (own, "kim@example.org".to_owned(), Direction::Outgoing),
            from => (from.to_owned(), own, Direction::Incoming),
        };
        Mail {
            id: 501 + index,
            identity: owner.id,
            thread_id: thread.to_owned(),
            message_id: format!("<seed-{index}@{MAIL_DOMAIN}>"),
            from,
            to,
            cc: Vec::new(),
            subject: subject.to_owned(),
            text: text.to_owned(),
            html: format!("<p>{text}</p>"),
            direction,
            is_read: direction == Direction::Outgoing,
            attachments: Vec::new(),
            created: minutes_before(now, minutes),
        }
    };
    (0..).zip(MAILS).map(row).collect()
}

fn texts(now: Timestamp) -> Vec<Text> {
    let row = |(index, (minutes, owner, remote, direction, body)): (i64, SeedText)| Text {
        id: 801 + index,
        identity: owner.id,
        remote: remote.to_owned(),
        body: body.to_owned(),
        direction,
        is_read: direction == Direction::Outgoing,
        created: minutes_before(now, minutes),
    };
    (0..).zip(TEXTS).map(row).collect()
}

fn passwords(now: Timestamp) -> Vec<PasswordRow> {
    let created = minutes_before(now, 600);
    let row = |(index, (owner, domain, username, password)): (u128, SeedPassword)| PasswordRow {
        uuid: Uuid::from_u128(0x9a55_0000_0000_4000_8000_0000_0000_0000 + index),
        identity: owner.id,
        domain: domain.to_owned(),
        username: username.to_owned(),
        password: Secret::copy_of(password),
        notes: Secret::copy_of(""),
        created,
        updated: created,
    };
    (0..).zip(PASSWORDS).map(row).collect()
}

fn secrets(now: Timestamp) -> Vec<SecretRow> {
    let created = minutes_before(now, 600);
    let row = |(index, (owner, key, value)): (u128, SeedSecret)| SecretRow {
        uuid: Uuid::from_u128(0x5ec0_0000_0000_4000_8000_0000_0000_0000 + index),
        identity: owner.id,
        key: key.to_owned(),
        value: Secret::copy_of(value),
        notes: Secret::copy_of(""),
        created,
        updated: created,
    };
    (0..).zip(SECRETS).map(row).collect()
}
