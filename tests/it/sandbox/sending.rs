//! Sending mail and SMS, §3.4 and §3.6 of the contract sheet.

use ravi_broker::sandbox::seed::{DEPLOY_AGENT, NOTES_AGENT};
use ravi_broker::sandbox::{Answer, Fault, MismatchStatus, NewMail, SentKind, WithoutPhoneStatus};
use serde_json::{Value, json};

use super::{Bench, as_notes, keys_of, texts};

const SEND: &str = "/api/messages/send/";
const STRANGER: &str = "kim@example.org";

fn compose_path() -> String {
    format!("/api/email-messages/compose/?inbox={}", NOTES_AGENT.inbox_id)
}

fn letter(to: &str) -> Value {
    json!({ "to_email": to, "subject": "Minutes", "content": "<p>Here &amp; now</p>" })
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

async fn deploy(bench: &Bench, path: &str) -> Value {
    let key = bench.control.identity_key(DEPLOY_AGENT.name).unwrap();
    bench.call("GET", path, key.expose(), None).await.json()
}

fn sent(bench: &Bench, kind: SentKind) -> usize {
    bench.control.sent().iter().filter(|sent| sent.kind == kind).count()
}

// ---------------------------------------------------------------- SMS

#[tokio::test]
async fn an_sms_is_sent_and_read_back() {
    let bench = Bench::start().await;
    let got = bench.post(SEND, json!({ "to_number": "+12025550177", "body": "On my way" })).await;
    assert_eq!(got.status, 201);
    let made = got.json();
    assert_eq!(
        keys_of(&made),
        [
            "body",
            "created_dt",
            "direction",
            "from_number",
            "id",
            "is_read",
            "message_sid",
            "phone",
            "to_number",
            "url"
        ]
    );
    assert_eq!(
        (&made["from_number"], &made["to_number"]),
        (&json!(NOTES_AGENT.phone), &json!("+12025550177"))
    );
    assert_eq!((&made["direction"], &made["is_read"]), (&json!("outgoing"), &json!(true)));
    assert_eq!(bench.get(&format!("/api/messages/{}/", made["id"])).await.json(), made);
    let talk = bench.get("/api/sms-inbox/1_%2B12025550177/").await.json();
    assert_eq!(talk["messages"][2]["id"], made["id"], "it joins the conversation");
}

#[tokio::test]
async fn an_sms_needs_an_identity_with_a_phone_and_a_number_to_go_to() {
    let bench = Bench::start().await;
    let good = json!({ "to_number": "+12025550177", "body": "Hi" });
    let got = bench.managed("POST", SEND, Some(good.clone())).await;
    assert_eq!((got.status, got.detail().as_str()), (400, "Identity is required."));
    assert_eq!(bench.managed("POST", &as_notes(SEND), Some(good.clone())).await.status, 201);
    for number in ["12025550177", "+1 202 555", "+0", "tel:+12025550177"] {
        let got = bench.post(SEND, with(good.clone(), "to_number", json!(number))).await;
        assert_eq!((got.status, keys_of(&got.json())), (400, vec!["to_number"]), "{number}");
    }
    for body in [json!(""), json!("  "), json!(7), json!("a".repeat(1601))] {
        let got = bench.post(SEND, with(good.clone(), "body", body)).await;
        assert_eq!((got.status, keys_of(&got.json())), (400, vec!["body"]));
    }
    let old = bench.post(SEND, json!({ "to": "+12025550177", "message": "Hi" })).await;
    assert_eq!((old.status, keys_of(&old.json())), (400, vec!["body", "to_number"]));

    let made = bench.managed("POST", "/api/identities/", Some(json!({}))).await.json();
    let key = made["api_key"].as_str().unwrap();
    for (switch, status) in [
        (WithoutPhoneStatus::BadRequest, 400),
        (WithoutPhoneStatus::NotFound, 404),
        (WithoutPhoneStatus::Conflict, 409),
    ] {
        bench.switch(|behaviour| behaviour.without_phone = switch);
        assert_eq!(bench.call("POST", SEND, key, Some(good.clone())).await.status, status);
    }
    assert_eq!(sent(&bench, SentKind::Sms), 1, "what was refused was not sent");
}

#[tokio::test]
async fn an_sms_to_another_identity_arrives_there() {
    let bench = Bench::start().await;
    let made = bench.post(SEND, json!({ "to_number": DEPLOY_AGENT.phone, "body": "Ready?" })).await.json();
    let rows = deploy(&bench, "/api/messages/").await;
    assert_eq!((&rows[0]["body"], &rows[0]["direction"]), (&json!("Ready?"), &json!("incoming")));
    assert_eq!(
        (&rows[0]["from_number"], &rows[0]["to_number"]),
        (&json!(NOTES_AGENT.phone), &json!(DEPLOY_AGENT.phone))
    );
    assert!(rows[0]["id"].as_i64() > made["id"].as_i64());
    assert_eq!(sent(&bench, SentKind::Sms), 1, "the copy was not sent by anybody");
}

// ---------------------------------------------------------------- mail

#[tokio::test]
async fn a_mail_is_composed_and_read_back() {
    let bench = Bench::start().await;
    let body = with(letter(STRANGER), "cc", json!(["lee@example.org", "pat@example.org"]));
    let body = with(body, "bcc", json!(["hidden@example.org"]));
    let got = bench.post(&compose_path(), body).await;
    assert_eq!(got.status, 201);
    let made = got.json();
    assert_eq!(
        keys_of(&made),
        [
            "attachments",
            "cc",
            "created_dt",
            "direction",
            "from_email",
            "html_content",
            "id",
            "is_read",
            "message_id",
            "subject",
            "text_content",
            "thread_id",
            "to_email",
            "url"
        ]
    );
    assert_eq!((&made["from_email"], &made["to_email"]), (&json!(NOTES_AGENT.email), &json!(STRANGER)));
    assert_eq!(made["cc"], json!("lee@example.org, pat@example.org"));
    assert_eq!(
        (&made["html_content"], &made["text_content"]),
        (&json!("<p>Here &amp; now</p>"), &json!("Here & now"))
    );
    assert_eq!(made["thread_id"], made["message_id"], "it begins a thread");
    assert_eq!(bench.get(&format!("/api/email-messages/{}/", made["id"])).await.json(), made);
    let listed = bench.get("/api/email-messages/?direction=outgoing").await;
    assert_eq!(listed.json()["results"][1], made);
    for path in ["/api/email-messages/", "/api/email-inbox/", "/api/contacts/"] {
        let got = bench.get(path).await;
        assert!(!String::from_utf8_lossy(&got.body).contains("hidden@"), "{path} shows the bcc");
    }
    assert_eq!(bench.control.sent()[0].bcc, ["hidden@example.org"]);
}

#[tokio::test]
async fn old_field_names_and_bad_recipients_are_refused() {
    let bench = Bench::start().await;
    let old = json!({ "to": STRANGER, "subject": "S", "body": "B" });
    let got = bench.post(&compose_path(), old).await;
    assert_eq!((got.status, keys_of(&got.json())), (400, vec!["content", "to_email"]));
    for (field, value) in [
        ("cc", json!(STRANGER)),
        ("bcc", json!("a@b.example, c@d.example")),
        ("cc", Value::Null),
        ("cc", json!([7])),
        ("cc", json!(["nobody"])),
        ("cc", Value::from(vec![STRANGER; 51])),
        ("to_email", json!("Kim <kim@example.org>")),
        ("to_email", json!("kim@example.org,lee@example.org")),
        ("subject", json!("S\r\nBcc: x@example.org")),
        ("subject", json!("")),
        ("content", json!(" ")),
        ("attachment_uuids", json!("not-a-list")),
    ] {
        let got = bench.post(&compose_path(), with(letter(STRANGER), field, value)).await;
        assert_eq!((got.status, keys_of(&got.json())), (400, vec![field]));
    }
    assert_eq!(sent(&bench, SentKind::Mail), 0);
}

#[tokio::test]
async fn the_inbox_is_the_own_one_by_its_number() {
    let bench = Bench::start().await;
    let path = |inbox: &str| format!("/api/email-messages/compose/{inbox}");
    for (inbox, status) in [
        (String::new(), 400),
        (format!("?inbox={}", NOTES_AGENT.email), 400),
        ("?inbox=99".to_owned(), 404),
        (format!("?inbox={}", DEPLOY_AGENT.inbox_id), 403),
    ] {
        assert_eq!(bench.post(&path(&inbox), letter(STRANGER)).await.status, status, "{inbox}");
    }
    bench.switch(|behaviour| behaviour.mismatch_status = MismatchStatus::NotFound);
    let foreign = path(&format!("?inbox={}", DEPLOY_AGENT.inbox_id));
    assert_eq!(bench.post(&foreign, letter(STRANGER)).await.status, 404);
    let got = bench.managed("POST", &compose_path(), Some(letter(STRANGER))).await;
    assert_eq!((got.status, got.detail().as_str()), (400, "Identity is required."));
    assert_eq!(bench.managed("POST", &as_notes(&compose_path()), Some(letter(STRANGER))).await.status, 201);
    assert_eq!(sent(&bench, SentKind::Mail), 1);
}

#[tokio::test]
async fn a_reply_goes_to_the_sender_and_stays_in_the_thread() {
    let bench = Bench::start().await;
    let got = bench.post("/api/email-messages/502/reply/", json!({ "content": "<p>Yes</p>" })).await;
    assert_eq!(got.status, 201);
    let made = got.json();
    assert_eq!((&made["to_email"], &made["cc"]), (&json!(STRANGER), &json!("")));
    assert_eq!(made["subject"], json!("Re: Plan for Thursday"));
    assert_eq!(made["thread_id"], json!("<plan-7@people.example.org>"));
    assert_ne!(made["message_id"], made["thread_id"]);
    let own = bench.post("/api/email-messages/503/reply/", json!({ "content": "And more" })).await.json();
    assert_eq!((&own["to_email"], &own["subject"]), (&json!(STRANGER), &json!("Re: Plan for Thursday")));
    let thread = bench.get("/api/email-inbox/%3Cplan-7%40people.example.org%3E/").await.json();
    assert_eq!(thread["message_count"], json!(4));
    assert_eq!((&thread["messages"][2]["id"], &thread["messages"][3]["id"]), (&made["id"], &own["id"]));
}

#[tokio::test]
async fn a_reply_to_all_reaches_those_who_had_the_original() {
    let bench = Bench::start().await;
    let mail = NewMail {
        identity: NOTES_AGENT.name.into(),
        from: STRANGER.into(),
        subject: "Lunch".into(),
        text: "Where?".into(),
        to: Some(format!("{}, lee@example.org", NOTES_AGENT.email)),
        cc: vec!["pat@example.org".into(), NOTES_AGENT.email.to_uppercase(), STRANGER.into()],
        ..NewMail::default()
    };
    let id = bench.control.deliver_mail(mail).unwrap();
    let body = json!({ "content": "Here", "cc": ["sam@example.org"] });
    let made = bench.post(&format!("/api/email-messages/{id}/reply-all/"), body.clone()).await.json();
    assert_eq!(made["to_email"], json!(STRANGER));
    assert_eq!(made["cc"], json!("sam@example.org, lee@example.org, pat@example.org"));
    let only = bench.post(&format!("/api/email-messages/{id}/reply/"), body).await.json();
    assert_eq!(only["cc"], json!("sam@example.org"));
}

#[tokio::test]
async fn a_forward_carries_the_original_along() {
    let bench = Bench::start().await;
    let path = "/api/email-messages/501/forward/";
    assert_eq!(
        bench.post(path, json!({ "content": "See" })).await.json()["to_email"],
        json!(["This field is required."])
    );
    let made = bench
        .post(path, json!({ "to_email": "lee@example.org", "content": "<p>See below</p>" }))
        .await
        .json();
    assert_eq!(
        (&made["subject"], &made["to_email"]),
        (&json!("Fwd: Welcome aboard"), &json!("lee@example.org"))
    );
    let html = made["html_content"].as_str().unwrap();
    assert!(html.starts_with("<p>See below</p>") && html.contains("Your account is ready."));
    assert_eq!(made["thread_id"], json!("<welcome-1@news.example.com>"));
}

#[tokio::test]
async fn a_forward_of_forwards_does_not_grow_for_ever() {
    let bench = Bench::start().await;
    let body = json!({ "to_email": STRANGER, "content": "x".repeat(60_000) });
    let mut id = json!(501);
    for _ in 0..4 {
        let got = bench.post(&format!("/api/email-messages/{id}/forward/"), body.clone()).await;
        assert_eq!(got.status, 201);
        id = got.json()["id"].clone();
    }
    let got = bench.post(&format!("/api/email-messages/{id}/forward/"), body).await;
    assert_eq!((got.status, keys_of(&got.json())), (400, vec!["content"]));
}

#[tokio::test]
async fn mail_of_another_identity_is_not_there_to_be_answered() {
    let bench = Bench::start().await;
    for verb in ["reply", "reply-all", "forward"] {
        let body = json!({ "to_email": STRANGER, "content": "C" });
        for id in ["505", "99999", "%3Calert-9%40status.example.net%3E"] {
            let path = format!("/api/email-messages/{id}/{verb}/");
            assert_eq!(bench.post(&path, body.clone()).await.status, 404, "{path}");
        }
        let path = format!("/api/email-messages/502/{verb}/");
        let got = bench.managed("POST", &path, Some(body.clone())).await;
        assert_eq!((got.status, got.detail().as_str()), (400, "Identity is required."));
        assert_eq!(bench.get(&path).await.status, 405);
    }
    assert_eq!(sent(&bench, SentKind::Mail), 0);
}

#[tokio::test]
async fn mail_to_another_identity_arrives_there_once_in_the_same_thread() {
    let bench = Bench::start().await;
    let body = with(letter(STRANGER), "cc", json!([DEPLOY_AGENT.email]));
    let body = with(body, "bcc", json!([DEPLOY_AGENT.email.to_uppercase()]));
    let made = bench.post(&compose_path(), body).await.json();
    let rows = deploy(&bench, "/api/email-messages/").await;
    assert_eq!(texts(&rows["results"], "subject"), ["Disk almost full", "Minutes"]);
    let copy = &rows["results"][1];
    assert_eq!((&copy["direction"], &copy["is_read"]), (&json!("incoming"), &json!(false)));
    assert_eq!((&copy["message_id"], &copy["thread_id"]), (&made["message_id"], &made["thread_id"]));
    assert!(copy["id"].as_i64() > made["id"].as_i64());

    let key = bench.control.identity_key(DEPLOY_AGENT.name).unwrap();
    let path = format!("/api/email-messages/{}/reply/", copy["id"]);
    bench.call("POST", &path, key.expose(), Some(json!({ "content": "Back" }))).await;
    let thread = made["thread_id"].as_str().unwrap().replace('<', "%3C").replace('>', "%3E");
    let thread = bench.get(&format!("/api/email-inbox/{thread}/")).await.json();
    assert_eq!(texts(&thread["messages"], "direction"), ["outgoing", "incoming"]);
}

// ---------------------------------------------------------------- sent once

#[tokio::test]
async fn a_send_can_take_effect_although_its_answer_is_lost() {
    let bench = Bench::start().await;
    let reply = json!({ "content": "C", "to_email": STRANGER });
    let presign = json!({ "filename": "a.txt", "content_type": "text/plain", "size": 1 });
    let posts = [
        (SEND.to_owned(), json!({ "to_number": "+12025550177", "body": "Hi" })),
        (compose_path(), letter(STRANGER)),
        ("/api/email-messages/502/reply/".to_owned(), reply.clone()),
        ("/api/email-messages/502/reply-all/".to_owned(), reply.clone()),
        ("/api/email-messages/502/forward/".to_owned(), reply),
        ("/api/contacts/".to_owned(), json!({ "email": "new@example.org" })),
        ("/api/email-attachments/presign/".to_owned(), presign),
    ];
    for (path, body) in &posts {
        bench.fault(Fault::new("/api/", Answer::Status(502)).on("POST").times(1).taking_effect());
        assert_eq!(bench.post(path, body.clone()).await.status, 502, "{path}");
    }
    assert_eq!((sent(&bench, SentKind::Sms), sent(&bench, SentKind::Mail)), (1, 4));
    assert_eq!(bench.get("/api/contacts/find/?email=new@example.org").await.status, 200);
    bench.switch(|behaviour| behaviour.uploads_per_hour = Some(1));
    let (path, body) = &posts[6];
    assert_eq!(bench.post(path, body.clone()).await.status, 429, "the lost one counts");

    bench.fault(Fault::new("/api/", Answer::Status(502)).on("POST").times(1));
    assert_eq!(bench.post(SEND, posts[0].1.clone()).await.status, 502);
    assert_eq!(sent(&bench, SentKind::Sms), 1, "without effect nothing is sent");
}

#[tokio::test]
async fn what_was_sent_can_be_counted_over_http() {
    let bench = Bench::start().await;
    let sms = bench.post(SEND, json!({ "to_number": "+12025550177", "body": "Hi" })).await.json();
    let mail = bench.post(&compose_path(), letter(STRANGER)).await.json();
    let seen = bench.call("GET", "/__sandbox__/sent/", "", None).await.json();
    assert_eq!(
        seen,
        json!({ "mail": 1, "sms": 1, "messages": [
            { "kind": "sms", "id": sms["id"], "identity": NOTES_AGENT.uuid, "to": "+12025550177",
              "cc": [], "bcc": [], "attachments": [] },
            { "kind": "mail", "id": mail["id"], "identity": NOTES_AGENT.uuid, "to": STRANGER,
              "cc": [], "bcc": [], "attachments": [] },
        ]})
    );
    bench.control.reset().unwrap();
    assert_eq!(bench.control.sent(), []);
}
