//! The calls that send, with a canary in each text, subject and file; and those about identities.

use bytes::Bytes;
use futures_util::stream;
use ravi_broker::pb::{self, attach_file_request::Part};
use ravi_broker::sandbox::{Answer, Fault};
use tonic_types::StatusExt;

use crate::canary::{Canary, Kind};
use crate::drive::Driven;
use crate::stage::Stage;
use crate::support::{DEPLOY, NOTES};
use crate::wire::Wire;

const TO: &str = "kim@example.org";

impl Driven {
    /// Sends in every way, is refused, and is left in doubt.
    pub(crate) async fn sending(&self, stage: &mut Stage) {
        let wire = &self.notes;
        let mut inbox = wire.inbox();
        let file = self.attach(stage).await;
        let email = |stage: &mut Stage, to: &str| pb::SendEmailRequest {
            to: to.to_owned(),
            subject: written(stage),
            content: Some(pb::Content { attachments: vec![file.clone()], ..content(stage) }),
            reason: String::new(),
        };
        let mail = email(stage, TO);
        let html = pb::Content { html: mail.content.clone().unwrap().text, ..Default::default() };
        inbox.send_email(wire.request(mail)).await.unwrap();
        let mail = pb::SendEmailRequest { content: Some(html), ..email(stage, TO) };
        inbox.send_email(wire.request(mail)).await.unwrap();
        let message = || "email/502".to_owned();
        let reply =
            pb::ReplyEmailRequest { message: message(), content: Some(content(stage)), ..Default::default() };
        inbox.reply_email(wire.request(reply)).await.unwrap();
        let reply = pb::ReplyAllEmailRequest {
            message: message(),
            content: Some(content(stage)),
            ..Default::default()
        };
        inbox.reply_all_email(wire.request(reply)).await.unwrap();
        let forward = pb::ForwardEmailRequest {
            message: "email/504".to_owned(),
            to: TO.to_owned(),
            content: Some(content(stage)),
            ..Default::default()
        };
        inbox.forward_email(wire.request(forward)).await.unwrap();
        let sms = |stage: &mut Stage, to: &str| pb::SendSmsRequest {
            to: to.to_owned(),
            text: written(stage),
            reason: String::new(),
        };
        let text = sms(stage, "+12025550177");
        inbox.send_sms(wire.request(text)).await.unwrap();
        // Refused: by its form, by policy, by Ravi.
        let mail = email(stage, "nobody");
        inbox.send_email(wire.request(mail)).await.unwrap_err();
        let mail = email(stage, TO);
        self.few.inbox().send_email(self.few.request(mail)).await.unwrap_err();
        let text = sms(stage, "nobody");
        inbox.send_sms(wire.request(text)).await.unwrap_err();
        let control = stage.stack.control();
        control.add_fault(Fault::new("/api/messages/send/", Answer::Status(400)).times(1)).unwrap();
        let text = sms(stage, "+12025550177");
        inbox.send_sms(wire.request(text)).await.unwrap_err();
        // In doubt: what is kept for the check says nothing.
        let lost = Fault::new("/api/email-messages/compose/", Answer::Truncated).on("POST").times(1);
        control.add_fault(lost.taking_effect()).unwrap();
        let mail = email(stage, TO);
        let unknown = inbox.send_email(wire.request(mail)).await.unwrap_err();
        let send_id = unknown.get_details_error_info().unwrap().metadata["send"].clone();
        inbox.check_send(wire.request(pb::CheckSendRequest { send_id })).await.unwrap();
        control.clear_faults();
        self.personas(stage).await;
    }

    async fn attach(&self, stage: &mut Stage) -> String {
        let parts = |size, text: String| {
            let (name, content_type) = ("notes.txt".to_owned(), "text/plain".to_owned());
            let file = Part::File(pb::NewFile { name, content_type, size });
            let parts = [file, Part::Bytes(Bytes::from(text))];
            stream::iter(parts.map(|part| pb::AttachFileRequest { part: Some(part) }))
        };
        let wire = &self.notes;
        let text = written(stage).repeat(1000);
        let size = u64::try_from(text.len()).unwrap();
        let kept = wire.inbox().attach_file(wire.request(parts(size, text))).await.unwrap();
        let text = written(stage);
        wire.inbox().attach_file(wire.request(parts(1, text))).await.unwrap_err();
        kept.into_inner().attachment
    }

    async fn personas(&self, stage: &mut Stage) {
        let wire = &self.notes;
        let mut identities = wire.identities();
        let create = pb::CreateIdentityRequest { name: "residue persona".to_owned(), reason: String::new() };
        identities.create_identity(wire.request(create)).await.unwrap();
        saw_key(stage, "residue persona");
        identities.provision_phone(wire.request(pb::ProvisionPhoneRequest::default())).await.unwrap();
        let search = pb::SearchContactsRequest { query: "kim".to_owned() };
        identities.search_contacts(wire.request(search)).await.unwrap();
        let mint = self.deploy.request(pb::MintSsoTokenRequest::default());
        let minted = self.deploy.identities().mint_sso_token(mint).await.unwrap().into_inner();
        stage.saw(Kind::SignInToken, &minted.credential.unwrap().value);
        saw_key(stage, DEPLOY);
    }

    /// What the operator does with identities.
    pub(crate) async fn operators_personas(&self, stage: &mut Stage, wire: &Wire) {
        let mut admin = wire.admin();
        let create = pb::AdminServiceCreateIdentityRequest {
            name: "operators persona".to_owned(),
            phone: true,
            country: String::new(),
        };
        admin.create_identity(create).await.unwrap();
        saw_key(stage, "operators persona");
        admin.list_identities(pb::ListIdentitiesRequest {}).await.unwrap();
        admin.show_identity(pb::ShowIdentityRequest { identity: NOTES.to_owned() }).await.unwrap();
    }
}

fn saw_key(stage: &mut Stage, identity: &str) {
    let key = stage.stack.control().identity_key(identity).expect("a new identity has a key");
    stage.saw(Kind::IdentityKey, key.expose());
}

fn written(stage: &mut Stage) -> String {
    // Without what a subject may not have, or HTML writes otherwise.
    let canary = Canary::key(Kind::Written);
    let text = canary.value().to_owned();
    stage.canaries.push(canary);
    text
}

fn content(stage: &mut Stage) -> pb::Content {
    pb::Content { text: written(stage), ..Default::default() }
}
