//! Ravi's event stream (docs/ravi-api.md §4), as far as it is documented: a path, and names of events. What an
//! event carries is not read: it says that it is worth a look, and a look finds out. Bounded lines, an end to silence.

use std::time::Duration;

use futures_util::future::{Either, select};
use http::header::{ACCEPT, HeaderValue};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use tower::ServiceExt;

use super::{Http, judge};
use crate::types::Channel;
use crate::upstream::call::Call;
use crate::upstream::exchange::Reply;
use crate::upstream::retry;
use crate::upstream::{Result, UpstreamError};

/// Silence for longer than this, heartbeats included, means that nobody is there any more.
const SILENCE: Duration = Duration::from_secs(120);
/// Longest line that is looked at; the rest of a longer one is passed over.
const MAX_LINE: usize = 1024;
const MAX_HEAD: usize = 64 * 1024;

impl Http {
    /// Calls `told` with the channel of each event, or `None` for an event of another name, until the stream ends.
    pub(in crate::upstream) async fn listen(
        &self,
        call: &Call,
        told: &(dyn Fn(Option<Channel>) + Send + Sync),
    ) -> Result<()> {
        let (mut request, _) = self.request(call)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        self.budget
            .take(call.identity)
            .map_err(|retry_after| UpstreamError::BudgetReached { retry_after })?;
        let connecting = self.connector.clone().oneshot(self.base.uri().clone());
        let connection = self.within(self.deadline(), connecting).await.and_then(std::result::Result::ok);
        let connection = connection.ok_or(UpstreamError::Unavailable)?;
        let mut http = http1::Builder::new();
        http.max_buf_size(MAX_HEAD);
        let (mut sender, connection) =
            http.handshake(connection).await.map_err(|_| UpstreamError::Unavailable)?;
        let listening = async move {
            let answering = self.within(self.deadline(), sender.send_request(request)).await;
            let response = answering.and_then(std::result::Result::ok).ok_or(UpstreamError::Unavailable)?;
            let reply = Reply { status: response.status(), retry_after: None, is_json: false, body: None };
            judge(call, reply).map_err(|fault| retry::give_up(call.effect(), fault))?;
            let (mut body, mut lines) = (response.into_body(), Lines::default());
            loop {
                let silent = self.clock.now() + SILENCE;
                match self.within(silent, body.frame()).await {
                    Some(Some(Ok(frame))) => {
                        if let Some(data) = frame.data_ref() {
                            lines.push(data, told);
                        }
                    }
                    _ => return Ok(()),
                }
            }
        };
        match select(std::pin::pin!(listening), std::pin::pin!(connection)).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => Ok(()),
        }
    }
}

/// The lines of a stream, of which only the names of events are looked at.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    event: Option<Option<Channel>>,
}

impl Lines {
    fn push(&mut self, data: &[u8], told: &(dyn Fn(Option<Channel>) + Send + Sync)) {
        for byte in data {
            match byte {
                b'\n' => self.end(told),
                b'\r' => {}
                byte if self.line.len() < MAX_LINE => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn end(&mut self, told: &(dyn Fn(Option<Channel>) + Send + Sync)) {
        if self.line.is_empty() {
            if let Some(channel) = self.event.take() {
                told(channel);
            }
        } else if let Some(name) = self.line.strip_prefix(b"event:") {
            self.event = Some(channel(name.trim_ascii()));
        } else if self.line.starts_with(b"data:") && self.event.is_none() {
            // An event without a name.
            self.event = Some(None);
        }
        self.line.clear();
    }
}

/// Two vocabularies are documented: `email`, `sms`, and `email_owner`, `email_trusted`, `email_untrusted`.
fn channel(name: &[u8]) -> Option<Channel> {
    let begins = |word: &[u8]| name.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest[0] == b'_');
    Channel::ALL.into_iter().find(|channel| begins(channel.name().as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn told(pieces: &[&[u8]]) -> Vec<Option<Channel>> {
        let (seen, mut lines) = (Mutex::new(Vec::new()), Lines::default());
        pieces.iter().for_each(|piece| lines.push(piece, &|channel| seen.lock().unwrap().push(channel)));
        seen.into_inner().unwrap()
    }

    #[test]
    fn events_are_told_by_their_names_however_they_are_cut() {
        let stream = b": hello\n\nid: 1\nevent: email\ndata: {}\n\nevent: sms\r\ndata: x\r\n\r\nevent:email_trusted\n\n";
        let expected = [Some(Channel::Email), Some(Channel::Sms), Some(Channel::Email)];
        assert_eq!(told(&[stream]), expected);
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(told(&single), expected);
    }

    #[test]
    fn what_is_not_known_is_told_as_something_and_a_comment_is_nothing() {
        assert_eq!(told(&[b"event: voice\ndata: {}\n\ndata: {}\n\n: beat\n\n"]), [None, None]);
        let long = [b"event: email".as_slice(), &[b'x'; 5000], b"\n\n"].concat();
        assert_eq!(told(&[&long]), [None]);
    }
}
