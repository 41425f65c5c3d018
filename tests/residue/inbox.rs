//! The calls of the inbox that bring codes in: each with a canary in a message.

use futures_util::StreamExt;
use ravi_broker::pb;
use ravi_broker::sandbox::{NewMail, NewSms};

use crate::canary::{Canary, Kind};
use crate::drive::{Driven, open};
use crate::stage::Stage;
use crate::support::{NOTES, bounded};
use crate::wire::Wire;

impl Driven {
    /// Lists, reads, waits, and is told.
    pub(crate) async fn inbox(&self, stage: &mut Stage) {
        let wire = &self.notes;
        let mut inbox = wire.inbox();
        let list = pb::ListMessagesRequest::default();
        let listed = inbox.list_messages(wire.request(list)).await.unwrap().into_inner();
        for summary in listed.messages {
            let get = pb::GetMessageRequest { message: summary.message };
            inbox.get_message(wire.request(get)).await.unwrap();
        }
        // On a connection of its own: one that carries codes out is retired.
        let reader = open(stage, &self.calls, "notes").await;
        let told =
            reader.inbox().watch_inbox(reader.request(pb::WatchInboxRequest::default())).await.unwrap();
        let mut told = told.into_inner();
        for channel in [pb::Channel::Email, pb::Channel::Sms] {
            let watch = watch(wire, channel).await;
            let canary = Canary::key(Kind::Code);
            deliver(stage, channel, &canary);
            let ask = || pb::AwaitCodeRequest { watch_id: watch.clone(), wait: None };
            let given = bounded(inbox.await_code(wire.request(ask()))).await.unwrap().into_inner();
            assert!(given.code.unwrap().value.contains(canary.value()), "another code");
            inbox.await_code(wire.request(ask())).await.unwrap();
            stage.canaries.push(canary);
            bounded(told.next()).await.unwrap().unwrap();
            let close = pb::CloseCodeWatchRequest { watch_id: watch };
            inbox.close_code_watch(wire.request(close)).await.unwrap();
        }
        // One that nobody asks for stays with its watch until that ends.
        watch(wire, pb::Channel::Sms).await;
        let canary = Canary::key(Kind::Code);
        deliver(stage, pb::Channel::Sms, &canary);
        bounded(told.next()).await.unwrap().unwrap();
        stage.canaries.push(canary);
        inbox
            .get_message(wire.request(pb::GetMessageRequest { message: "sms/987654".into() }))
            .await
            .unwrap_err();
        let unknown = pb::AwaitCodeRequest { watch_id: "wat_aaaaaaaaaaaaaaaaaaaaaaaaaa".into(), wait: None };
        inbox.await_code(wire.request(unknown)).await.unwrap_err();
    }
}

async fn watch(wire: &Wire, channel: pb::Channel) -> String {
    let open = pb::OpenCodeWatchRequest { channel: channel.into(), ..Default::default() };
    let opened = wire.inbox().open_code_watch(wire.request(open)).await.unwrap().into_inner();
    opened.watch.unwrap().watch_id
}

/// A link that signs in, with the canary as its token.
fn deliver(stage: &Stage, channel: pb::Channel, canary: &Canary) {
    let link = format!("https://app.example.com/login/verify?token={}", canary.value());
    let text = format!("Click this link to sign in to Example: {link}");
    let control = stage.stack.control();
    match channel {
        pb::Channel::Sms => {
            let (identity, from) = (NOTES.to_owned(), "+12025550199".to_owned());
            control.deliver_sms(NewSms { identity, from, body: text, ..NewSms::default() }).unwrap();
        }
        _ => {
            let (identity, from) = (NOTES.to_owned(), "no-reply@example.com".to_owned());
            let subject = "Sign in to Example".to_owned();
            control.deliver_mail(NewMail { identity, from, subject, text, ..NewMail::default() }).unwrap();
        }
    }
}
