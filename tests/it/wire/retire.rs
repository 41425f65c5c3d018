//! What a connection keeps: no headers of former calls, no value that went through it; and when it ends
//! so that its buffers are wiped.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use prost::Message;
use ravi_broker::client::{
    AgentClient, ClientError, ErrorReason, Events, Lease, LeaseEvent, OpenSession, RevokeTarget,
};
use ravi_broker::clock::{Clock, SystemClock};
use ravi_broker::pb;
use ravi_broker::sandbox::{Answer, Fault};
use ravi_broker::secret::Secret;

use super::Victim;
use super::frames::{
    ACK, DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE, frame, request,
};
use super::raw::{ACQUIRE, DESCRIBE, OPEN, framed};
use crate::support::{DEPLOY, Stack, bounded};

const SET: &str = "/ravi.broker.v1.VaultService/SetSecret";
const WATCH: &str = "/ravi.broker.v1.LeaseService/WatchLeases";
const HEALTH: &str = "/grpc.health.v1.Health/Watch";
const SECRETS: &str = "/api/secrets/";
/// SETTINGS_HEADER_TABLE_SIZE (RFC 9113, section 6.5.2).
const HEADER_TABLE_SIZE: u16 = 1;
/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW_SIZE: u16 = 4;
/// What the write buffer of a connection may take of a frame.
const COPIED: usize = 256;
const NO_ERROR: u32 = 0;
/// Within this after a lock or a revocation no byte of a value leaves any more.
const MARK: Duration = Duration::from_millis(50);
/// More than a second, and less than the 15 that a connection without a call is kept.
const SOON: Duration = Duration::from_secs(12);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it did not happen before the connection was idle")
}

/// A connection whose client goes on by the rules, and sends a session's token with each call.
struct Caller {
    connection: Frames,
    bearer: String,
    next_stream: u32,
}

impl Caller {
    async fn connect(stack: &Stack, role: &str) -> Self {
        let client = stack.stranger().await;
        let (_, token) = client.open_session(OpenSession::role(role)).await.unwrap();
        let mut connection = Frames::open(&stack.setup.agent_socket).await;
        connection.until(SETTINGS).await.expect("the daemon's settings");
        assert!(connection.send(&frame(SETTINGS, ACK, 0, &[])).await);
        Self { connection, bearer: format!("Bearer {}", token.expose()), next_stream: 1 }
    }

    /// Sends a call and returns its stream.
    async fn call(&mut self, path: &str, message: &impl Message) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut call = request(stream, 0, path, &[("authorization", &self.bearer)]);
        call.extend(frame(DATA, END_STREAM, stream, &framed(&message.encode_to_vec())));
        assert!(self.connection.send(&call).await, "the connection is gone");
        stream
    }

    /// The next frame that is neither SETTINGS nor a window. Pings are answered.
    async fn receive(&mut self) -> Option<Frame> {
        loop {
            let frame = self.connection.receive().await?;
            match frame.kind {
                PING if frame.flags & ACK == 0 => {
                    let pong = super::frames::frame(PING, ACK, 0, &frame.payload);
                    // The daemon may be gone as soon as it has sent its last.
                    self.connection.send(&pong).await;
                }
                DATA | HEADERS | GOAWAY => return Some(frame),
                _ => {}
            }
        }
    }

    /// Reads to the end of a stream. Returns the payload of each DATA frame, and whether a GOAWAY came
    /// before the end.
    async fn answer(&mut self, stream: u32) -> (Vec<Vec<u8>>, bool) {
        let (mut data, mut goodbye) = (Vec::new(), false);
        loop {
            let frame = self.receive().await.expect("the answer");
            goodbye |= frame.kind == GOAWAY;
            if frame.kind == DATA && frame.stream == stream {
                data.push(frame.payload);
            }
            if frame.kind != GOAWAY && frame.stream == stream && frame.flags & END_STREAM != 0 {
                return (data, goodbye);
            }
        }
    }

    /// The daemon says good-bye without blame, and then closes: long before it does so by itself.
    async fn is_retired(&mut self) {
        soon(self.read_goodbye()).await;
    }

    async fn read_goodbye(&mut self) {
        let first = self.receive().await.expect("a good-bye");
        assert_eq!((first.kind, first.error()), (GOAWAY, NO_ERROR));
        while let Some(frame) = self.receive().await {
            assert_eq!((frame.kind, frame.error()), (GOAWAY, NO_ERROR));
        }
    }
}

fn set(value: &str) -> pb::SetSecretRequest {
    pb::SetSecretRequest { key: "WRITTEN".to_owned(), value: value.to_owned(), ..Default::default() }
}

fn acquire(resource: &str) -> pb::AcquireLeaseRequest {
    pb::AcquireLeaseRequest { resource: resource.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_headers_of_a_call_are_kept_for_the_next() {
    let victim = Victim::start().await;
    for socket in [&victim.stack.setup.agent_socket, &victim.stack.setup.admin_socket] {
        let mut connection = Frames::open(socket).await;
        let settings = connection.until(SETTINGS).await.expect("the daemon's settings");
        let announced = settings.payload.chunks(6).find_map(|setting| {
            let (name, value) = setting.split_at(2);
            let is_it = u16::from_be_bytes(name.try_into().unwrap()) == HEADER_TABLE_SIZE;
            is_it.then(|| u32::from_be_bytes(value.try_into().unwrap()))
        });
        assert_eq!(announced, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_carried_a_value_in_is_retired_once_it_is_quiet() {
    let victim = Victim::start().await;
    // Also one that is refused, or cannot be read.
    for message in [set("a written value"), set(""), pb::SetSecretRequest::default()] {
        let mut caller = Caller::connect(&victim.stack, "deploy").await;
        let stream = caller.call(SET, &message).await;
        assert!(!caller.answer(stream).await.1, "a good-bye before the answer");
        caller.is_retired().await;
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_carried_no_value_in_is_kept() {
    let victim = Victim::start().await;
    let (mut written, mut other) =
        (Caller::connect(&victim.stack, "deploy").await, Caller::connect(&victim.stack, "deploy").await);
    let stream = other.call(DESCRIBE, &pb::DescribeSessionRequest {}).await;
    other.answer(stream).await;
    let stream = written.call(SET, &set("a written value")).await;
    written.answer(stream).await;
    written.is_retired().await;
    let stream = other.call(DESCRIBE, &pb::DescribeSessionRequest {}).await;
    assert!(!other.answer(stream).await.1, "a connection without a value is retired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_on_a_connection_to_be_retired_still_gets_its_answer() {
    let victim = Victim::start().await;
    let control = victim.stack.control();
    control.set_secret(DEPLOY, "HELD", Secret::copy_of("held")).unwrap();
    let mut caller = Caller::connect(&victim.stack, "deploy").await;
    control.add_fault(Fault::new(SECRETS, Answer::Held)).unwrap();
    let before = control.requests("GET", SECRETS);
    let held = caller.call(ACQUIRE, &acquire("secret/HELD")).await;
    bounded(control.reached("GET", SECRETS, before + 1)).await;
    // Refused at once, and so answered before the one that waits.
    let refused = caller.call(SET, &set("")).await;
    caller.answer(refused).await;
    control.release();
    let (data, _) = caller.answer(held).await;
    let answer = pb::AcquireLeaseResponse::decode(&data.concat()[5..]).unwrap();
    assert_eq!(answer.credential.unwrap().value, "held");
    caller.is_retired().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_retires_every_connection_of_agents_and_none_of_the_operator() {
    let victim = Victim::start().await;
    let (mut idle, mut watching) =
        (Caller::connect(&victim.stack, "notes").await, Caller::connect(&victim.stack, "notes").await);
    let stream = watching.call(WATCH, &pb::WatchLeasesRequest {}).await;
    assert_eq!(watching.receive().await.expect("the answer begins").kind, HEADERS);
    let admin = victim.stack.admin().await;
    admin.lock("").await.unwrap();
    idle.is_retired().await;
    // The stream still says how it ended.
    watching.answer(stream).await;
    while watching.receive().await.is_some() {}
    // The operator's connection is served on, and whoever comes now is told.
    assert!(admin.status().await.unwrap().locked);
    let late = victim.stack.stranger().await.open_session(OpenSession::role("notes")).await;
    assert_eq!(late.err().unwrap().reason(), Some(ErrorReason::BrokerLocked));
    admin.unlock().await.unwrap();
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_a_second_after_a_lock_is_closed_hard() {
    let victim = Victim::start().await;
    let mut deaf = Frames::open(&victim.stack.setup.agent_socket).await;
    deaf.until(SETTINGS).await.expect("the daemon's settings");
    // A call whose message never comes, of a client that answers no ping.
    assert!(deaf.send(&request(1, 0, OPEN, &[])).await);
    victim.stack.admin().await.lock("").await.unwrap();
    // Its unanswered pings would end it too, but only after 50 s.
    let ended = async {
        assert_eq!(deaf.until(GOAWAY).await.expect("a good-bye").error(), NO_ERROR);
        assert!(deaf.until(GOAWAY).await.is_none(), "it is not closed");
    };
    bounded(ended).await;
}

/// It would stay in the daemon's memory, and could be taken even after the session was revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_take_its_answer_loses_its_connection_although_it_goes_on_calling() {
    let victim = Victim::start().await;
    victim.stack.control().set_secret(DEPLOY, "LEFT", Secret::copy_of("left")).unwrap();
    let mut caller = Caller::connect(&victim.stack, "deploy").await;
    // Streams without a window, from now on.
    let no_window: Vec<u8> = INITIAL_WINDOW_SIZE.to_be_bytes().into_iter().chain([0; 4]).collect();
    assert!(caller.connection.send(&frame(SETTINGS, 0, 0, &no_window)).await);
    caller.call(ACQUIRE, &acquire("secret/LEFT")).await;
    let cut_off = async {
        // An answer without a message, so that the connection is never idle.
        loop {
            let stream = caller.next_stream;
            caller.next_stream += 2;
            let call = request(stream, END_STREAM, DESCRIBE, &[]);
            if !caller.connection.send(&call).await {
                break;
            }
            while let Some(frame) = caller.receive().await {
                if frame.stream == stream && frame.flags & END_STREAM != 0 {
                    break;
                }
            }
        }
    };
    bounded(cut_off).await;
    victim.is_unharmed().await;
}

/// What the daemon still held of an answer when the mark came stays there, whatever window its client opens then.
#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_an_answer_leaves_once_its_session_is_over() {
    for locks in [true, false] {
        let victim = Victim::start().await;
        let value = "left behind ".repeat(600);
        victim.stack.control().set_secret(DEPLOY, "LEFT", Secret::new(value)).unwrap();
        let mut caller = Caller::connect(&victim.stack, "deploy").await;
        let narrow = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &16_u32.to_be_bytes()].concat();
        assert!(caller.connection.send(&frame(SETTINGS, 0, 0, &narrow)).await);
        let stream = caller.call(ACQUIRE, &acquire("secret/LEFT")).await;
        while caller.receive().await.expect("the answer begins").kind != DATA {}
        let admin = victim.stack.admin().await;
        match locks {
            true => drop(admin.lock("").await.unwrap()),
            false => drop(admin.revoke(RevokeTarget::All, "").await.unwrap()),
        }
        SystemClock.sleep_until(SystemClock.now() + MARK).await;
        caller.connection.send(&frame(WINDOW_UPDATE, 0, stream, &65_536_u32.to_be_bytes())).await;
        while let Some(frame) = caller.connection.receive().await {
            assert_ne!(frame.kind, DATA, "{} bytes came after the mark, locks: {locks}", frame.payload.len());
        }
        if locks {
            admin.unlock().await.unwrap();
        }
        victim.is_unharmed().await;
    }
}

/// A stream that nobody can tell to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_carried_a_value_in_is_retired_over_a_health_check_that_lasts() {
    let victim = Victim::start().await;
    let mut caller = Caller::connect(&victim.stack, "deploy").await;
    let _lasts = caller.call(HEALTH, &pb::DescribeSessionRequest {}).await;
    assert_eq!(caller.receive().await.expect("the answer begins").kind, HEADERS);
    let stream = caller.call(SET, &set("a written value")).await;
    caller.answer(stream).await;
    caller.is_retired().await;
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_over_a_retired_connection() {
    let victim = Victim::start().await;
    let agent = victim.stack.agent("deploy").await;
    let admin = victim.stack.admin().await;
    agent.set_secret("WRITTEN", &Secret::copy_of("a written value"), "").await.unwrap();
    soon(async { while admin.status().await.unwrap().connections > 0 {} }).await;
    let (_, credential) = agent.acquire("secret/WRITTEN", None, "").await.unwrap();
    assert_eq!(credential.value.expose(), "a written value");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_on_a_connection_that_carried_a_value_in_ends_and_says_why_and_no_other_watch_does() {
    let victim = Victim::start().await;
    let stack = &victim.stack;
    stack.control().set_secret(DEPLOY, "WRITTEN", Secret::copy_of("the first value")).unwrap();
    let (writer, reader) = (stack.agent("deploy").await, stack.agent("deploy").await);
    let (written, mut retired) = watch(&writer).await;
    let (read, mut kept) = watch(&reader).await;
    writer.set_secret("WRITTEN", &Secret::copy_of("the second value"), "").await.unwrap();

    is_told_of_a_change(&mut retired, &written).await;
    let last = soon(retired.next()).await.expect("a reason");
    let Err(ClientError::Broker(error)) = last else { panic!("no error of the broker") };
    assert_eq!(error.reason, ErrorReason::ConnectionRetired);
    assert!(bounded(retired.next()).await.is_none());
    is_told_of_a_change(&mut kept, &read).await;
    let admin = stack.admin().await;
    soon(async { while admin.status().await.unwrap().connections > 1 {} }).await;

    // The session goes on over another connection; so does the watch on which nothing was carried.
    let mut again = writer.watch_leases().await.unwrap();
    let third = stack.agent("deploy").await;
    third.set_secret("WRITTEN", &Secret::copy_of("the third value"), "").await.unwrap();
    is_told_of_a_change(&mut again, &written).await;
    is_told_of_a_change(&mut kept, &read).await;
}

/// A lease of the value, and a watch on the same connection.
async fn watch(agent: &AgentClient) -> (Lease, Events<LeaseEvent>) {
    let (lease, _) = agent.acquire("secret/WRITTEN", None, "").await.unwrap();
    (lease, agent.watch_leases().await.unwrap())
}

async fn is_told_of_a_change(events: &mut Events<LeaseEvent>, lease: &Lease) {
    let event = bounded(events.next()).await.expect("the stream goes on").expect("an event");
    let LeaseEvent::Rotated(changed) = event else { panic!("another event") };
    assert_eq!(changed.lease_id, lease.lease_id);
}

/// The first bytes of a frame can stay in the daemon's write buffer, so they must be padding.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_any_length_stands_behind_the_part_of_its_frame_that_is_copied() {
    let victim = Victim::start().await;
    let control = victim.stack.control();
    for (number, length) in [1, 9, 255, 4096].into_iter().enumerate() {
        let (key, value) = (format!("LONG_{number}"), "~".repeat(length));
        control.set_secret(DEPLOY, &key, Secret::copy_of(&value)).unwrap();
        let mut caller = Caller::connect(&victim.stack, "deploy").await;
        let stream = caller.call(ACQUIRE, &acquire(&format!("secret/{key}"))).await;
        let (data, _) = caller.answer(stream).await;
        assert_eq!(data.len(), 1, "one frame");
        // A secret has no user name, so the value is the last of its message.
        assert!(data[0].ends_with(value.as_bytes()));
        let at = data[0].len() - length;
        assert!(at >= COPIED, "the value begins at byte {at} of the frame");
        let answer = pb::AcquireLeaseResponse::decode(&data[0][5..]).unwrap();
        let padding = answer.lease.unwrap().padding;
        assert_eq!((padding.len() + length) % COPIED, 0, "the exact length shows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_stands_behind_the_part_of_its_frame_that_is_copied() {
    let victim = Victim::start().await;
    let mut caller = Caller::connect(&victim.stack, "notes").await;
    let open = pb::OpenSessionRequest { role: "notes".to_owned(), ..Default::default() };
    let stream = caller.call(OPEN, &open).await;
    let (data, _) = caller.answer(stream).await;
    let at = data[0].windows(4).position(|bytes| bytes == b"rbt_").expect("the token");
    assert!(at >= COPIED, "the token begins at byte {at} of the frame");
    // Not only because the session's own description is long.
    assert!(pb::OpenSessionResponse::decode(&data[0][5..]).unwrap().session.unwrap().padding.len() >= COPIED);
}

/// Every frame but the first has its head copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_carried_a_value_out_in_many_frames_is_retired() {
    let victim = Victim::start().await;
    let value = "~".repeat(40 * 1024);
    victim.stack.control().set_secret(DEPLOY, "LARGE", Secret::copy_of(&value)).unwrap();
    let mut caller = Caller::connect(&victim.stack, "deploy").await;
    let stream = caller.call(ACQUIRE, &acquire("secret/LARGE")).await;
    let (data, _) = caller.answer(stream).await;
    assert!(data.len() > 1 && data.concat().len() > value.len());
    caller.is_retired().await;
}
