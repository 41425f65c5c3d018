//! Attachments, §3.6 of the contract sheet: announced, uploaded without a key, sent, read.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::Full;
use ravi_broker::sandbox::seed::{DEPLOY_AGENT, NOTES_AGENT};
use ravi_broker::sandbox::{NewAttachment, NewMail, StorageHost};
use serde_json::{Value, json};

use super::{Bench, Got, StillClock, as_notes, keys_of, with_clock};

const PRESIGN: &str = "/api/email-attachments/presign/";

fn announcement(filename: &str, size: usize) -> Value {
    json!({ "filename": filename, "content_type": "text/plain", "size": size })
}

async fn presigned(bench: &Bench, size: usize) -> Value {
    let got = bench.post(PRESIGN, announcement("notes.txt", size)).await;
    assert_eq!(got.status, 201);
    got.json()
}

fn put(url: &Value, content_type: &str, body: &[u8]) -> Request<Full<Bytes>> {
    let request = Request::builder().method(Method::PUT).uri(url.as_str().unwrap());
    request.header(CONTENT_TYPE, content_type).body(Full::new(Bytes::copy_from_slice(body))).unwrap()
}

async fn upload(bench: &Bench, announced: &Value, body: &[u8]) -> u16 {
    bench.http.send(put(&announced["upload_url"], "text/plain", body)).await.unwrap().status
}

async fn compose(bench: &Bench, to: &str, uuids: Value) -> Got {
    let path = format!("/api/email-messages/compose/?inbox={}", NOTES_AGENT.inbox_id);
    let body = json!({ "to_email": to, "subject": "S", "content": "C", "attachment_uuids": uuids });
    bench.post(&path, body).await
}

#[tokio::test]
async fn an_attachment_is_announced_uploaded_sent_and_read() {
    let bench = Bench::start().await;
    let announced = presigned(&bench, 5).await;
    assert_eq!(keys_of(&announced), ["storage_key", "upload_url", "uuid"]);
    assert!(announced["upload_url"].as_str().unwrap().starts_with(bench.sandbox.base_url()));
    assert_eq!(upload(&bench, &announced, b"hello").await, 200);
    let got = compose(&bench, DEPLOY_AGENT.email, json!([announced["uuid"]])).await;
    assert_eq!(got.status, 201);
    let row = got.json()["attachments"][0].clone();
    assert_eq!(keys_of(&row), ["content_type", "download_url", "filename", "is_inline", "size", "uuid"]);
    assert_eq!((&row["filename"], &row["content_type"]), (&json!("notes.txt"), &json!("text/plain")));
    assert_eq!(
        (&row["size"], &row["is_inline"], &row["uuid"]),
        (&json!(5), &json!(false), &announced["uuid"])
    );

    let download = Request::get(row["download_url"].as_str().unwrap()).body(Full::default()).unwrap();
    let content = bench.http.send(download).await.unwrap();
    assert_eq!(
        (content.status, &content.body[..], &content.headers[CONTENT_TYPE]),
        (200, &b"hello"[..], &"text/plain".parse().unwrap())
    );
    let key = bench.control.identity_key(DEPLOY_AGENT.name).unwrap();
    let rows = bench.call("GET", "/api/email-messages/", key.expose(), None).await.json();
    assert_eq!(rows["results"][1]["attachments"][0], row, "the recipient reads it too");
    assert_eq!(upload(&bench, &announced, b"other").await, 403, "what was sent does not change");
}

#[tokio::test]
async fn a_forward_takes_the_attachments_along() {
    let bench = Bench::start().await;
    let attachment = NewAttachment {
        filename: "plan.pdf".into(),
        content_type: "application/pdf".into(),
        content: b"%PDF".to_vec(),
        is_inline: true,
    };
    let mail = NewMail {
        identity: NOTES_AGENT.name.into(),
        from: "kim@example.org".into(),
        subject: "Plan".into(),
        text: "See file".into(),
        attachments: vec![attachment],
        ..NewMail::default()
    };
    let id = bench.control.deliver_mail(mail).unwrap();
    let original = bench.get(&format!("/api/email-messages/{id}/")).await.json()["attachments"].clone();
    assert_eq!((&original[0]["filename"], &original[0]["is_inline"]), (&json!("plan.pdf"), &json!(true)));
    let body = json!({ "to_email": "lee@example.org", "content": "C" });
    let made = bench.post(&format!("/api/email-messages/{id}/forward/"), body).await.json();
    assert_eq!(made["attachments"], original);
}

#[tokio::test]
async fn blocked_extensions_and_wrong_sizes_are_refused() {
    let bench = Bench::start().await;
    let blocked = ".exe .dll .scr .com .pif .cpl .sys .bat .cmd .ps1 .vbs .vbe .wsf .wsh .wsc .sct .shb .msi .msp \
        .mst .cab .msc .inf .reg .rgs .ins .isp .chm .hta .lnk .url .scf .iso .img .vhd .vhdx .dmg .apk .app .action \
        .jar .ade .adp .mde";
    for extension in blocked.split_whitespace() {
        for name in [format!("a{extension}"), format!("a.txt{}", extension.to_uppercase())] {
            let got = bench.post(PRESIGN, announcement(&name, 1)).await;
            assert_eq!((got.status, keys_of(&got.json())), (400, vec!["filename"]), "{name}");
        }
    }
    for name in ["a.exe.txt", "exe", "résumé.pdf", "a.tar.gz"] {
        assert_eq!(bench.post(PRESIGN, announcement(name, 1)).await.status, 201, "{name}");
    }
    for size in [json!(0), json!(10_485_761), json!(-1), json!(1.5), json!("x"), json!(null)] {
        let body = json!({ "filename": "a.txt", "content_type": "text/plain", "size": size });
        let got = bench.post(PRESIGN, body).await;
        assert_eq!((got.status, keys_of(&got.json())), (400, vec!["size"]), "{size}");
    }
    for name in ["", "../a.txt", "a\nb.txt", &"a".repeat(256)] {
        assert_eq!(bench.post(PRESIGN, announcement(name, 1)).await.status, 400, "{name}");
    }
    let body = json!({ "filename": "a.txt", "content_type": "nothing", "size": 1 });
    assert_eq!(keys_of(&bench.post(PRESIGN, body).await.json()), ["content_type"]);
}

#[tokio::test]
async fn the_largest_attachment_fits() {
    let bench = Bench::start().await;
    let announced = presigned(&bench, 10_485_760).await;
    assert_eq!(upload(&bench, &announced, &vec![b'x'; 10_485_760]).await, 200);
    assert_eq!(compose(&bench, "kim@example.org", json!([announced["uuid"]])).await.status, 201);
}

#[tokio::test]
async fn stored_bytes_are_bounded() {
    let bench = Bench::start().await;
    let mut fitting = 0;
    while bench.post(PRESIGN, announcement("a.bin", 10_485_760)).await.status == 201 {
        fitting += 1;
    }
    assert_eq!(fitting, 12, "128 MiB");
    assert_eq!(bench.post(PRESIGN, announcement("a.bin", 1)).await.status, 201, "a small one still fits");
}

#[tokio::test]
async fn what_was_not_sent_within_a_day_is_dropped() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let (sent, unsent) = (presigned(&bench, 1).await, presigned(&bench, 1).await);
    for announced in [&sent, &unsent] {
        assert_eq!(upload(&bench, announced, b"x").await, 200);
    }
    let mail = compose(&bench, "kim@example.org", json!([sent["uuid"]])).await.json();
    clock.advance(Duration::from_secs(24 * 3600));
    presigned(&bench, 1).await;
    assert_eq!(compose(&bench, "kim@example.org", json!([unsent["uuid"]])).await.status, 400);
    let kept = bench.get(&format!("/api/email-messages/{}/", mail["id"])).await.json();
    assert_eq!(kept["attachments"][0]["uuid"], sent["uuid"]);
}

#[tokio::test]
async fn only_what_was_announced_can_be_uploaded() {
    let bench = Bench::start().await;
    let announced = presigned(&bench, 5).await;
    let url = &announced["upload_url"];
    for (content_type, body) in
        [("text/plain", &b"hell"[..]), ("text/plain", b"hello!"), ("text/html", b"hello")]
    {
        let got = bench.http.send(put(url, content_type, body)).await.unwrap();
        assert_eq!((got.status, &got.headers[CONTENT_TYPE]), (403, &"application/xml".parse().unwrap()));
    }
    let forged = url.as_str().unwrap().replace("signature=", "signature=x");
    assert_eq!(bench.http.send(put(&json!(forged), "text/plain", b"hello")).await.unwrap().status, 403);
    let unsigned = url.as_str().unwrap().split('?').next().unwrap();
    assert_eq!(bench.http.send(put(&json!(unsigned), "text/plain", b"hello")).await.unwrap().status, 403);
    let got = compose(&bench, "kim@example.org", json!([announced["uuid"]])).await;
    assert_eq!((got.status, keys_of(&got.json())), (400, vec!["attachment_uuids"]), "nothing was uploaded");
    assert_eq!(upload(&bench, &announced, b"hello").await, 200);
    assert_eq!(compose(&bench, "kim@example.org", json!([announced["uuid"]])).await.status, 201);
    for wrong in [
        json!(["nonsense"]),
        json!(["00000000-0000-4000-8000-000000000000"]),
        json!([announced["uuid"], "x"]),
    ] {
        assert_eq!(compose(&bench, "kim@example.org", wrong).await.status, 400);
    }
}

#[tokio::test]
async fn an_attachment_of_another_identity_cannot_be_sent() {
    let bench = Bench::start().await;
    let key = bench.control.identity_key(DEPLOY_AGENT.name).unwrap();
    let foreign = bench.call("POST", PRESIGN, key.expose(), Some(announcement("a.txt", 1))).await.json();
    assert_eq!(upload(&bench, &foreign, b"x").await, 200);
    assert_eq!(compose(&bench, "kim@example.org", json!([foreign["uuid"]])).await.status, 400);
    let of_account = bench.managed("POST", PRESIGN, Some(announcement("a.txt", 1))).await.json();
    assert_eq!(upload(&bench, &of_account, b"x").await, 200);
    assert_eq!(compose(&bench, "kim@example.org", json!([of_account["uuid"]])).await.status, 201);
    assert_eq!(bench.managed("POST", &as_notes(PRESIGN), Some(announcement("a.txt", 1))).await.status, 201);
    assert_eq!(bench.call("POST", PRESIGN, "", Some(announcement("a.txt", 1))).await.status, 401);
}

#[tokio::test]
async fn the_storage_refuses_a_key_and_counts_it() {
    let bench = Bench::start().await;
    for host in [StorageHost::Same, StorageHost::Other] {
        bench.switch(|behaviour| behaviour.storage = host);
        let announced = presigned(&bench, 5).await;
        let before = bench.control.keys_at_storage();
        let mut request = put(&announced["upload_url"], "text/plain", b"hello");
        request.headers_mut().insert(AUTHORIZATION, format!("Bearer {}", bench.notes).parse().unwrap());
        assert_eq!(bench.http.send(request).await.unwrap().status, 400);
        assert_eq!(bench.control.keys_at_storage(), before + 1);
        assert_eq!(compose(&bench, "kim@example.org", json!([announced["uuid"]])).await.status, 400);
    }
    let seen = bench.call("GET", "/__sandbox__/storage/", "", None).await.json();
    assert_eq!(seen, json!({ "keys_received": 2 }));
}

#[tokio::test]
async fn the_storage_can_be_another_host_which_has_nothing_else() {
    let bench = Bench::start().await;
    bench.switch(|behaviour| behaviour.storage = StorageHost::Other);
    let announced = presigned(&bench, 5).await;
    let url = announced["upload_url"].as_str().unwrap();
    let host = url.split("/storage/").next().unwrap();
    assert!(host.starts_with("https://127.0.0.1:") && host != bench.sandbox.base_url());
    assert_eq!(upload(&bench, &announced, b"hello").await, 200, "by the same authority");
    let row = compose(&bench, "kim@example.org", json!([announced["uuid"]])).await.json();
    assert!(row["attachments"][0]["download_url"].as_str().unwrap().starts_with(host));
    for path in ["/api/secrets/", "/__sandbox__/behaviour/", "/"] {
        let request = Request::get(format!("{host}{path}")).body(Full::default()).unwrap();
        assert_eq!(bench.http.send(request).await.unwrap().status, 403, "{path}");
    }
    let mut request = Request::get(format!("{host}/api/secrets/")).body(Full::default()).unwrap();
    request.headers_mut().insert(AUTHORIZATION, "Bearer x".parse().unwrap());
    assert_eq!(bench.http.send(request).await.unwrap().status, 400);
    assert_eq!(bench.control.keys_at_storage(), 1, "a key on any path counts");
}
