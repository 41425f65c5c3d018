//! `InboxService`: what comes in. What goes out is in `send`.

use std::pin::Pin;

use futures_util::stream::{self, Stream};
use tonic::{Request, Response, Status, Streaming};

use super::{Agent, Answer, Retire, convert, message};
use crate::broker::{BrokerError, Came, InboxWatch, LONGEST_WAIT, WatchOpening};
use crate::limit::Class;
use crate::pb;
use crate::pb::inbox_service_server::InboxService;

#[tonic::async_trait]
impl InboxService for Agent {
    async fn list_messages(
        &self,
        request: Request<pb::ListMessagesRequest>,
    ) -> Answer<pb::ListMessagesResponse> {
        let (admitted, (channel, size, before)) = self.admit(request, Class::Read, |wire| {
            Ok((
                message::channel(wire.channel)?,
                message::page_size(wire.page_size),
                message::place(&wire.page_token)?,
            ))
        })?;
        let page = self.broker.list_messages(&admitted, channel, before, size).await?;
        let messages =
            page.messages.iter().map(|read| message::summary(&read.message, &read.shown)).collect();
        let next_page_token = page.next.map(message::page_token).unwrap_or_default();
        Ok(Response::new(pb::ListMessagesResponse { messages, next_page_token }))
    }

    async fn get_message(&self, request: Request<pb::GetMessageRequest>) -> Answer<pb::GetMessageResponse> {
        let retire = Retire::of(request.extensions());
        let (admitted, name) =
            self.admit(request, Class::Read, |wire| convert::name("message", &wire.message))?;
        let read = self.broker.read_message(&admitted, name).await?;
        retire.after_answer(&admitted, &read.shown.text);
        Ok(Response::new(pb::GetMessageResponse { message: Some(message::message(read)) }))
    }

    async fn open_code_watch(
        &self,
        request: Request<pb::OpenCodeWatchRequest>,
    ) -> Answer<pb::OpenCodeWatchResponse> {
        let (admitted, opening) = self.admit(request, Class::Read, |wire| {
            Ok(WatchOpening {
                channel: message::channel(wire.channel)?
                    .ok_or(BrokerError::Argument { field: "channel", problem: "expected email or sms" })?,
                from: message::pattern(&wire.from)?,
                wanted: message::wanted(wire.kind)?,
                purpose: convert::reason(&wire.purpose)?,
                ttl: convert::ttl(wire.ttl)?,
            })
        })?;
        let (id, ends_at) = self.broker.open_code_watch(&admitted, opening).await?;
        let expires_at = convert::timestamp(self.clock.wall_at(ends_at));
        let watch = Some(pb::CodeWatch { watch_id: id.to_string(), expires_at });
        Ok(Response::new(pb::OpenCodeWatchResponse { watch }))
    }

    async fn await_code(&self, request: Request<pb::AwaitCodeRequest>) -> Answer<pb::AwaitCodeResponse> {
        let retire = Retire::of(request.extensions());
        let (admitted, (id, wait)) = self.admit(request, Class::Read, |wire| {
            Ok((message::watch_id(&wire.watch_id)?, convert::ttl(wire.wait)?.unwrap_or(LONGEST_WAIT)))
        })?;
        let given = self.broker.await_code(&admitted, id, wait).await?;
        let code = given.map(|given| {
            retire.after_answer(&admitted, &given.value);
            message::code(given)
        });
        Ok(Response::new(pb::AwaitCodeResponse { code }))
    }

    async fn close_code_watch(
        &self,
        request: Request<pb::CloseCodeWatchRequest>,
    ) -> Answer<pb::CloseCodeWatchResponse> {
        let (admitted, id) = self.admit_return(request, |wire| message::watch_id(&wire.watch_id))?;
        self.broker.close_code_watch(&admitted, id)?;
        Ok(Response::new(pb::CloseCodeWatchResponse {}))
    }

    type WatchInboxStream =
        Pin<Box<dyn Stream<Item = Result<pb::WatchInboxResponse, Status>> + Send + 'static>>;

    async fn watch_inbox(&self, request: Request<pb::WatchInboxRequest>) -> Answer<Self::WatchInboxStream> {
        let retire = Retire::of(request.extensions());
        let (admitted, channel) = self.admit(request, Class::Read, |wire| message::channel(wire.channel))?;
        let watch = self.broker.watch_inbox(&admitted, channel).await?;
        Ok(Response::new(Box::pin(stream::unfold(Some((watch, retire)), next_message))))
    }

    async fn attach_file(
        &self,
        request: Request<Streaming<pb::AttachFileRequest>>,
    ) -> Answer<pb::AttachFileResponse> {
        self.take_file(request).await
    }

    async fn send_email(&self, request: Request<pb::SendEmailRequest>) -> Answer<pb::SendEmailResponse> {
        self.new_mail(request).await
    }

    async fn reply_email(&self, request: Request<pb::ReplyEmailRequest>) -> Answer<pb::ReplyEmailResponse> {
        self.reply(request).await
    }

    async fn reply_all_email(
        &self,
        request: Request<pb::ReplyAllEmailRequest>,
    ) -> Answer<pb::ReplyAllEmailResponse> {
        self.reply_all(request).await
    }

    async fn forward_email(
        &self,
        request: Request<pb::ForwardEmailRequest>,
    ) -> Answer<pb::ForwardEmailResponse> {
        self.forward(request).await
    }

    async fn send_sms(&self, request: Request<pb::SendSmsRequest>) -> Answer<pb::SendSmsResponse> {
        self.new_text(request).await
    }

    async fn check_send(&self, request: Request<pb::CheckSendRequest>) -> Answer<pb::CheckSendResponse> {
        self.what_became(request).await
    }
}

type Watching = Option<(InboxWatch, Retire)>;

/// An error is the stream's last item.
async fn next_message(watching: Watching) -> Option<(Result<pb::WatchInboxResponse, Status>, Watching)> {
    let (mut watch, retire) = watching?;
    let came = tokio::select! {
        biased;
        came = watch.next() => came,
        () = retire.ending() => Came::Ended(BrokerError::ConnectionRetired),
    };
    match came {
        Came::Message(arrived, shown) => {
            let message = Some(message::summary(&arrived.message, &shown));
            Some((Ok(pb::WatchInboxResponse { message }), Some((watch, retire))))
        }
        Came::Missed => Some((Ok(pb::WatchInboxResponse { message: None }), Some((watch, retire)))),
        Came::Ended(error) => Some((Err(error.into()), None)),
    }
}
