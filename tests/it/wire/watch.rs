//! Streams of events whose reader is slow or whose session ends.

use futures_util::future::join_all;
use futures_util::stream::StreamExt;
use prost::Message;
use ravi_broker::client::{ClientError, ErrorReason, OpenSession};
use ravi_broker::pb::WatchLeasesResponse;
use ravi_broker::pb::watch_leases_response::Kind;
use ravi_broker::secret::Secret;

use super::Victim;
use super::frames::{ACK, DATA, END_STREAM, Frames, HEADERS, SETTINGS, WINDOW_UPDATE, frame, request};
use super::raw::framed;
use crate::support::{Stack, bounded};

const WATCH: &str = "/ravi.broker.v1.LeaseService/WatchLeases";
const LEASES: usize = 2_000;
const CHANGES: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_ten_thousand_events_is_told_that_it_missed_some() {
    let victim = Victim::start().await;
    let client = victim.stack.stranger().await;
    let (session, token) = client.open_session(OpenSession::role("deploy")).await.unwrap();
    let mut watcher = watch(&victim.stack, token.expose()).await;
    let agent = client.with_token(token);
    let value = |number: usize| Secret::copy_of(&format!("value {number}"));
    agent.set_secret("MANY", &value(0), "").await.unwrap();
    for _ in 0..LEASES / 50 {
        let leases = join_all((0..50).map(|_| agent.acquire("secret/MANY", None, ""))).await;
        assert!(leases.iter().all(Result::is_ok));
    }
    for change in 1..=CHANGES {
        agent.set_secret("MANY", &value(change), "").await.unwrap();
    }
    victim.is_unharmed().await;

    let mut seen = 0;
    let mut events = Events::default();
    while events.next(&mut watcher).await != Kind::Missed {
        seen += 1;
        assert!(seen < LEASES * CHANGES, "nothing was dropped");
    }
    // The stream goes on after the gap, to its end.
    let admin = victim.stack.admin().await;
    admin.revoke(ravi_broker::client::RevokeTarget::Session(session.session_id), "").await.unwrap();
    while !events.ended(&mut watcher).await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_session_and_says_why() {
    let victim = Victim::start().await;
    let client = victim.stack.stranger().await;
    let (session, token) = client.open_session(OpenSession::role("notes")).await.unwrap();
    let agent = client.with_token(token);
    let mut events = agent.watch_leases().await.unwrap();
    let admin = victim.stack.admin().await;
    admin.revoke(ravi_broker::client::RevokeTarget::Session(session.session_id), "").await.unwrap();
    let last = bounded(events.next()).await.expect("an error");
    let Err(ClientError::Broker(error)) = last else { panic!("no error of the broker") };
    assert_eq!(error.reason, ErrorReason::SessionRevoked);
    assert!(bounded(events.next()).await.is_none());
}

/// A watch whose answer has begun, and of which nothing more is read.
async fn watch(stack: &Stack, token: &str) -> Frames {
    let mut connection = Frames::open(&stack.setup.agent_socket).await;
    connection.until(SETTINGS).await.expect("the daemon's settings");
    let bearer = format!("Bearer {token}");
    let mut call = frame(SETTINGS, ACK, 0, &[]);
    call.extend(request(1, 0, WATCH, &[("authorization", &bearer)]));
    call.extend(frame(DATA, END_STREAM, 1, &framed(b"")));
    assert!(connection.send(&call).await);
    connection.until(HEADERS).await.expect("the answer begins");
    connection
}

/// Messages, cut out of the frames they came in.
#[derive(Default)]
struct Events(Vec<u8>);

impl Events {
    async fn next(&mut self, connection: &mut Frames) -> Kind {
        loop {
            if let Some(kind) = self.cut() {
                return kind;
            }
            assert!(!self.read(connection).await, "the stream has ended");
        }
    }

    /// Reads one more frame. True: the stream is over.
    async fn ended(&mut self, connection: &mut Frames) -> bool {
        self.0.clear();
        self.read(connection).await
    }

    async fn read(&mut self, connection: &mut Frames) -> bool {
        let frame = connection.receive().await.expect("the connection stays");
        if frame.kind == DATA {
            self.0.extend_from_slice(&frame.payload);
            let room = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
            if !frame.payload.is_empty() {
                let windows = [0, 1].map(|stream| super::frames::frame(WINDOW_UPDATE, 0, stream, &room));
                connection.send(&windows.concat()).await;
            }
        }
        frame.stream == 1 && frame.flags & END_STREAM != 0
    }

    fn cut(&mut self) -> Option<Kind> {
        let length = u32::from_be_bytes(self.0.get(1..5)?.try_into().unwrap()) as usize;
        let message = WatchLeasesResponse::decode(self.0.get(5..5 + length)?).unwrap();
        self.0.drain(..5 + length);
        Some(message.kind())
    }
}
