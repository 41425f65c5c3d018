//! Switches for what Ravi does not document (docs/ravi-api.md §8). The defaults are that sheet's. Plain data.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How the sandbox decides where the contract leaves it open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Answer of `GET /api/email-messages/`.
    pub email_messages: ListShape,
    /// Status of a minted key, a created identity and a provisioned phone.
    pub mint_status: MintStatus,
    /// Status when `?identity=` names another identity than the key's own, or none.
    pub mismatch_status: MismatchStatus,
    /// Status when a call needs a key of the other kind.
    pub wrong_kind_status: WrongKindStatus,
    /// What an identity key sees at `GET /api/identities/`.
    pub identities_visible: Visible,
    /// What a management key without `?identity=` gets from lists and single reads.
    pub without_identity: WithoutIdentity,
    /// How an absent `inbox` or `phone` is written.
    pub absent: Absent,
    /// Whether lists of passwords and secrets carry the values.
    pub list_values: ListValues,
    /// How `GET /api/secrets/?key=` compares.
    pub secret_lookup: SecretLookup,
    /// Reading a message or a thread sets `is_read`.
    pub reading_marks_read: bool,
    /// False: 402 where Ravi asks for a subscription.
    pub paid_plan: bool,
    /// Device logins are approved as soon as they are started.
    pub auto_approve: bool,
    /// Mails that an inbox may send in a day; `null`: any number.
    pub mails_per_day: Option<u32>,
    /// SMS that an identity may send in a day; `null`: any number.
    pub texts_per_day: Option<u32>,
    /// Attachments that the account may presign in an hour; `null`: any number.
    pub uploads_per_hour: Option<u32>,
    /// Most characters of an SMS.
    pub text_limit: u32,
    /// Status of an SMS from an identity without a phone.
    pub without_phone: WithoutPhoneStatus,
    /// Whether `created_after` also lets through what has exactly that time.
    pub created_after_inclusive: bool,
    /// Where attachments are uploaded to.
    pub storage: StorageHost,
    /// False: `GET /api/events/stream/` answers 404.
    pub events: bool,
    /// False: 503 when a phone is asked for.
    pub phones_available: bool,
    /// How long the answer to a provisioned phone takes, in seconds; the phone is there before.
    pub provision_seconds: u32,
    /// Life of a device login, in seconds.
    pub device_expires_in: u32,
    /// Least time between two polls of a device login, in seconds.
    pub device_interval: u32,
    /// How long a poll with `wait` is held at most, in seconds.
    pub device_hold: u32,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            email_messages: ListShape::Paged,
            mint_status: MintStatus::Created,
            mismatch_status: MismatchStatus::Forbidden,
            wrong_kind_status: WrongKindStatus::Forbidden,
            identities_visible: Visible::Own,
            without_identity: WithoutIdentity::AccountWide,
            absent: Absent::Null,
            list_values: ListValues::Shown,
            secret_lookup: SecretLookup::Exact,
            reading_marks_read: false,
            paid_plan: true,
            auto_approve: false,
            mails_per_day: Some(100),
            texts_per_day: None,
            uploads_per_hour: Some(200),
            text_limit: 1600,
            without_phone: WithoutPhoneStatus::BadRequest,
            created_after_inclusive: false,
            storage: StorageHost::Same,
            events: false,
            phones_available: true,
            provision_seconds: 0,
            device_expires_in: 900,
            device_interval: 5,
            device_hold: 25,
        }
    }
}

impl Behaviour {
    /// With some switches changed, by their names on the wire. `None`: no such switch or setting.
    pub fn changed(&self, changes: Map<String, Value>) -> Option<Self> {
        let mut merged = json!(self);
        for (name, value) in changes {
            merged[name] = value;
        }
        serde_json::from_value(merged).ok()
    }
}

macro_rules! switch {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }
    };
}

switch!(
    /// §8 no. 8.
    ListShape {
        /// `{count, next, previous, results}`, oldest first.
        Paged,
        /// A bare array, newest first.
        Array,
    }
);
switch!(
    /// §8 no. 7.
    MintStatus {
        /// 201.
        Created,
        /// 200.
        Ok,
    }
);
switch!(
    /// §8 no. 4.
    MismatchStatus {
        /// 400.
        BadRequest,
        /// 403.
        Forbidden,
        /// 404.
        NotFound,
    }
);
switch!(
    /// §8 no. 14.
    WrongKindStatus {
        /// 401.
        Unauthorized,
        /// 403.
        Forbidden,
    }
);
switch!(
    /// §8 no. 3.
    Visible {
        /// The key's own identity.
        Own,
        /// Every identity of the account.
        All,
    }
);
switch!(
    /// §8 no. 5.
    WithoutIdentity {
        /// Rows of all identities, the newest identity's first.
        AccountWide,
        /// 400.
        Refused,
    }
);
switch!(
    /// §8 no. 18.
    Absent {
        /// `null`.
        Null,
        /// `""`.
        Empty,
    }
);
switch!(
    /// docs/ravi-api.md §3.7, §3.8: older documents say that lists carry no values.
    ListValues {
        /// In plain text.
        Shown,
        /// The field is left out.
        Omitted,
    }
);
switch!(
    /// §8 no. 22.
    WithoutPhoneStatus {
        /// 400.
        BadRequest,
        /// 404.
        NotFound,
        /// 409.
        Conflict,
    }
);
switch!(
    /// §3.6: whose host `upload_url` names is not documented.
    StorageHost {
        /// The API's.
        Same,
        /// Another one: the second listener, on a port of its own.
        Other,
    }
);
switch!(
    /// §8 no. 19.
    SecretLookup {
        /// The query must be the upper-case key.
        Exact,
        /// Letter case does not matter.
        AnyCase,
    }
);
