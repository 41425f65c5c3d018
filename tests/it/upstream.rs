//! The upstream client against a rude server: real sockets, real TLS, every way an answer can be wrong.

#![cfg(feature = "sandbox")]

mod attaching;
mod messages;
mod sending;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use ravi_broker::clock::{BootInstant, Clock, Sleep};
use ravi_broker::secret::Secret;
use ravi_broker::types::{BaseUrl, EntryUuid, IdentityUuid, SecretKey};
use ravi_broker::upstream::{
    AnswerFault, Budget, DevicePoll, HttpUpstream, KeyId, Keys, NewPassword, OpenKey, Settings,
    SettingsError, Upstream, UpstreamError,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const MANAGEMENT_KEY: &str = "ravi_mgmt_canary-4f1d";
const IDENTITY_KEY: &str = "ravi_id_canary-77aa";
const CANARY: &str = "canary-9c2e";
const A: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const B: &str = "bbbbbbbb-0000-4000-8000-000000000002";
const ROW: &str = "cccccccc-0000-4000-8000-000000000003";
const OTHER_ROW: &str = "dddddddd-0000-4000-8000-000000000004";

type Outcome<T> = Result<T, UpstreamError>;

fn a() -> IdentityUuid {
    A.parse().unwrap()
}

fn b() -> IdentityUuid {
    B.parse().unwrap()
}

fn row() -> EntryUuid {
    ROW.parse().unwrap()
}

fn key() -> SecretKey {
    "API_KEY".parse().unwrap()
}

fn fault<T>(outcome: Outcome<T>) -> AnswerFault {
    match outcome {
        Err(UpstreamError::Answer(fault)) => fault,
        Err(other) => panic!("expected a discarded answer, got {other:?}"),
        Ok(_) => panic!("expected a discarded answer, got one"),
    }
}

// Which key goes where.

#[tokio::test]
async fn every_endpoint_gets_its_kind_of_key_and_names_its_identity() {
    for has_identity_key in [false, true] {
        let rude = Rude::start(vec![]).await;
        let keys = TestKeys { identity: has_identity_key.then_some(IDENTITY_KEY), ..TestKeys::default() };
        let ravi = Client::with(&rude, keys).ravi;
        let own = if has_identity_key { IDENTITY_KEY } else { MANAGEMENT_KEY };
        let secret = Secret::copy_of("x");
        let scoped = |method: &str, path: &str| (format!("{method} {path}?identity={A}"), Some(own));
        let managed = |start: String| (start, Some(MANAGEMENT_KEY));

        let _ = ravi.list_identities().await;
        rude.expect(managed("GET /api/identities/ ".into()));
        let _ = ravi.read_identity(a()).await;
        rude.expect(managed(format!("GET /api/identities/{A}/ ")));
        let _ = ravi.mint_identity_key(a(), "broker").await;
        rude.expect(managed("POST /api/auth/keys/identity/ ".into()));
        let _ = ravi.list_phones(a()).await;
        rude.expect(scoped("GET", "/api/phone/"));
        let _ = ravi.list_emails(a()).await;
        rude.expect(scoped("GET", "/api/email/"));
        let _ = ravi.read_owner(a()).await;
        rude.expect(("GET /api/master/ ".into(), Some(own)));
        let _ = ravi.list_passwords(a()).await;
        rude.expect(scoped("GET", "/api/passwords/"));
        let _ = ravi.read_password(a(), row()).await;
        rude.expect(scoped("GET", &format!("/api/passwords/{ROW}/")));
        let _ = ravi.create_password(a(), new_password("github.com")).await;
        rude.expect(scoped("POST", "/api/passwords/"));
        let _ = ravi.update_password(a(), row(), &secret).await;
        rude.expect(scoped("PATCH", &format!("/api/passwords/{ROW}/")));
        let _ = ravi.delete_password(a(), row()).await;
        rude.expect(scoped("DELETE", &format!("/api/passwords/{ROW}/")));
        let _ = ravi.generate_password(a(), 24).await;
        let (start, own_key) = scoped("GET", "/api/passwords/generate-password/");
        rude.expect((format!("{start}&length=24 "), own_key));
        let _ = ravi.list_secrets(a()).await;
        rude.expect(scoped("GET", "/api/secrets/"));
        let _ = ravi.find_secret(a(), &key()).await;
        let (start, own_key) = scoped("GET", "/api/secrets/");
        rude.expect((format!("{start}&key=API_KEY "), own_key));
        let _ = ravi.read_secret(a(), row()).await;
        rude.expect(scoped("GET", &format!("/api/secrets/{ROW}/")));
        let _ = ravi.create_secret(a(), &key(), &secret).await;
        rude.expect(scoped("POST", "/api/secrets/"));
        let _ = ravi.update_secret(a(), row(), &secret).await;
        rude.expect(scoped("PATCH", &format!("/api/secrets/{ROW}/")));
        let _ = ravi.delete_secret(a(), row()).await;
        rude.expect(scoped("DELETE", &format!("/api/secrets/{ROW}/")));
        let _ = ravi.start_device_login().await;
        rude.expect(("POST /api/auth/device/ ".into(), None));
        let _ = ravi.poll_device_login(&secret).await;
        rude.expect(("POST /api/auth/device/token/ ".into(), None));
        let sso = ravi.mint_sso_token(a()).await;
        if has_identity_key {
            rude.expect(("POST /api/sso/token/ ".into(), Some(IDENTITY_KEY)));
        } else {
            assert_eq!(sso.err(), Some(UpstreamError::NoKey));
        }
        assert_eq!(rude.seen(), 0, "every request was expected");
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_sent() {
    let rude = Rude::start(vec![]).await;
    let client = Client::with(&rude, TestKeys { management: None, ..TestKeys::default() });
    assert_eq!(client.ravi.list_identities().await.err(), Some(UpstreamError::NoKey));
    assert_eq!(client.ravi.find_secret(a(), &key()).await.err(), Some(UpstreamError::NoKey));
    assert_eq!((rude.seen(), client.ravi.calls()), (0, 0));
    assert!(client.budget.taken().is_empty());
}

#[tokio::test]
async fn a_rejected_key_is_reported_with_its_generation_and_not_tried_again() {
    let rude = Rude::start(vec![status(401), status(401)]).await;
    let client = Client::with(&rude, TestKeys { identity: Some(IDENTITY_KEY), ..TestKeys::default() });
    assert_eq!(client.ravi.list_secrets(a()).await.err(), Some(UpstreamError::KeyRejected));
    assert_eq!(client.ravi.list_identities().await.err(), Some(UpstreamError::KeyRejected));
    let rejected = vec![(KeyId::Identity(a()), 3), (KeyId::Management, 2)];
    assert_eq!(*client.keys.rejected.lock().unwrap(), rejected);
    assert_eq!(rude.seen(), 2);
}

#[tokio::test]
async fn a_401_to_a_call_without_a_key_rejects_none() {
    let rude = Rude::start(vec![status(401)]).await;
    let client = Client::new(&rude);
    assert_eq!(client.ravi.start_device_login().await.err(), Some(UpstreamError::Refused));
    assert!(client.keys.rejected.lock().unwrap().is_empty());
}

// What is sent.

#[tokio::test]
async fn bodies_are_as_documented() {
    let rude = Rude::start(vec![]).await;
    let ravi = Client::new(&rude).ravi;
    let value = Secret::copy_of("a\"b\\é");
    let _ = ravi.create_secret(a(), &key(), &value).await;
    assert_eq!(rude.take().body(), r#"{"key":"API_KEY","value":"a\"b\\é"}"#);
    let _ = ravi.update_secret(a(), row(), &value).await;
    assert_eq!(rude.take().body(), r#"{"value":"a\"b\\é"}"#);
    let _ = ravi.create_password(a(), new_password("github.com")).await;
    assert_eq!(rude.take().body(), r#"{"domain":"github.com","username":"alice","password":"hunter2"}"#);
    let _ = ravi.update_password(a(), row(), &value).await;
    assert_eq!(rude.take().body(), r#"{"password":"a\"b\\é"}"#);
    let _ = ravi.mint_identity_key(a(), "broker").await;
    assert_eq!(rude.take().body(), format!(r#"{{"identity_uuid":"{A}","label":"broker"}}"#));
    let _ = ravi.start_device_login().await;
    assert_eq!(rude.take().body(), "{}");
    let _ = ravi.poll_device_login(&Secret::copy_of("dev")).await;
    assert_eq!(rude.take().body(), r#"{"device_code":"dev","wait":false}"#);
}

#[tokio::test]
async fn every_request_carries_the_headers_of_the_contract() {
    let rude = Rude::start(vec![]).await;
    let _ = Client::new(&rude).ravi.list_identities().await;
    let request = rude.take();
    for header in ["accept: application/json", "content-type: application/json", "connection: close"] {
        assert!(request.has_header(header), "{header}");
    }
    assert!(request.has_header(&format!("host: 127.0.0.1:{}", rude.port)));
}

/// Some front ends refuse a write without a length, an empty one included.
#[tokio::test]
async fn a_write_without_a_body_says_that_it_has_none() {
    let rude = Rude::start(vec![]).await;
    let _ = Client::new(&rude).ravi.delete_password(a(), row()).await;
    assert!(rude.take().has_header("content-length: 0"));
}

#[tokio::test]
async fn a_value_that_could_not_be_read_back_is_never_sent() {
    let rude = Rude::start(vec![]).await;
    let ravi = Client::new(&rude).ravi;
    let legacy = Secret::copy_of("e2e::AAAA");
    assert_eq!(ravi.create_secret(a(), &key(), &legacy).await.err(), Some(UpstreamError::Invalid));
    assert_eq!(ravi.update_password(a(), row(), &legacy).await.err(), Some(UpstreamError::Invalid));
    assert_eq!(rude.seen(), 0);
}

// Whose answer it is.

#[tokio::test]
async fn a_good_answer_is_returned() {
    let rude = Rude::start(vec![
        json(200, &format!("[{}]", secret_row(ROW, 7, "API_KEY"))),
        json(200, "[]"),
        json(201, &password_row(ROW, 7, "github.com")),
        empty(204),
        json(200, r#"{"password":"0123456789abcdef"}"#),
        json(200, r#"{"first_name":"Ada","last_name":null}"#),
    ])
    .await;
    let ravi = Client::new(&rude).ravi;
    let found = ravi.find_secret(a(), &key()).await.unwrap().unwrap();
    assert_eq!((found.uuid, found.key, found.value.expose()), (row(), key(), CANARY));
    assert!(ravi.find_secret(a(), &key()).await.unwrap().is_none());
    let created = ravi.create_password(a(), new_password("login.github.com")).await.unwrap();
    assert_eq!((created.domain.as_str(), created.username.as_str()), ("github.com", "alice"));
    ravi.delete_password(a(), row()).await.unwrap();
    assert_eq!(ravi.generate_password(a(), 16).await.unwrap().expose(), "0123456789abcdef");
    let owner = ravi.read_owner(a()).await.unwrap();
    assert_eq!((owner.first_name.as_str(), owner.last_name.as_str()), ("Ada", ""));
    assert_eq!(ravi.calls(), 6);
}

#[tokio::test]
async fn another_identity_or_object_than_asked_for_is_dropped() {
    let rude = Rude::start(vec![
        json(200, &identity(B, None, None)),
        json(200, &password_row(OTHER_ROW, 7, "github.com")),
        json(200, &secret_row(OTHER_ROW, 7, "API_KEY")),
        json(200, &secret_row(OTHER_ROW, 7, "API_KEY")),
        json(201, &secret_row(ROW, 7, "ANOTHER_KEY")),
        json(201, &password_row(ROW, 7, "evil.example")),
        json(200, &format!(r#"{{"key":"ravi_id_x","identity_uuid":"{B}","label":"l"}}"#)),
        json(200, &format!("[{}]", secret_row(ROW, 7, "ANOTHER_KEY"))),
        json(200, &format!("[{},{}]", secret_row(ROW, 7, "API_KEY"), secret_row(OTHER_ROW, 7, "API_KEY"))),
    ])
    .await;
    let ravi = Client::new(&rude).ravi;
    let value = Secret::copy_of("x");
    assert_eq!(fault(ravi.read_identity(a()).await), AnswerFault::Foreign);
    assert_eq!(fault(ravi.read_password(a(), row()).await), AnswerFault::Foreign);
    assert_eq!(fault(ravi.read_secret(a(), row()).await), AnswerFault::Foreign);
    assert_eq!(fault(ravi.update_secret(a(), row(), &value).await), AnswerFault::Foreign);
    assert_eq!(fault(ravi.create_secret(a(), &key(), &value).await), AnswerFault::Foreign);
    assert_eq!(fault(ravi.create_password(a(), new_password("github.com")).await), AnswerFault::Foreign);
    assert_eq!(fault(ravi.mint_identity_key(a(), "l").await), AnswerFault::Foreign);
    assert_eq!(fault(ravi.find_secret(a(), &key()).await), AnswerFault::Foreign);
    assert_eq!(fault(ravi.find_secret(a(), &key()).await), AnswerFault::Foreign);
    assert_eq!(rude.left(), 0);
}

#[tokio::test]
async fn rows_of_another_identity_are_dropped_with_the_whole_answer() {
    let one = |number| json(200, &format!("[{}]", secret_row(ROW, number, "API_KEY")));
    let mixed = format!("[{},{}]", password_row(ROW, 7, "a.b"), password_row(OTHER_ROW, 8, "c.d"));
    let rude = Rude::start(vec![one(7), one(8), one(7), json(200, &mixed), one(8)]).await;
    let ravi = Client::new(&rude).ravi;
    assert!(ravi.list_secrets(a()).await.is_ok(), "the number is learned");
    assert_eq!(fault(ravi.list_secrets(a()).await), AnswerFault::Foreign, "another number");
    assert_eq!(fault(ravi.list_secrets(b()).await), AnswerFault::Foreign, "somebody else's number");
    assert_eq!(fault(ravi.list_passwords(a()).await), AnswerFault::Foreign, "rows disagree");
    assert!(ravi.list_secrets(b()).await.is_ok());
    rude.queue([json(200, &secret_row(ROW, 8, "API_KEY")), json(200, &password_row(ROW, 8, "a.b"))]);
    assert_eq!(fault(ravi.read_secret(a(), row()).await), AnswerFault::Foreign);
    assert_eq!(fault(ravi.read_password(a(), row()).await), AnswerFault::Foreign);
}

#[tokio::test]
async fn an_address_list_must_agree_with_the_identity() {
    let phones = r#"[{"id":1,"phone_number":"+15550100","provider":"twilio"}]"#;
    let emails = r#"[{"id":1,"email":"A@ravi.id"},{"id":2,"email":"b@ravi.id"}]"#;
    let rude = Rude::start(vec![
        json(200, phones),
        json(200, &identity(A, Some("a@ravi.id"), Some("+15550100"))),
        json(200, phones),
        json(200, emails),
        json(200, &identity(A, Some("a@ravi.id"), Some("+15550100"))),
        json(200, phones),
        json(200, &identity(B, Some("b@ravi.id"), None)),
        json(200, "[]"),
    ])
    .await;
    let ravi = Client::new(&rude).ravi;
    assert_eq!(ravi.list_phones(a()).await.unwrap(), ["+15550100"], "asks the identity once");
    assert_eq!(ravi.list_phones(a()).await.unwrap(), ["+15550100"], "and then knows");
    assert_eq!(fault(ravi.list_emails(a()).await), AnswerFault::Foreign, "the whole account's addresses");
    assert_eq!(fault(ravi.list_phones(b()).await), AnswerFault::Foreign, "somebody else's number");
    assert!(ravi.list_phones(b()).await.unwrap().is_empty());
    assert_eq!(rude.left(), 0);
}

#[tokio::test]
async fn a_value_of_the_retired_encryption_is_refused() {
    let legacy = |body: String| json(200, &body.replace(CANARY, "e2e::AAAA"));
    let rude = Rude::start(vec![
        legacy(secret_row(ROW, 7, "API_KEY")),
        legacy(format!("[{}]", password_row(ROW, 7, "a.b"))),
    ])
    .await;
    let ravi = Client::new(&rude).ravi;
    assert_eq!(fault(ravi.read_secret(a(), row()).await), AnswerFault::LegacyEncrypted);
    assert_eq!(fault(ravi.list_passwords(a()).await), AnswerFault::LegacyEncrypted);
}

#[tokio::test]
async fn a_minted_key_or_token_of_the_wrong_kind_is_refused() {
    let rude = Rude::start(vec![
        json(200, &format!(r#"{{"key":"ravi_mgmt_x","identity_uuid":"{A}","label":"l"}}"#)),
        json(201, &format!(r#"{{"key":"ravi_id_x","identity_uuid":"{A}","label":"l"}}"#)),
        json(201, r#"{"token":"jwt","expires_at":"2026-11-23T12:00:00Z"}"#),
        json(201, r#"{"token":"rvt_x","expires_at":"2026-11-23T12:00:00Z"}"#),
    ])
    .await;
    let ravi = Client::with(&rude, TestKeys { identity: Some(IDENTITY_KEY), ..TestKeys::default() }).ravi;
    assert_eq!(fault(ravi.mint_identity_key(a(), "l").await), AnswerFault::Malformed);
    assert_eq!(ravi.mint_identity_key(a(), "l").await.unwrap().expose(), "ravi_id_x");
    assert_eq!(fault(ravi.mint_sso_token(a()).await), AnswerFault::Malformed);
    assert_eq!(ravi.mint_sso_token(a()).await.unwrap().token.expose(), "rvt_x");
}

#[tokio::test]
async fn a_device_login_runs_to_its_end() {
    let started = r#"{"device_code":"dev","user_code":"AB-12","expires_in":900,"interval":5,
        "verification_uri":"https://api.ravi.app/api/auth/device/verify/"}"#;
    let refused = |code: &str| json(400, &format!(r#"{{"error":"{code}","error_description":"{CANARY}"}}"#));
    let approved = format!(
        r#"{{"management_key":"ravi_mgmt_x","identities":[{}],"user":{{"id":1}}}}"#,
        identity(A, None, None)
    );
    let rude = Rude::start(vec![
        json(200, started),
        refused("authorization_pending"),
        refused("slow_down"),
        refused("access_denied"),
        refused("expired_token"),
        refused("server_says_no"),
        status(400),
        json(200, &approved),
    ])
    .await;
    let ravi = Client::new(&rude).ravi;
    let login = ravi.start_device_login().await.unwrap();
    assert_eq!(login.verification_url, "https://ravi.id/device?user_code=AB-12");
    let poll = || ravi.poll_device_login(&login.device_code);
    assert!(matches!(poll().await, Ok(DevicePoll::Pending)));
    assert!(matches!(poll().await, Ok(DevicePoll::SlowDown)));
    assert!(matches!(poll().await, Ok(DevicePoll::Denied)));
    assert!(matches!(poll().await, Ok(DevicePoll::Expired)));
    assert!(matches!(poll().await, Err(UpstreamError::Invalid)));
    assert!(matches!(poll().await, Err(UpstreamError::Invalid)), "a 400 that is not JSON");
    let Ok(DevicePoll::Approved { management_key, identities }) = poll().await else { panic!("approved") };
    assert_eq!((management_key.expose(), identities[0].uuid), ("ravi_mgmt_x", a()));
}

// Answers that are not answers.

#[tokio::test]
async fn an_answer_in_another_form_is_malformed_and_not_asked_for_again() {
    let html = format!("<html>{CANARY}</html>");
    let answers = [
        with_type(200, "text/html", &html),
        with_type(200, "text/html", "[]"),
        with_type(200, "text/html", &"x".repeat(2 * 1024 * 1024)),
        with_type(200, "application/jsonp", "[]"),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
        json(200, &html),
        json(200, ""),
        json(200, "[}"),
        json(200, "null"),
        json(200, "[] []"),
        json(200, "{}"),
        json(200, &"[".repeat(5000)),
        json(200, r#"[{"uuid":"x"}]"#),
        raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n[]"),
        empty(204),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        let rude = Rude::start(vec![answer]).await;
        let outcome = Client::new(&rude).ravi.list_secrets(a()).await;
        assert_eq!((fault(outcome), rude.seen()), (AnswerFault::Malformed, 1), "answer {n}");
    }
}

#[tokio::test]
async fn an_answer_over_the_cap_is_dropped_however_it_is_declared() {
    let two_mib = "x".repeat(2 * 1024 * 1024);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let answers = [
        raw(&format!("{head}Content-Length: {}\r\n\r\n", u64::MAX / 2)),
        raw(&format!("{head}Content-Length: 1048577\r\n\r\n")),
        raw(&format!("{head}Content-Length: {}\r\n\r\n{two_mib}", two_mib.len())),
        raw(&format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{two_mib}\r\n0\r\n\r\n",
            two_mib.len()
        )),
        raw(&format!("{head}\r\n{two_mib}")),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        let rude = Rude::start(vec![answer]).await;
        let outcome = Client::new(&rude).ravi.list_secrets(a()).await;
        assert_eq!((fault(outcome), rude.seen()), (AnswerFault::TooLarge, 1), "answer {n}");
    }
}

#[tokio::test]
async fn an_answer_just_under_the_cap_is_read() {
    let value = "v".repeat(1024 * 1024 - 300);
    let rows = format!("[{}]", secret_row(ROW, 7, "API_KEY").replace(CANARY, &value));
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{rows}\r\n0\r\n\r\n",
        rows.len()
    );
    let rude = Rude::start(vec![json(200, &rows), raw(&chunked)]).await;
    let ravi = Client::new(&rude).ravi;
    for _ in 0..2 {
        assert_eq!(ravi.list_secrets(a()).await.unwrap()[0].value.len(), value.len());
    }
}

#[tokio::test]
async fn a_head_without_end_is_dropped() {
    let endless = format!("HTTP/1.1 200 OK\r\nX-Filler: {}", "x".repeat(1024 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Filler: x\r\n".repeat(1000));
    for head in [endless, many] {
        let rude = Rude::start(vec![raw(&head), raw(&head), raw(&head)]).await;
        let outcome = Client::new(&rude).ravi.list_secrets(a()).await;
        assert_eq!((outcome.err(), rude.seen()), (Some(UpstreamError::Unavailable), 3));
    }
}

#[tokio::test]
async fn no_redirect_is_followed_and_the_bearer_stays_at_its_origin() {
    let elsewhere = Rude::start(vec![]).await;
    for code in [301, 302, 303, 307, 308] {
        let redirect = |origin: String| {
            raw(&format!("HTTP/1.1 {code} X\r\nLocation: {origin}/api/secrets/\r\nContent-Length: 0\r\n\r\n"))
        };
        let rude = Rude::start(vec![]).await;
        rude.queue([redirect(elsewhere.origin()), redirect(rude.origin()), redirect(elsewhere.origin())]);
        let ravi = Client::new(&rude).ravi;
        assert_eq!(fault(ravi.list_secrets(a()).await), AnswerFault::Redirect);
        assert_eq!(fault(ravi.list_secrets(a()).await), AnswerFault::Redirect);
        assert_eq!(
            fault(ravi.create_secret(a(), &key(), &Secret::copy_of("x")).await),
            AnswerFault::Redirect
        );
        assert_eq!(rude.seen(), 3);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn every_status_has_its_meaning_and_its_text_is_dropped() {
    let expected = [
        (400, UpstreamError::Invalid),
        (402, UpstreamError::PlanRequired),
        (403, UpstreamError::Refused),
        (404, UpstreamError::NotFound),
        (405, UpstreamError::Invalid),
        (409, UpstreamError::Conflict),
        (418, UpstreamError::Invalid),
        (500, UpstreamError::Unavailable),
    ];
    for (code, error) in expected {
        let rude = Rude::start(vec![json(code, &format!(r#"{{"detail":"{CANARY}"}}"#))]).await;
        let outcome = Client::new(&rude).ravi.read_secret(a(), row()).await;
        let found = outcome.err().unwrap();
        assert_eq!((&found, rude.seen()), (&error, 1), "{code}");
        assert!(!format!("{found} {found:?}").contains(CANARY));
    }
}

#[tokio::test]
async fn a_404_for_a_collection_means_the_wrong_host() {
    let rude = Rude::start(vec![status(404), status(404)]).await;
    let ravi = Client::new(&rude).ravi;
    assert_eq!(ravi.find_secret(a(), &key()).await.err(), Some(UpstreamError::Unavailable));
    assert_eq!(ravi.start_device_login().await.err(), Some(UpstreamError::Unavailable));
    assert_eq!(rude.seen(), 2);
}

// Pages.

#[tokio::test]
async fn pages_are_followed_with_our_own_identity() {
    let page = |next: &str, uuid: &str| {
        json(200, &format!(r#"{{"next":"{next}","results":[{}]}}"#, secret_row(uuid, 7, "API_KEY")))
    };
    let rude = Rude::start(vec![]).await;
    let next = format!("{}/api/secrets/?identity={B}&offset=1", rude.origin());
    rude.queue([page(&next, ROW), page("", OTHER_ROW)]);
    let rows = Client::new(&rude).ravi.list_secrets(a()).await.unwrap();
    assert_eq!(rows.len(), 2);
    rude.take();
    assert!(rude.take().head.starts_with(&format!("GET /api/secrets/?identity={A}&offset=1 ")));
}

#[tokio::test]
async fn a_next_page_elsewhere_is_not_fetched() {
    let elsewhere = Rude::start(vec![]).await;
    let next = format!("{}/api/secrets/?offset=1", elsewhere.origin());
    let rude = Rude::start(vec![json(200, &format!(r#"{{"next":"{next}","results":[]}}"#))]).await;
    assert_eq!(fault(Client::new(&rude).ravi.list_secrets(a()).await), AnswerFault::Redirect);
    assert_eq!((rude.seen(), elsewhere.connections()), (1, 0));
}

#[tokio::test]
async fn a_list_without_end_is_dropped_after_twenty_pages() {
    let page = json(200, r#"{"next":"/api/secrets/?offset=1","results":[]}"#);
    let rude = Rude::start(vec![page; 25]).await;
    assert_eq!(fault(Client::new(&rude).ravi.list_secrets(a()).await), AnswerFault::TooLarge);
    assert_eq!(rude.seen(), 20);
}

// Trying again, and not.

#[tokio::test]
async fn a_read_is_tried_again_after_a_passing_fault() {
    let good = || json(200, "[]");
    let cut =
        Act::Cut(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[".to_vec());
    for fault in [status(502), status(503), status(504), Act::Reset, Act::Cut(Vec::new()), cut] {
        let rude = Rude::start(vec![fault.clone(), fault, good()]).await;
        let client = Client::new(&rude);
        assert!(client.ravi.list_secrets(a()).await.unwrap().is_empty());
        assert_eq!((rude.seen(), client.ravi.calls()), (3, 3));
        assert_eq!(client.budget.taken(), [Some(a()); 3], "every attempt is paid for");
    }
}

#[tokio::test]
async fn a_read_is_given_up_after_three_attempts() {
    let cut =
        Act::Cut(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[".to_vec());
    let malformed = UpstreamError::Answer(AnswerFault::Malformed);
    for (act, error) in [
        (status(503), UpstreamError::Unavailable),
        (Act::Reset, UpstreamError::Unavailable),
        (cut, malformed),
    ] {
        let rude = Rude::start(vec![act; 5]).await;
        let outcome = Client::new(&rude).ravi.list_secrets(a()).await;
        assert_eq!((outcome.err(), rude.seen()), (Some(error), 3));
    }
}

#[tokio::test]
async fn a_write_that_may_have_arrived_is_in_doubt_and_not_repeated() {
    let cut =
        Act::Cut(b"HTTP/1.1 201 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[".to_vec());
    for act in [status(500), status(502), status(503), status(504), Act::Reset, Act::Cut(Vec::new()), cut] {
        let rude = Rude::start(vec![act; 8]).await;
        let ravi = Client::with(&rude, TestKeys { identity: Some(IDENTITY_KEY), ..TestKeys::default() }).ravi;
        let value = Secret::copy_of("x");
        let doubt = Some(UpstreamError::OutcomeUnknown);
        assert_eq!(ravi.create_secret(a(), &key(), &value).await.err(), doubt);
        assert_eq!(ravi.update_password(a(), row(), &value).await.err(), doubt);
        assert_eq!(ravi.mint_identity_key(a(), "l").await.err(), doubt);
        assert_eq!(ravi.mint_sso_token(a()).await.err(), doubt);
        assert_eq!(ravi.start_device_login().await.err(), doubt);
        assert_eq!(rude.seen(), 5);
    }
    let rude = Rude::start(vec![status(502); 2]).await;
    let deleted = Client::new(&rude).ravi.delete_secret(a(), row()).await;
    assert_eq!((deleted.err(), rude.seen()), (Some(UpstreamError::OutcomeUnknown), 1));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_and_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::at(&url, TestKeys::default());
    let value = Secret::copy_of("x");
    assert_eq!(client.ravi.list_secrets(a()).await.err(), Some(UpstreamError::Unavailable));
    assert_eq!(client.budget.taken().len(), 3, "a read is tried again");
    assert_eq!(client.ravi.create_secret(a(), &key(), &value).await.err(), Some(UpstreamError::Unavailable));
    assert_eq!(client.budget.taken().len(), 4, "a write is not");
    assert_eq!(client.ravi.calls(), 0);
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_name_gets_no_request() {
    let rude = Rude::start(vec![]).await;
    let stranger = HttpUpstream::new(
        Settings { base_url: rude.origin().parse().unwrap(), ca_pem: None },
        Arc::new(TestKeys::default()),
        Arc::new(Purse::default()),
        Arc::new(TestClock::new()),
    )
    .unwrap();
    assert_eq!(stranger.list_secrets(a()).await.err(), Some(UpstreamError::Unavailable));
    let named = Client::at(&format!("https://127.0.0.2:{}", rude.port), TestKeys::default());
    assert_eq!(named.ravi.list_secrets(a()).await.err(), Some(UpstreamError::Unavailable));
    assert_eq!((rude.seen(), stranger.calls(), named.ravi.calls()), (0, 0, 0));
}

#[tokio::test]
async fn tls_before_1_2_is_not_offered() {
    const SUPPORTED_VERSIONS: [u8; 9] = [0, 43, 0, 5, 4, 3, 4, 3, 3];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::at(&format!("https://{}", listener.local_addr().unwrap()), TestKeys::default());
    let (outcome, hello) = tokio::join!(client.ravi.delete_secret(a(), row()), async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut header = [0; 5];
        tcp.read_exact(&mut header).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        tcp.read_exact(&mut hello).await.unwrap();
        hello
    });
    assert_eq!(outcome.err(), Some(UpstreamError::Unavailable), "nothing of the request was sent");
    assert!(hello.windows(9).any(|window| window == SUPPORTED_VERSIONS), "1.3 and 1.2, no other");
}

#[tokio::test]
async fn a_throttled_read_waits_as_long_as_it_is_told() {
    let head = "HTTP/1.1 429 X\r\nContent-Type: application/json\r\n";
    let body = r#"{"detail":"slow","retry_after_seconds":7}"#;
    let both = raw(&format!("{head}Retry-After: 3\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let header = raw(&format!("{head}Retry-After: 3\r\nContent-Length: 2\r\n\r\n{{}}"));
    for (throttled, seconds) in [(both, 7), (header, 3)] {
        let rude = Rude::start(vec![throttled, json(200, "[]")]).await;
        let client = Client::new(&rude);
        let start = client.clock.now();
        client.ravi.list_secrets(a()).await.unwrap();
        let waited = client.clock.now().since(start);
        assert!(waited >= Duration::from_secs(seconds) && waited < Duration::from_secs(seconds + 1));
    }
}

#[tokio::test]
async fn a_throttle_that_does_not_fit_or_hits_a_write_is_passed_on() {
    let throttled = |seconds: u64| json(429, &format!(r#"{{"retry_after_seconds":{seconds}}}"#));
    let rude = Rude::start(vec![throttled(3600), throttled(1), status(429)]).await;
    let ravi = Client::new(&rude).ravi;
    let error = |seconds| Some(UpstreamError::Throttled { retry_after: Duration::from_secs(seconds) });
    assert_eq!(ravi.list_secrets(a()).await.err(), error(3600));
    assert_eq!(ravi.create_secret(a(), &key(), &Secret::copy_of("x")).await.err(), error(1));
    assert_eq!(ravi.delete_secret(a(), row()).await.err(), error(5), "a guess");
    assert_eq!(rude.seen(), 3);
}

#[tokio::test]
async fn a_silent_server_costs_a_read_one_attempt() {
    let rude = Rude::start(vec![Act::Hang, json(200, "[]")]).await;
    let client = Client::new(&rude);
    let (outcome, ()) = tokio::join!(client.ravi.list_secrets(a()), async {
        rude.arrived().await;
        client.clock.advance(Duration::from_secs(10));
    });
    assert!(outcome.unwrap().is_empty());
    assert_eq!(rude.seen(), 2);
}

#[tokio::test]
async fn a_silent_server_ends_every_call_at_its_deadline() {
    let slow = raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[");
    for act in [Act::Hang, Act::ThenHang(Box::new(slow))] {
        let rude = Rude::start(vec![act; 5]).await;
        let client = Client::new(&rude);
        let start = client.clock.now();
        let (outcome, ()) = tokio::join!(client.ravi.list_secrets(a()), async {
            for _ in 0..3 {
                rude.arrived().await;
                client.clock.advance(Duration::from_secs(10));
            }
        });
        assert_eq!((outcome.err(), rude.seen()), (Some(UpstreamError::Unavailable), 3));
        assert!(client.clock.now().since(start) < Duration::from_secs(31));
    }
    let rude = Rude::start(vec![Act::Hang]).await;
    let client = Client::new(&rude);
    let (outcome, ()) = tokio::join!(client.ravi.delete_secret(a(), row()), async {
        rude.arrived().await;
        client.clock.advance(Duration::from_secs(30));
    });
    assert_eq!((outcome.err(), rude.seen()), (Some(UpstreamError::OutcomeUnknown), 1));
}

#[tokio::test]
async fn an_empty_budget_sends_nothing() {
    let rude = Rude::start(vec![status(503)]).await;
    let client = Client::new(&rude);
    client.budget.allow(1);
    let error = Some(UpstreamError::BudgetReached { retry_after: Duration::from_secs(9) });
    assert_eq!(client.ravi.list_secrets(a()).await.err(), error, "the second attempt is not paid for");
    assert_eq!(client.ravi.list_identities().await.err(), error);
    assert_eq!(client.budget.taken(), [Some(a())]);
    assert_eq!(rude.seen(), 1);
}

#[tokio::test]
async fn no_more_than_sixty_four_requests_are_under_way() {
    let rude = Rude::start(vec![Act::Wait(Box::new(json(200, "[]"))); 80]).await;
    let client = Arc::new(Client::new(&rude));
    let callers: Vec<_> = (0..80)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.ravi.list_secrets(a()).await.map(drop) })
        })
        .collect();
    for _ in 0..64 {
        rude.arrived().await;
    }
    rude.open_gate();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!((rude.seen(), rude.most_at_once()), (80, 64));
}

// Where it goes.

#[tokio::test]
async fn localhost_over_plain_http_is_served() {
    let rude = Rude::plain(vec![json(200, "[]")]).await;
    let client = Client::at(&format!("http://localhost:{}", rude.port), TestKeys::default());
    assert!(client.ravi.list_secrets(a()).await.unwrap().is_empty());
    assert_eq!(client.ravi.origin(), format!("http://localhost:{}", rude.port));
}

#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    if !is_alone() {
        let proxy = Rude::plain(vec![]).await;
        let names = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
        let address = format!("http://127.0.0.1:{}", proxy.port);
        alone("proxies_of_the_environment_are_ignored", &names.map(|name| (name, address.as_str()))).await;
        return assert_eq!(proxy.connections(), 0);
    }
    let rude = Rude::start(vec![json(200, "[]")]).await;
    assert!(Client::new(&rude).ravi.list_secrets(a()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_ca_file_replaces_the_built_in_roots_and_must_be_one() {
    let settings = |pem: &str| Settings {
        base_url: "https://api.ravi.id".parse::<BaseUrl>().unwrap(),
        ca_pem: Some(pem.as_bytes().to_vec()),
    };
    let build = |pem: &str| {
        let (keys, purse) = (Arc::new(TestKeys::default()), Arc::new(Purse::default()));
        HttpUpstream::new(settings(pem), keys, purse, Arc::new(TestClock::new())).map(drop)
    };
    assert_eq!(build("not a certificate"), Err(SettingsError::CaEmpty));
    assert_eq!(build(&AUTHORITY.pem), Ok(()));
}

#[tokio::test]
async fn events_hold_no_name_no_value_and_no_key() {
    // Tests on other threads would race with this one for the interest in the event.
    if !is_alone() {
        return alone("events_hold_no_name_no_value_and_no_key", &[]).await;
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let rude = Rude::start(vec![
        json(200, &secret_row(ROW, 7, "API_KEY")),
        json(500, &format!(r#"{{"detail":"{CANARY}"}}"#)),
        status(401),
        Act::Reset,
    ])
    .await;
    let ravi = Client::new(&rude).ravi;
    let value = Secret::copy_of(CANARY);
    ravi.read_secret(a(), row()).await.unwrap();
    for _ in 0..3 {
        assert!(ravi.update_secret(a(), row(), &value).await.is_err());
    }
    drop(guard);
    let text = log.text();
    for needle in [CANARY, MANAGEMENT_KEY, "ravi_mgmt_", A, ROW, "API_KEY"] {
        assert!(!text.contains(needle), "{needle}");
    }
    for needle in ["/api/secrets/{id}/", "PATCH", "status=500", "duration_ms"] {
        assert!(text.contains(needle), "{needle}");
    }
}

/// Marks a process that runs one test only.
const ALONE: &str = "RAVI_BROKER_TEST_ALONE";

fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Runs one test of this file in a process of its own.
async fn alone(test: &str, environment: &[(&str, &str)]) {
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("upstream::{test}")]).env(ALONE, "1");
    child.envs(environment.iter().copied()).env_remove("NO_PROXY").env_remove("no_proxy");
    let output = child.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

// The rude server.

/// What is done with one connection, after its request was read.
#[derive(Clone)]
enum Act {
    /// Writes the bytes and closes properly.
    Say(Vec<u8>),
    /// Writes the bytes and drops the connection without a word.
    Cut(Vec<u8>),
    /// Resets the connection.
    Reset,
    /// Says nothing until the client leaves.
    Hang,
    /// Begins, and then says nothing more.
    ThenHang(Box<Act>),
    /// Waits for the gate.
    Wait(Box<Act>),
}

struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn body(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn has_header(&self, line: &str) -> bool {
        self.head.lines().skip(1).any(|found| found.eq_ignore_ascii_case(line))
    }

    fn bearer(&self) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix("authorization: Bearer "))
    }
}

struct Rude {
    port: u16,
    scheme: &'static str,
    shared: Arc<Shared>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
    accepting: tokio::task::JoinHandle<()>,
}

struct Shared {
    acts: Mutex<Vec<Act>>,
    requests: Mutex<Vec<Request>>,
    arrived: mpsc::UnboundedSender<()>,
    gate: watch::Sender<bool>,
    connections: AtomicUsize,
    busy: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Rude {
    /// Over TLS. Acts are played in order, one per connection; after the last a 404 answers.
    async fn start(acts: Vec<Act>) -> Self {
        Self::listen(acts, Some(AUTHORITY.acceptor.clone())).await
    }

    async fn plain(acts: Vec<Act>) -> Self {
        Self::listen(acts, None).await
    }

    async fn listen(acts: Vec<Act>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            acts: Mutex::new(acts),
            requests: Mutex::default(),
            arrived,
            gate: watch::Sender::new(false),
            connections: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(accept(listener, tls, shared.clone()));
        Self { port, scheme, shared, arrivals: tokio::sync::Mutex::new(arrivals), accepting }
    }

    fn origin(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    fn queue(&self, acts: impl IntoIterator<Item = Act>) {
        self.shared.acts.lock().unwrap().extend(acts);
    }

    /// Takes the oldest request out.
    fn take(&self) -> Request {
        self.shared.requests.lock().unwrap().remove(0)
    }

    fn expect(&self, (start, key): (String, Option<&str>)) {
        let request = self.take();
        assert!(request.head.starts_with(&start), "{start}");
        assert_eq!(request.bearer(), key, "{start}");
    }

    /// Requests that came and were not taken out.
    fn seen(&self) -> usize {
        self.shared.requests.lock().unwrap().len()
    }

    /// Acts not played yet.
    fn left(&self) -> usize {
        self.shared.acts.lock().unwrap().len()
    }

    fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(Ordering::SeqCst)
    }

    /// Waits for the next request.
    async fn arrived(&self) {
        self.arrivals.lock().await.recv().await.unwrap();
    }

    fn open_gate(&self) {
        self.shared.gate.send_replace(true);
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((tcp, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (tls, shared) = (tls.clone(), shared.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(tcp, |tcp| tcp, &shared).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(tcp).await {
                        serve(stream, |stream| stream.into_inner().0, &shared).await;
                    }
                }
            }
        });
    }
}

async fn serve<S, F>(mut stream: S, bare: F, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(S) -> TcpStream,
{
    let Some(request) = read_request(&mut stream).await else { return };
    let busy = shared.busy.fetch_add(1, Ordering::SeqCst) + 1;
    shared.most_at_once.fetch_max(busy, Ordering::SeqCst);
    shared.requests.lock().unwrap().push(request);
    let mut act = {
        let mut acts = shared.acts.lock().unwrap();
        if acts.is_empty() { status(404) } else { acts.remove(0) }
    };
    let _ = shared.arrived.send(());
    if let Act::Wait(then) = act {
        shared.gate.subscribe().wait_for(|open| *open).await.unwrap();
        act = *then;
    }
    shared.busy.fetch_sub(1, Ordering::SeqCst);
    match act {
        Act::Say(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            drain(&mut stream).await;
        }
        Act::Cut(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
        }
        Act::Reset => bare(stream).set_zero_linger().unwrap(),
        Act::ThenHang(first) => {
            if let Act::Say(bytes) = *first {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.flush().await;
            }
            drain(&mut stream).await;
        }
        Act::Hang | Act::Wait(_) => drain(&mut stream).await,
    }
}

/// Until the client closes.
async fn drain<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut buffer = [0; 1024];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(Request { head, body: bytes[end + 4..].to_vec() });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn raw(text: &str) -> Act {
    Act::Say(text.as_bytes().to_vec())
}

fn with_type(status: u16, content_type: &str, body: &str) -> Act {
    let length = body.len();
    raw(&format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
}

fn json(status: u16, body: &str) -> Act {
    with_type(status, "application/json", body)
}

fn status(status: u16) -> Act {
    with_type(status, "text/html", CANARY)
}

fn empty(status: u16) -> Act {
    raw(&format!("HTTP/1.1 {status} X\r\n\r\n"))
}

fn identity(uuid: &str, inbox: Option<&str>, phone: Option<&str>) -> String {
    let text = |text: Option<&str>| text.map_or("null".to_owned(), |text| format!("\"{text}\""));
    format!(r#"{{"uuid":"{uuid}","name":"n","inbox":{},"phone":{}}}"#, text(inbox), text(phone))
}

fn secret_row(uuid: &str, number: i64, key: &str) -> String {
    format!(r#"{{"uuid":"{uuid}","identity":{number},"key":"{key}","value":"{CANARY}","notes":null}}"#)
}

fn password_row(uuid: &str, number: i64, domain: &str) -> String {
    format!(
        r#"{{"uuid":"{uuid}","identity":{number},"domain":"{domain}","username":"alice","password":"{CANARY}"}}"#
    )
}

fn new_password(domain: &str) -> NewPassword {
    NewPassword { domain: domain.into(), username: "alice".into(), password: Secret::copy_of("hunter2") }
}

/// A certificate authority and a server certificate for 127.0.0.1, made once.
struct Authority {
    pem: String,
    acceptor: TlsAcceptor,
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let mut params = CertificateParams::new(Vec::default()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let leaf_key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let leaf = CertificateParams::new(names).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    Authority { pem: ca.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) }
});

// The client's surroundings.

struct Client {
    ravi: HttpUpstream,
    keys: Arc<TestKeys>,
    budget: Arc<Purse>,
    clock: TestClock,
}

impl Client {
    fn new(rude: &Rude) -> Self {
        Self::with(rude, TestKeys::default())
    }

    fn with(rude: &Rude, keys: TestKeys) -> Self {
        Self::at(&rude.origin(), keys)
    }

    fn at(url: &str, keys: TestKeys) -> Self {
        let settings =
            Settings { base_url: url.parse().unwrap(), ca_pem: Some(AUTHORITY.pem.clone().into()) };
        let (keys, budget, clock) = (Arc::new(keys), Arc::new(Purse::default()), TestClock::new());
        let ravi =
            HttpUpstream::new(settings, keys.clone(), budget.clone(), Arc::new(clock.clone())).unwrap();
        Self { ravi, keys, budget, clock }
    }
}

struct TestKeys {
    management: Option<&'static str>,
    identity: Option<&'static str>,
    rejected: Mutex<Vec<(KeyId, u64)>>,
}

impl Default for TestKeys {
    fn default() -> Self {
        Self { management: Some(MANAGEMENT_KEY), identity: None, rejected: Mutex::default() }
    }
}

impl Keys for TestKeys {
    fn open(&self, id: KeyId) -> Option<OpenKey> {
        let (key, generation) = match id {
            KeyId::Management => (self.management?, 2),
            KeyId::Identity(_) => (self.identity?, 3),
        };
        Some(OpenKey { value: Secret::copy_of(key), generation })
    }

    fn reject(&self, id: KeyId, generation: u64) {
        self.rejected.lock().unwrap().push((id, generation));
    }
}

/// Counts what is taken; unlimited unless told.
#[derive(Default)]
struct Purse {
    limit: Mutex<Option<usize>>,
    taken: Mutex<Vec<Option<IdentityUuid>>>,
}

impl Purse {
    fn allow(&self, calls: usize) {
        *self.limit.lock().unwrap() = Some(calls);
    }

    fn taken(&self) -> Vec<Option<IdentityUuid>> {
        self.taken.lock().unwrap().clone()
    }
}

impl Budget for Purse {
    fn take(&self, identity: Option<IdentityUuid>) -> Result<(), Duration> {
        let mut taken = self.taken.lock().unwrap();
        if self.limit.lock().unwrap().is_some_and(|limit| taken.len() >= limit) {
            return Err(Duration::from_secs(9));
        }
        taken.push(identity);
        Ok(())
    }
}

/// Short waits (between attempts) pass at once and move time on; long ones (deadlines) wait for the test.
#[derive(Clone)]
struct TestClock(Arc<watch::Sender<BootInstant>>);

impl TestClock {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BootInstant::from_nanos(1_000_000_000))))
    }

    fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now = *now + by);
    }
}

impl Clock for TestClock {
    fn now(&self) -> BootInstant {
        *self.0.borrow()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn sleep_until(&self, deadline: BootInstant) -> Sleep {
        const SHORT: Duration = Duration::from_secs(8);
        if deadline.since(self.now()) < SHORT {
            self.0.send_modify(|now| *now = (*now).max(deadline));
        }
        let mut now = self.0.subscribe();
        Box::pin(async move {
            let _ = now.wait_for(|now| *now >= deadline).await;
        })
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
