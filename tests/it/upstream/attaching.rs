//! Files on their way to the storage: where they go, and that no key goes with them.

use ravi_broker::upstream::{Mailbox, NewAttachment};
use zeroize::Zeroizing;

use super::*;

fn file(bytes: &[u8]) -> NewAttachment {
    NewAttachment {
        name: "a.pdf".into(),
        content_type: "application/pdf".into(),
        bytes: Zeroizing::new(bytes.to_vec()),
    }
}

fn presigned(url: &str) -> Act {
    json(201, &format!(r#"{{"uuid":"{ROW}","upload_url":"{url}","storage_key":"k"}}"#))
}

#[tokio::test]
async fn a_file_goes_where_ravi_says_with_its_type_and_length_and_without_a_key() {
    for keys in [TestKeys::default(), TestKeys { identity: Some(IDENTITY_KEY), ..TestKeys::default() }] {
        let storage = Rude::start(vec![empty(200)]).await;
        let rude =
            Rude::start(vec![presigned(&format!("{}/b/k?X-Signature=a%2Fb&n=1", storage.origin()))]).await;
        let client = Client::with(&rude, keys);
        assert_eq!(client.ravi.attach(a(), file(b"%PDF")).await.unwrap(), row());
        let asked = rude.take();
        assert!(asked.head.starts_with(&format!("POST /api/email-attachments/presign/?identity={A} ")));
        assert!(asked.bearer().is_some());
        assert_eq!(asked.body(), r#"{"filename":"a.pdf","content_type":"application/pdf","size":4}"#);
        let put = storage.take();
        assert!(put.head.starts_with("PUT /b/k?X-Signature=a%2Fb&n=1 HTTP/1.1\r\n"), "{}", put.head);
        for header in ["content-type: application/pdf", "content-length: 4"] {
            assert!(put.has_header(header), "{header}");
        }
        assert!(put.has_header(&format!("host: 127.0.0.1:{}", storage.port)));
        let head = put.head.to_ascii_lowercase();
        assert!(!head.contains("authorization") && !head.contains("ravi_"), "{head}");
        assert_eq!(put.body(), "%PDF");
        assert_eq!((rude.seen(), storage.seen(), client.ravi.calls()), (0, 0, 2));
        assert_eq!(client.budget.taken(), [Some(a()), Some(a())]);
    }
}

#[tokio::test]
async fn an_empty_file_says_that_it_is() {
    let storage = Rude::start(vec![empty(204)]).await;
    let rude = Rude::start(vec![presigned(&format!("{}/k", storage.origin()))]).await;
    Client::new(&rude).ravi.attach(a(), file(b"")).await.unwrap();
    assert!(storage.take().has_header("content-length: 0"));
}

#[tokio::test]
async fn a_file_that_ravi_would_refuse_costs_no_call() {
    let rude = Rude::start(vec![]).await;
    let client = Client::new(&rude);
    let named = |name: &str| NewAttachment { name: name.into(), ..file(b"x") };
    for file in [named("run.EXE"), named("../a"), named("a\n.pdf"), file(&vec![0; 10_485_761])] {
        assert_eq!(client.ravi.attach(a(), file).await.err(), Some(UpstreamError::Invalid));
    }
    assert_eq!((rude.seen(), client.ravi.calls()), (0, 0));
}

#[tokio::test]
async fn an_address_that_no_file_is_taken_to_gets_no_connection() {
    let plain = Rude::plain(vec![empty(200)]).await;
    let addresses = [
        format!("{}/k", plain.origin()),
        "https://10.0.0.1/k".into(),
        "https://169.254.169.254/k".into(),
        "https://user@127.0.0.1/k".into(),
        "/k".into(),
        String::new(),
    ];
    for address in addresses {
        let rude = Rude::start(vec![presigned(&address)]).await;
        let client = Client::new(&rude);
        assert_eq!(fault(client.ravi.attach(a(), file(b"x")).await), AnswerFault::Malformed, "{address}");
        assert_eq!((rude.seen(), client.ravi.calls()), (1, 1), "{address}");
    }
    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn a_storage_of_another_authority_gets_no_request() {
    let stranger = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let key = PrivateKeyDer::try_from(stranger.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![stranger.cert.der().clone()], key)
        .unwrap();
    let storage = Rude::listen(vec![empty(200)], Some(TlsAcceptor::from(Arc::new(config)))).await;
    let rude = Rude::start(vec![presigned(&format!("https://127.0.0.1:{}/k", storage.port))]).await;
    let outcome = Client::new(&rude).ravi.attach(a(), file(b"x")).await;
    assert_eq!(outcome.err(), Some(UpstreamError::Unavailable));
    assert_eq!((storage.connections(), storage.seen()), (1, 0));
}

#[tokio::test]
async fn an_upload_is_tried_once_and_follows_no_redirect() {
    let elsewhere = Rude::start(vec![]).await;
    let redirect =
        raw(&format!("HTTP/1.1 307 X\r\nLocation: {}/k\r\nContent-Length: 0\r\n\r\n", elsewhere.origin()));
    let throttled = raw("HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
    let wait = Duration::from_secs(7);
    for (act, error) in [
        (redirect, UpstreamError::Answer(AnswerFault::Redirect)),
        (status(403), UpstreamError::Refused),
        (status(413), UpstreamError::Invalid),
        (throttled, UpstreamError::Throttled { retry_after: wait }),
        (status(503), UpstreamError::Unavailable),
        (Act::Reset, UpstreamError::Unavailable),
        (Act::Cut(Vec::new()), UpstreamError::Unavailable),
    ] {
        let storage = Rude::start(vec![act]).await;
        let rude = Rude::start(vec![presigned(&format!("{}/k", storage.origin()))]).await;
        assert_eq!(Client::new(&rude).ravi.attach(a(), file(b"x")).await.err(), Some(error));
        assert_eq!((rude.seen(), storage.connections(), storage.left()), (1, 1, 0));
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_storage_that_says_nothing_costs_a_minute() {
    let storage = Rude::start(vec![Act::Hang]).await;
    let rude = Rude::start(vec![presigned(&format!("{}/k", storage.origin()))]).await;
    let client = Client::new(&rude);
    let attaching = client.ravi.attach(a(), file(b"x"));
    let passing = async {
        storage.arrived().await;
        client.clock.advance(Duration::from_secs(60));
    };
    assert_eq!(tokio::join!(attaching, passing).0.err(), Some(UpstreamError::Unavailable));
}
