//! `InboxService`. What is sent is in `send`.

use tonic::{Request, Status, Streaming};

use super::{Agent, Answer};
use crate::pb;
use crate::pb::inbox_service_server::InboxService;

#[tonic::async_trait]
impl InboxService for Agent {
    async fn list_messages(&self, _: Request<pb::ListMessagesRequest>) -> Answer<pb::ListMessagesResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_message(&self, _: Request<pb::GetMessageRequest>) -> Answer<pb::GetMessageResponse> {
        Err(Status::unimplemented(""))
    }

    async fn open_code_watch(
        &self,
        _: Request<pb::OpenCodeWatchRequest>,
    ) -> Answer<pb::OpenCodeWatchResponse> {
        Err(Status::unimplemented(""))
    }

    async fn await_code(&self, _: Request<pb::AwaitCodeRequest>) -> Answer<pb::AwaitCodeResponse> {
        Err(Status::unimplemented(""))
    }

    async fn close_code_watch(
        &self,
        _: Request<pb::CloseCodeWatchRequest>,
    ) -> Answer<pb::CloseCodeWatchResponse> {
        Err(Status::unimplemented(""))
    }

    type WatchInboxStream = tokio_stream::Empty<Result<pb::WatchInboxResponse, Status>>;

    async fn watch_inbox(&self, _: Request<pb::WatchInboxRequest>) -> Answer<Self::WatchInboxStream> {
        Err(Status::unimplemented(""))
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
