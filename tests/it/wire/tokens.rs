//! The token in other forms than the one that the API has.

use http::{HeaderValue, StatusCode};
use ravi_broker::client::OpenSession;
use tonic::Code;

use super::raw::{DESCRIBE, Wire, framed, full, post};
use super::{Victim, raw::Answer};

/// DescribeSession with these `authorization` headers.
async fn present(wire: &Wire, headers: &[&[u8]]) -> Answer {
    let mut request = post(DESCRIBE, full(framed(b"")));
    for header in headers {
        request.headers_mut().append("authorization", HeaderValue::from_bytes(header).unwrap());
    }
    wire.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_one_form_of_a_token_opens() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    let client = victim.stack.stranger().await;
    let (_, token) = client.open_session(OpenSession::role("notes")).await.unwrap();
    let token = token.expose();
    let said = |text: &str| text.replace("TOKEN", token).into_bytes();

    let (good, bare) = (said("Bearer TOKEN"), said("TOKEN"));
    assert_eq!(present(&wire, &[&good]).await.status.unwrap().code(), Code::Ok);

    for required in [
        &[][..],
        &[b"".as_slice()],
        &[&bare],
        &[&said("bearer TOKEN")],
        &[&said("BEARER TOKEN")],
        &[&said("BearerTOKEN")],
        &[&said("Bearer\tTOKEN")],
        &[&said("Basic TOKEN")],
        &[&said("Bearer \u{e9}TOKEN")],
        &[b"Bearer \xff\xfe\x80".as_slice()],
        // Which of two headers counts is not guessed, whatever they say.
        &[&good, &good],
        &[&good, b"Bearer x".as_slice()],
        &[b"Bearer x".as_slice(), &good],
    ] {
        let answer = present(&wire, required).await;
        answer.assert_refused(Code::Unauthenticated, "SESSION_REQUIRED");
    }

    let flipped = {
        let mut bytes = good.clone();
        let last = bytes.last_mut().unwrap();
        *last = if *last == b'A' { b'B' } else { b'A' };
        bytes
    };
    for invalid in [
        b"Bearer ".to_vec(),
        said("Bearer  TOKEN"),
        said("Bearer TOKEN,TOKEN"),
        said("Bearer TOKENA"),
        said("Bearer TOKEN="),
        said("Bearer RBT_TOKEN"),
        flipped,
        good[..good.len() - 1].to_vec(),
        [b"Bearer rbt_".as_slice(), &[b'A'; 64]].concat(),
        [b"Bearer ".as_slice(), &[b'x'; 4096]].concat(),
    ] {
        let answer = present(&wire, &[&invalid]).await;
        answer.assert_refused(Code::Unauthenticated, "SESSION_INVALID");
    }

    let huge = [b"Bearer ".as_slice(), &[b'x'; 10 * 1024]].concat();
    assert_eq!(present(&wire, &[&huge]).await.http, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_token_gets_the_same_answer() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    let client = victim.stack.stranger().await;
    let (_, token) = client.open_session(OpenSession::role("notes")).await.unwrap();
    let good = format!("Bearer {}", token.expose());
    // Same session, other random part; another session; not a token at all.
    let forged = format!("{}{}", &good[..good.len() - 20], "A".repeat(20));
    let unknown = format!("Bearer rbt_{}", "A".repeat(64));
    let said =
        |answer: Answer| answer.status.map(|status| (status.message().to_owned(), status.details().to_vec()));
    let first = said(present(&wire, &[forged.as_bytes()]).await);
    assert!(first.is_some());
    assert_eq!(said(present(&wire, &[unknown.as_bytes()]).await), first);
    assert_eq!(said(present(&wire, &[b"Bearer garbage"]).await), first);
}
