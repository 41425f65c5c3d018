//! The event stream, §4 of the contract sheet.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use ravi_broker::clock::Clock;
use ravi_broker::sandbox::seed::{DEPLOY_AGENT, NOTES_AGENT};
use ravi_broker::sandbox::{NewMail, NewSms};

use super::{Bench, StillClock, with_clock};

const STREAM: &str = "/api/events/stream/";

async fn open(bench: &Bench, last_id: Option<&str>) -> Response<Incoming> {
    let mut request = bench.http.request(Method::GET, STREAM, Some(&bench.notes), None);
    if let Some(id) = last_id {
        request.headers_mut().insert("last-event-id", id.parse().unwrap());
    }
    bench.http.client.request(request).await.unwrap()
}

/// The next piece of the stream; `None` at its end.
async fn next(stream: &mut Response<Incoming>) -> Option<String> {
    let frame = stream.body_mut().frame().await?;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
}

fn deliver_mail(bench: &Bench, identity: &str) {
    let (identity, from) = (identity.to_owned(), "a@example.org".to_owned());
    bench.control.deliver_mail(NewMail { identity, from, ..NewMail::default() }).unwrap();
}

fn deliver_sms(bench: &Bench, identity: &str) {
    let (identity, from) = (identity.to_owned(), "+12025550199".to_owned());
    bench.control.deliver_sms(NewSms { identity, from, ..NewSms::default() }).unwrap();
}

async fn streaming() -> Bench {
    let bench = Bench::start().await;
    bench.switch(|behaviour| behaviour.events = true);
    bench
}

#[tokio::test]
async fn there_is_no_stream_unless_switched_on() {
    let bench = Bench::start().await;
    assert_eq!(bench.get(STREAM).await.status, 404);
    bench.switch(|behaviour| behaviour.events = true);
    assert_eq!(bench.call("GET", STREAM, "", None).await.status, 401);
    let mut stream = open(&bench, None).await;
    assert_eq!(
        (stream.status().as_u16(), &stream.headers()[CONTENT_TYPE]),
        (200, &"text/event-stream".parse().unwrap())
    );
    assert_eq!(next(&mut stream).await.unwrap(), ": open\n\n");
    bench.switch(|behaviour| behaviour.events = false);
    assert_eq!(next(&mut stream).await, None, "switched off, it ends");
}

#[tokio::test]
async fn what_arrives_for_the_identity_is_told_by_its_kind() {
    let bench = streaming().await;
    let mut stream = open(&bench, None).await;
    next(&mut stream).await;
    deliver_mail(&bench, NOTES_AGENT.name);
    assert_eq!(next(&mut stream).await.unwrap(), "id: 1\nevent: email\ndata: {}\n\n");
    deliver_mail(&bench, DEPLOY_AGENT.name);
    deliver_sms(&bench, NOTES_AGENT.name);
    assert_eq!(
        next(&mut stream).await.unwrap(),
        "id: 3\nevent: sms\ndata: {}\n\n",
        "not the other identity's"
    );
}

#[tokio::test]
async fn a_reconnect_gets_what_it_missed() {
    let bench = streaming().await;
    deliver_mail(&bench, NOTES_AGENT.name);
    deliver_sms(&bench, NOTES_AGENT.name);
    let mut stream = open(&bench, Some("1")).await;
    next(&mut stream).await;
    assert_eq!(next(&mut stream).await.unwrap(), "id: 2\nevent: sms\ndata: {}\n\n");
    let mut fresh = open(&bench, None).await;
    next(&mut fresh).await;
    deliver_mail(&bench, NOTES_AGENT.name);
    assert!(next(&mut fresh).await.unwrap().starts_with("id: 3\n"), "without an id only what is new");
}

#[tokio::test]
async fn a_quiet_stream_sends_heartbeats() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    bench.switch(|behaviour| behaviour.events = true);
    let mut stream = open(&bench, None).await;
    next(&mut stream).await;
    // The deadline is set some moment after the first piece: move time until the heartbeat is there.
    let pass_time = async {
        loop {
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    let before = clock.now();
    let heard = tokio::select! { heard = next(&mut stream) => heard, () = pass_time => unreachable!() };
    assert_eq!(heard.unwrap(), ": heartbeat\n\n");
    assert!(clock.now().since(before) >= Duration::from_secs(15));
}

#[tokio::test]
async fn streams_are_bounded_and_their_places_come_back() {
    let bench = streaming().await;
    let mut open_ones = Vec::new();
    for _ in 0..32 {
        let mut stream = open(&bench, None).await;
        assert_eq!(stream.status().as_u16(), 200);
        next(&mut stream).await;
        open_ones.push(stream);
    }
    assert_eq!(open(&bench, None).await.status().as_u16(), 503);
    bench.switch(|behaviour| behaviour.events = false);
    for mut stream in open_ones {
        assert_eq!(next(&mut stream).await, None);
    }
    bench.switch(|behaviour| behaviour.events = true);
    assert_eq!(open(&bench, None).await.status().as_u16(), 200);
}
