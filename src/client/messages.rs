//! Sending, contacts and identities: the methods of `InboxService` that send, those of `IdentityService`, and those of
//! `AdminService` about identities.

use bytes::Bytes;
use futures_util::stream;
use tonic::Request;

use super::admin::AdminClient;
use super::agent::AgentClient;
use super::channel::answer;
use super::convert::{self, timestamp};
use super::error::ClientError;
use super::model::{Credential, Identity, Lease};
use super::model_messages::{
    Answered, Body, Contact, CreatedIdentity, IdentityInfo, MailContent, NewFile, NewMail, SendBudget,
    SendState, Sent,
};
use crate::pb;
use crate::pb::attach_file_request::Part;
use crate::pb::check_send_response::State;
use crate::secret::Secret;
use crate::types::SendId;

/// Of a file in one message.
const PART: usize = 48 * 1024;

type Result<T> = std::result::Result<T, ClientError>;

impl AgentClient {
    /// Sends a mail.
    pub async fn send_email(&self, mail: NewMail) -> Result<Sent> {
        let NewMail { to, subject, content, reason } = mail;
        let content = Some(wire_content(content));
        let request = self.request(pb::SendEmailRequest { to, subject, content, reason });
        sent(answer(self.inbox().send_email(request)).await?.sent)
    }

    /// Answers a mail that came in, for example `email/42`.
    pub async fn reply(
        &self,
        message: &str,
        answered: Answered,
        content: MailContent,
        reason: &str,
    ) -> Result<Sent> {
        let (message, content, reason) = (message.to_owned(), Some(wire_content(content)), reason.to_owned());
        match answered {
            Answered::Sender => {
                let request = self.request(pb::ReplyEmailRequest { message, content, reason });
                sent(answer(self.inbox().reply_email(request)).await?.sent)
            }
            Answered::All => {
                let request = self.request(pb::ReplyAllEmailRequest { message, content, reason });
                sent(answer(self.inbox().reply_all_email(request)).await?.sent)
            }
        }
    }

    /// Sends a mail on.
    pub async fn forward(&self, message: &str, to: &str, content: MailContent, reason: &str) -> Result<Sent> {
        let request = self.request(pb::ForwardEmailRequest {
            message: message.to_owned(),
            to: to.to_owned(),
            content: Some(wire_content(content)),
            reason: reason.to_owned(),
        });
        sent(answer(self.inbox().forward_email(request)).await?.sent)
    }

    /// Sends a text message.
    pub async fn send_sms(&self, to: &str, text: &Secret, reason: &str) -> Result<Sent> {
        let (to, text, reason) = (to.to_owned(), text.expose().to_owned(), reason.to_owned());
        let request = self.request(pb::SendSmsRequest { to, text, reason });
        sent(answer(self.inbox().send_sms(request)).await?.sent)
    }

    /// Keeps a file that mails of this session can have attached. Returns its name for them.
    pub async fn attach(&self, file: NewFile) -> Result<String> {
        let NewFile { name, content_type, bytes } = file;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let first = Part::File(pb::NewFile { name, content_type, size });
        let parts = bytes.chunks(PART).map(|part| Part::Bytes(Bytes::copy_from_slice(part)));
        let messages = std::iter::once(first).chain(parts);
        let messages: Vec<_> = messages.map(|part| pb::AttachFileRequest { part: Some(part) }).collect();
        let request = self.request(stream::iter(messages));
        Ok(answer(self.inbox().attach_file(request)).await?.attachment)
    }

    /// What became of a send whose outcome is unknown.
    pub async fn check_send(&self, id: SendId) -> Result<SendState> {
        let request = self.request(pb::CheckSendRequest { send_id: id.to_string() });
        let answered = answer(self.inbox().check_send(request)).await?;
        match answered.state() {
            State::Sent => Ok(SendState::Sent(answered.message)),
            State::NotFound => Ok(SendState::NotFound),
            State::Ambiguous => Ok(SendState::Ambiguous),
            State::Unspecified => Err(ClientError::Protocol),
        }
    }

    /// Whom the identity knows.
    pub async fn search_contacts(&self, query: &str) -> Result<Vec<Contact>> {
        let request = self.request(pb::SearchContactsRequest { query: query.to_owned() });
        let found = answer(self.identities().search_contacts(request)).await?.contacts;
        let contact = |contact| {
            let pb::Contact { name, email, phone, trusted } = contact;
            Contact { name, email, phone, trusted }
        };
        Ok(found.into_iter().map(contact).collect())
    }

    /// Creates an identity beside the session's own.
    pub async fn create_identity(&self, name: &str, reason: &str) -> Result<Identity> {
        let (name, reason) = (name.to_owned(), reason.to_owned());
        let request = self.request(pb::CreateIdentityRequest { name, reason });
        let created = answer(self.identities().create_identity(request)).await?.identity;
        created.map(convert::identity).ok_or(ClientError::Protocol)
    }

    /// Gives the session's own identity a telephone number. `country`: two letters; empty for Ravi's default.
    pub async fn provision_phone(&self, country: &str, reason: &str) -> Result<Identity> {
        let (country, reason) = (country.to_owned(), reason.to_owned());
        let request = self.request(pb::ProvisionPhoneRequest { country, reason });
        let provisioned = answer(self.identities().provision_phone(request)).await?.identity;
        provisioned.map(convert::identity).ok_or(ClientError::Protocol)
    }

    /// A sign-in token, as `acquire` of `sso/token`.
    pub async fn mint_sso_token(&self, reason: &str) -> Result<(Lease, Credential)> {
        let request = self.request(pb::MintSsoTokenRequest { reason: reason.to_owned() });
        let granted = answer(self.identities().mint_sso_token(request)).await?;
        Ok((convert::lease(granted.lease)?, convert::credential(granted.credential)?))
    }
}

impl AdminClient {
    /// The identities of the account.
    pub async fn identities(&self) -> Result<Vec<IdentityInfo>> {
        let request = Request::new(pb::ListIdentitiesRequest {});
        let listed = answer(self.admin().list_identities(request)).await?.identities;
        listed.into_iter().map(identity_info).collect()
    }

    /// One identity, by name or UUID, with what it may still send today.
    pub async fn identity(&self, identity: &str) -> Result<IdentityInfo> {
        let request = Request::new(pb::ShowIdentityRequest { identity: identity.to_owned() });
        let shown = answer(self.admin().show_identity(request)).await?.identity;
        identity_info(shown.ok_or(ClientError::Protocol)?)
    }

    /// Creates an identity, with a telephone number if `phone` says so.
    pub async fn create_identity(&self, name: &str, phone: bool, country: &str) -> Result<CreatedIdentity> {
        let (name, country) = (name.to_owned(), country.to_owned());
        let request = Request::new(pb::AdminServiceCreateIdentityRequest { name, phone, country });
        let created = answer(self.admin().create_identity(request)).await?;
        let identity = created.identity.map(convert::identity).ok_or(ClientError::Protocol)?;
        let phone_failure = Some(created.phone_failure).filter(|reason| !reason.is_empty());
        Ok(CreatedIdentity { identity, phone_failure })
    }
}

/// The one copy that goes to the wire.
fn wire_content(content: MailContent) -> pb::Content {
    let MailContent { body, cc, bcc, attachments } = content;
    let (text, html) = match body {
        Body::Text(text) => (text.expose().to_owned(), String::new()),
        Body::Html(html) => (String::new(), html.expose().to_owned()),
    };
    pb::Content { text, html, cc, bcc, attachments }
}

fn sent(sent: Option<pb::Sent>) -> Result<Sent> {
    let pb::Sent { message, budget } = sent.ok_or(ClientError::Protocol)?;
    Ok(Sent { message, budget: send_budget(budget.ok_or(ClientError::Protocol)?)? })
}

fn identity_info(info: pb::IdentityInfo) -> Result<IdentityInfo> {
    let pb::IdentityInfo { identity, roles, key_held } = info;
    Ok(IdentityInfo { identity: convert::identity(identity.ok_or(ClientError::Protocol)?), roles, key_held })
}

pub(super) fn send_budget(budget: pb::SendBudget) -> Result<SendBudget> {
    let pb::SendBudget { limit, used, resets_at } = budget;
    Ok(SendBudget { limit, used, resets_at: timestamp(resets_at)? })
}
