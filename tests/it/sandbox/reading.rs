//! Reading SMS and mail, §3.3 to §3.6 of the contract sheet.

use super::*;

#[tokio::test]
async fn sms_are_grouped_by_conversation() {
    let bench = Bench::start().await;
    let rows = bench.get("/api/sms-inbox/").await.json();
    assert_eq!(
        keys_of(&rows[0]),
        [
            "conversation_id",
            "from_number",
            "latest_message_dt",
            "message_count",
            "phone",
            "phone_number",
            "preview",
            "unread_count"
        ]
    );
    assert_eq!(texts(&rows, "conversation_id"), ["1_+12025550188", "1_+12025550177"]);
    assert_eq!((&rows[1]["message_count"], &rows[1]["unread_count"]), (&json!(2), &json!(1)));
    let talk = bench.get("/api/sms-inbox/1_%2B12025550177/").await.json();
    assert_eq!(keys_of(&talk), ["conversation_id", "from_number", "message_count", "messages", "phone"]);
    assert_eq!(keys_of(&talk["messages"][0]), ["body", "created_dt", "direction", "id", "is_read"]);
    assert_eq!(texts(&talk["messages"], "direction"), ["incoming", "outgoing"]);
    assert_eq!(bench.get("/api/sms-inbox/2_%2B12025550188/").await.status, 404, "another identity's");
    bench.switch(|behaviour| behaviour.reading_marks_read = true);
    bench.get("/api/sms-inbox/1_%2B12025550177/").await;
    let unread = bench.get("/api/sms-inbox/?has_unread=true").await.json();
    assert_eq!(texts(&unread, "from_number"), ["+12025550188"]);
}

#[tokio::test]
async fn sms_are_listed_flat_and_new_ones_come_first() {
    let bench = Bench::start().await;
    let sms = NewSms {
        identity: NOTES_AGENT.uuid.to_string(),
        from: "+12025550199".into(),
        body: "Hello".into(),
        ..NewSms::default()
    };
    let id = bench.control.deliver_sms(sms).unwrap();
    let rows = bench.get("/api/messages/").await.json();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["id"]), (4, &json!(id)));
    let got = bench.get(&format!("/api/messages/{id}/")).await.json();
    assert_eq!(got, rows[0]);
    assert_eq!(
        keys_of(&got),
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
    assert_eq!((&got["from_number"], &got["to_number"]), (&json!("+12025550199"), &json!(NOTES_AGENT.phone)));
    assert_eq!(got["is_read"], json!(false), "reading does not mark");
    assert_eq!(bench.get("/api/messages/?is_read=false").await.json().as_array().unwrap().len(), 3);
    assert_eq!(bench.get("/api/messages/804/").await.status, 404, "another identity's");
    assert_eq!(bench.get("/api/messages/sms/").await.status, 404, "a path of the past");
}

#[tokio::test]
async fn mail_is_grouped_by_thread() {
    let bench = Bench::start().await;
    let rows = bench.get("/api/email-inbox/").await.json();
    assert_eq!(
        keys_of(&rows[0]),
        [
            "from_email",
            "inbox",
            "latest_message_dt",
            "message_count",
            "oldest_message_dt",
            "preview",
            "subject",
            "thread_id",
            "unread_count"
        ]
    );
    assert_eq!(texts(&rows, "subject"), ["Your sign-in code", "Plan for Thursday", "Welcome aboard"]);
    let thread = bench.get("/api/email-inbox/%3Cplan-7%40people.example.org%3E/").await.json();
    assert_eq!(keys_of(&thread), ["message_count", "messages", "subject", "thread_id"]);
    assert_eq!(texts(&thread["messages"], "direction"), ["incoming", "outgoing"], "oldest first");
    assert_eq!(
        keys_of(&thread["messages"][0]),
        [
            "attachments",
            "cc",
            "created_dt",
            "direction",
            "from_email",
            "html_content",
            "id",
            "is_read",
            "subject",
            "text_content",
            "to_email"
        ]
    );
    assert_eq!(bench.get("/api/email-inbox/%3Calert-9%40status.example.net%3E/").await.status, 404);
    let inbox = |id: i64| format!("/api/email-inbox/?inbox={id}");
    assert_eq!(bench.get(&inbox(NOTES_AGENT.inbox_id)).await.json().as_array().unwrap().len(), 3);
    assert_eq!(bench.get(&inbox(DEPLOY_AGENT.inbox_id)).await.json(), json!([]));
}

fn mail_for_notes(subject: &str) -> NewMail {
    NewMail {
        identity: NOTES_AGENT.name.into(),
        from: "service@example.net".into(),
        subject: subject.into(),
        text: "Hello".into(),
        ..NewMail::default()
    }
}

#[tokio::test]
async fn mail_is_paged_oldest_first_with_a_cursor_of_time() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let path = "/api/email-messages/";
    let all = bench.get(path).await.json();
    assert_eq!(keys_of(&all), ["count", "next", "previous", "results"]);
    assert_eq!((&all["count"], &all["next"], &all["previous"]), (&json!(4), &Value::Null, &Value::Null));
    assert_eq!(all["results"][0]["subject"], json!("Welcome aboard"));
    let detail = bench.get(&format!("{path}{}/", all["results"][0]["id"])).await.json();
    assert_eq!(detail, all["results"][0]);
    assert!(["message_id", "thread_id", "url"].iter().all(|field| detail[field].is_string()));
    assert_eq!(bench.get("/api/email-messages/505/").await.status, 404, "another identity's");

    let first = bench.get("/api/email-messages/?limit=3").await.json();
    let next = first["next"].as_str().unwrap().strip_prefix(bench.sandbox.base_url()).unwrap().to_owned();
    let second = bench.get(&next).await.json();
    assert_eq!(
        (first["results"].as_array().unwrap().len(), second["results"].as_array().unwrap().len()),
        (3, 1)
    );
    assert!(second["previous"].is_string() && second["next"].is_null());

    let cursor = clock.wall();
    clock.advance(Duration::from_secs(1));
    bench.control.deliver_mail(mail_for_notes("New")).unwrap();
    let after = bench.get(&format!("{path}?created_after={cursor}&direction=incoming")).await.json();
    assert_eq!(texts(&after["results"], "subject"), ["New"]);
    let sent = bench.get("/api/email-messages/?direction=outgoing").await.json();
    assert_eq!(texts(&sent["results"], "subject"), ["Re: Plan for Thursday"]);
    assert_eq!(bench.get("/api/email-messages/?created_after=yesterday").await.status, 400);
    bench.switch(|behaviour| behaviour.email_messages = ListShape::Array);
    let array = bench.get(path).await.json();
    assert_eq!(array[0]["subject"], json!("New"), "newest first");
}

#[tokio::test]
async fn a_page_of_mail_has_at_most_200() {
    let bench = Bench::start().await;
    for index in 0..210 {
        bench.control.deliver_mail(mail_for_notes(&index.to_string())).unwrap();
    }
    for (query, expected) in [("", 50), ("?limit=500", 200), ("?limit=0", 50)] {
        let page = bench.get(&format!("/api/email-messages/{query}")).await.json();
        assert_eq!(page["results"].as_array().unwrap().len(), expected);
    }
}
