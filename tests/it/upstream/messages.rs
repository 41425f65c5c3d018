//! Messages that are read: lists of every shape, mails of every size, and whose they are.

use ravi_broker::types::EmailAddress;
use ravi_broker::upstream::{Attachment, ContactAddress, Direction, Mail, Mailbox};

use super::*;

const OURS: &str = "a@ravi.id";
const NUMBER: &str = "+15550100001";
const MIB: usize = 1024 * 1024;

/// A client that knows the address and the number of identity A, and that of B.
pub(super) async fn knowing(rude: &Rude) -> HttpUpstream {
    let ravi = Client::new(rude).ravi;
    rude.queue([
        json(200, &identity(A, Some(OURS), Some(NUMBER))),
        json(200, &identity(B, Some("b@ravi.id"), None)),
    ]);
    ravi.read_identity(a()).await.unwrap();
    ravi.read_identity(b()).await.unwrap();
    rude.take();
    rude.take();
    ravi
}

/// A mail that came in in that second.
fn mail(id: i64, second: u8) -> String {
    mail_between(id, second, "kim@example.org", OURS)
}

fn mail_between(id: i64, second: u8, from: &str, to: &str) -> String {
    format!(
        r#"{{"id":{id},"from_email":"{from}","to_email":"{to}","cc":"","subject":"S{id}","text_content":"T{id}","html_content":"<p>","direction":"incoming","is_read":false,"attachments":[],"created_dt":"2026-11-23T12:00:{second:02}.5Z","url":"u","message_id":"<{id}@x>","thread_id":"<t@x>"}}"#
    )
}

fn array(rows: &[String]) -> Act {
    json(200, &format!("[{}]", rows.join(",")))
}

fn page(count: usize, next: &str, rows: &[String]) -> Act {
    let next = if next.is_empty() { "null".to_owned() } else { format!("\"{next}\"") };
    json(200, &format!(r#"{{"count":{count},"next":{next},"previous":null,"results":[{}]}}"#, rows.join(",")))
}

fn ids(mails: &[Mail]) -> Vec<i64> {
    mails.iter().map(|mail| mail.id).collect()
}

/// What the oldest request asked for, without the identity.
fn asked(rude: &Rude) -> String {
    let request = rude.take();
    let target = request.head.split(' ').nth(1).unwrap().to_owned();
    assert!(target.contains(&format!("?identity={A}")), "{target}");
    target.replace(&format!("?identity={A}"), "?")
}

fn text(id: i64, direction: &str, from: &str, to: &str) -> String {
    format!(
        r#"{{"id":{id},"from_number":"{from}","to_number":"{to}","body":"B{id}","phone":"x","direction":"{direction}","is_read":true,"created_dt":"2026-11-23T12:00:{id:02}Z"}}"#
    )
}

#[tokio::test]
async fn every_reading_endpoint_gets_the_identitys_key_and_names_it() {
    for has_identity_key in [false, true] {
        let rude = Rude::start(vec![]).await;
        let keys = TestKeys { identity: has_identity_key.then_some(IDENTITY_KEY), ..TestKeys::default() };
        let ravi = Client::with(&rude, keys).ravi;
        let own = if has_identity_key { IDENTITY_KEY } else { MANAGEMENT_KEY };
        let scoped = |path: &str, more: &str| (format!("GET {path}?identity={A}{more} "), Some(own));
        let after = "2026-11-23T12:00:00.123456Z".parse().unwrap();

        let _ = ravi.list_mail(a(), None, 7).await;
        rude.expect(scoped("/api/email-messages/", "&limit=7"));
        let _ = ravi.list_mail(a(), Some(after), 1000).await;
        let cursor = "&created_after=2026-11-23T12%3A00%3A00.123456Z&limit=200";
        rude.expect(scoped("/api/email-messages/", cursor));
        let _ = ravi.newest_mail(a(), 0, 7).await;
        rude.expect(scoped("/api/email-messages/", "&limit=1"));
        let _ = ravi.read_mail(a(), 9).await;
        rude.expect(scoped("/api/email-messages/9/", ""));
        let _ = ravi.list_texts(a(), None).await;
        rude.expect(scoped("/api/messages/", ""));
        let _ = ravi.read_text(a(), 9).await;
        rude.expect(scoped("/api/messages/9/", ""));
        let _ = ravi.find_contact(a(), &ContactAddress::Email("k+1@b.c".parse().unwrap())).await;
        rude.expect(scoped("/api/contacts/find/", "&email=k%2B1%40b.c"));
        let _ = ravi.find_contact(a(), &ContactAddress::Phone(NUMBER.parse().unwrap())).await;
        rude.expect(scoped("/api/contacts/find/", "&phone_number=%2B15550100001"));
        let _ = ravi.search_contacts(a(), "kim & co").await;
        rude.expect(scoped("/api/contacts/search/", "&q=kim%20%26%20co"));
        assert_eq!(rude.seen(), 0, "every request was expected");
    }
}

#[tokio::test]
async fn a_mail_is_read_as_it_was_given() {
    let row = mail_between(9, 1, "Kim <kim@example.org>", "A <A@Ravi.id>")
        .replace("\"cc\":\"\"", r#""cc":["x@y.z","c@d.e"]"#)
        .replace("\"attachments\":[]", r#""attachments":[{"uuid":"u","filename":"a\u0007.pdf","content_type":"x/y","size":3,"is_inline":false}]"#)
        .replace("T9", "code 481920\\n");
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    rude.queue([json(200, &row)]);
    let mail = ravi.read_mail(a(), 9).await.unwrap();
    assert_eq!((mail.from.as_str(), mail.to.as_str()), ("Kim <kim@example.org>", "A <A@Ravi.id>"));
    assert_eq!(
        (mail.cc.as_str(), mail.thread.as_str(), mail.message_id.as_str()),
        ("x@y.z, c@d.e", "<t@x>", "<9@x>")
    );
    assert_eq!([&mail.subject, &mail.text, &mail.html].map(Secret::expose), ["S9", "code 481920\n", "<p>"]);
    assert_eq!(mail.created.to_string(), "2026-11-23T12:00:01.5Z");
    assert_eq!(mail.attachments, [Attachment { name: "a.pdf".into(), content_type: "x/y".into(), size: 3 }]);
    assert_eq!((mail.direction, mail.is_read, mail.oversized), (Direction::Incoming, false, false));
}

// Lists.

#[tokio::test]
async fn mail_is_listed_oldest_first_from_both_shapes() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    let rows = [mail(1, 1), mail(3, 2), mail(2, 2)];
    rude.queue([page(3, "", &rows), array(&[rows[1].clone(), rows[2].clone(), rows[0].clone()])]);
    for shape in ["pages", "array"] {
        assert_eq!(ids(&ravi.list_mail(a(), None, 50).await.unwrap()), [1, 2, 3], "{shape}");
    }
    rude.queue([page(0, "", &[]), array(&[])]);
    for _ in 0..2 {
        assert!(ravi.list_mail(a(), None, 50).await.unwrap().is_empty());
    }
    assert_eq!((rude.left(), rude.seen()), (0, 4));
}

#[tokio::test]
async fn what_has_exactly_the_time_of_the_cursor_is_left_out() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    rude.queue([page(2, "", &[mail(1, 1), mail(2, 2)])]);
    let after = "2026-11-23T12:00:01.5Z".parse().unwrap();
    assert_eq!(ids(&ravi.list_mail(a(), Some(after), 50).await.unwrap()), [2]);
}

#[tokio::test]
async fn further_pages_are_asked_for_at_our_own_origin_until_there_are_enough() {
    let elsewhere = Rude::start(vec![]).await;
    let next = format!("{}/api/email-messages/?offset=2", elsewhere.origin());
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    let pages = [page(9, &next, &[mail(1, 1), mail(2, 2)]), page(9, &next, &[mail(3, 3), mail(4, 4)])];
    rude.queue(pages);
    assert_eq!(ids(&ravi.list_mail(a(), None, 3).await.unwrap()), [1, 2, 3]);
    assert_eq!(asked(&rude), "/api/email-messages/?&limit=3");
    assert_eq!(asked(&rude), "/api/email-messages/?&limit=3&offset=2");
    assert_eq!((rude.seen(), elsewhere.connections()), (0, 0));
}

#[tokio::test]
async fn the_oldest_of_a_list_that_begins_with_the_newest_are_found_at_its_end() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    // A mail arrives between the two requests and moves the rest by one.
    rude.queue([array(&[mail(5, 5), mail(4, 4)]), array(&[mail(4, 4), mail(3, 3)]), array(&[mail(2, 2)])]);
    assert_eq!(ids(&ravi.list_mail(a(), None, 2).await.unwrap()), [2, 3]);
    let targets = [asked(&rude), asked(&rude), asked(&rude)];
    assert_eq!(
        targets.map(|target| target.split("limit=2").last().unwrap().to_owned()),
        ["", "&offset=2", "&offset=4"]
    );
}

#[tokio::test]
async fn the_newest_are_found_by_the_count_of_a_list_that_begins_with_the_oldest() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    rude.queue([page(10, "x", &[mail(1, 1)]), page(10, "x", &[mail(6, 6), mail(7, 7), mail(8, 8)])]);
    assert_eq!(ids(&ravi.newest_mail(a(), 2, 3).await.unwrap()), [8, 7, 6]);
    assert_eq!(asked(&rude), "/api/email-messages/?&limit=1");
    assert_eq!(asked(&rude), "/api/email-messages/?&limit=3&offset=5");
    rude.queue([page(2, "x", &[mail(1, 1)]), page(2, "", &[mail(1, 1), mail(2, 2)])]);
    assert_eq!(ids(&ravi.newest_mail(a(), 0, 50).await.unwrap()), [2, 1]);
    rude.queue([page(2, "x", &[mail(1, 1)])]);
    assert!(ravi.newest_mail(a(), 2, 50).await.unwrap().is_empty());
    assert_eq!((rude.left(), rude.seen()), (0, 3));
}

#[tokio::test]
async fn the_newest_stand_first_in_an_array_and_in_pages_that_say_so_by_their_rows() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    rude.queue([array(&[mail(9, 9)]), array(&[mail(8, 8), mail(7, 7)])]);
    assert_eq!(ids(&ravi.newest_mail(a(), 1, 2).await.unwrap()), [8, 7]);
    assert_eq!([asked(&rude), asked(&rude)][1], "/api/email-messages/?&limit=2&offset=1");
    rude.queue([
        page(9, "x", &[mail(9, 9)]),
        page(9, "x", &[mail(3, 3), mail(2, 2)]),
        page(9, "x", &[mail(8, 8), mail(7, 7)]),
    ]);
    assert_eq!(ids(&ravi.newest_mail(a(), 1, 2).await.unwrap()), [8, 7]);
    assert_eq!(rude.left(), 0);
}

#[tokio::test]
async fn a_malformed_row_drops_the_answer() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    for row in
        [mail(0, 1), mail(-1, 1), mail(1, 1).replace("2026", "today"), mail(1, 1).replace("\"T1\"", "{}")]
    {
        rude.queue([page(1, "", &[row])]);
        assert_eq!(fault(ravi.list_mail(a(), None, 5).await), AnswerFault::Malformed);
    }
}

// Sizes.

/// A mail of two texts, as long as they may be to come whole.
fn heavy(id: i64) -> String {
    let most = "x".repeat(MIB);
    mail(id, u8::try_from(id).unwrap())
        .replace(&format!("\"T{id}\""), &format!("\"{most}\""))
        .replace("<p>", &most)
}

#[tokio::test]
async fn a_large_mail_comes_without_its_long_text_and_the_others_whole() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    let large = mail(2, 2).replace("<p>", &format!("a\\\"{}", "\\u00e9".repeat(2 * MIB)));
    rude.queue([page(3, "", &[mail(1, 1), large.clone(), mail(3, 3)]), json(200, &large)]);
    let mails = ravi.list_mail(a(), None, 50).await.unwrap();
    assert_eq!(ids(&mails), [1, 2, 3]);
    assert_eq!([0, 1, 2].map(|at| mails[at].oversized), [false, true, false]);
    assert_eq!([0, 1, 2].map(|at| mails[at].text.expose()), ["T1", "T2", "T3"]);
    assert_eq!([0, 1, 2].map(|at| mails[at].html.expose()), ["<p>", "", "<p>"]);
    let read = ravi.read_mail(a(), 2).await.unwrap();
    assert_eq!((read.oversized, read.text.expose(), read.html.expose()), (true, "T2", ""));
}

#[tokio::test]
async fn a_window_that_is_too_large_is_halved_and_the_width_found_again() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    let three = [heavy(1), heavy(2), heavy(3)];
    rude.queue([
        page(4, "x", &three),
        page(4, "x", &three[..1]),
        page(4, "", &[mail(2, 2), mail(3, 3), mail(4, 4)]),
    ]);
    let mails = ravi.list_mail(a(), None, 4).await.unwrap();
    assert_eq!(ids(&mails), [1, 2, 3, 4]);
    assert_eq!((mails[0].oversized, mails[0].html.len()), (false, MIB));
    let targets = [asked(&rude), asked(&rude), asked(&rude)];
    let more = targets.map(|target| target.replace("/api/email-messages/?", ""));
    assert_eq!(more, ["&limit=4", "&limit=2", "&limit=4&offset=1"]);
}

#[tokio::test]
async fn a_mail_that_does_not_fit_at_all_is_passed_over() {
    let many = format!("\"cc\":[{}\"\"]", format!("\"{}\",", "x".repeat(1000)).repeat(5000));
    let monster = mail(1, 1).replace("\"cc\":\"\"", &many);
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    let dropped = || page(2, "x", std::slice::from_ref(&monster));
    rude.queue([dropped(), dropped(), page(2, "", &[mail(2, 2)])]);
    assert_eq!(ids(&ravi.list_mail(a(), None, 2).await.unwrap()), [2]);
    rude.queue([dropped(), page(2, "x", &[mail(2, 2)]), page(2, "x", &[mail(2, 2)]), dropped()]);
    let newest = ravi.newest_mail(a(), 0, 1).await.unwrap();
    assert_eq!(ids(&newest), [2], "the count is learned from another mail");
}

#[tokio::test]
async fn a_list_costs_sixteen_requests_at_most() {
    let endless = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        u64::MAX / 2
    );
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    rude.queue(vec![raw(&endless); 60]);
    assert_eq!(fault(ravi.list_mail(a(), None, 200).await), AnswerFault::TooLarge);
    assert_eq!(rude.seen(), 16);
    assert_eq!(fault(ravi.newest_mail(a(), 0, 200).await), AnswerFault::TooLarge);
    assert_eq!(rude.seen(), 32);
    assert_eq!(fault(ravi.list_texts(a(), None).await), AnswerFault::TooLarge);
    assert_eq!(rude.seen(), 34);
}

#[tokio::test]
async fn a_list_ends_where_its_texts_would_weigh_too_much() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    for id in 1..=8 {
        rude.queue([page(99, "x", &[heavy(id)])]);
    }
    let mails = ravi.list_mail(a(), None, 20).await.unwrap();
    assert_eq!(ids(&mails), [1, 2, 3, 4], "and not the fifth");
}

#[tokio::test]
async fn an_answer_to_anything_else_has_the_usual_bound() {
    let contact = format!(r#"[{{"display_name":"K","notes":"{}"}}]"#, "x".repeat(2 * MIB));
    let rude = Rude::start(vec![json(200, &contact)]).await;
    assert_eq!(fault(Client::new(&rude).ravi.search_contacts(a(), "k").await), AnswerFault::TooLarge);
}

// Whose messages they are.

#[tokio::test]
async fn a_mail_that_came_in_names_us_or_nobody_else_that_is_known() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    let to = |id: i64, to: &str| mail_between(id, 1, "kim@example.org", to);
    let copy = to(3, "b@ravi.id").replace("\"cc\":\"\"", "\"cc\":\"x@y.z, A <a@ravi.id>\"");
    rude.queue([page(
        4,
        "",
        &[to(1, "a+tag@ravi.id"), to(2, "list@lists.example.org"), copy.clone(), to(4, "")],
    )]);
    assert_eq!(ids(&ravi.list_mail(a(), None, 50).await.unwrap()), [1, 2, 3, 4]);

    // Sent to us blind, or another's: that one is left out, and then also what names nobody.
    let blind = to(5, "B <B@ravi.id>");
    rude.queue([page(4, "", &[to(1, OURS), to(2, "list@lists.example.org"), copy, blind.clone()])]);
    assert_eq!(ids(&ravi.list_mail(a(), None, 50).await.unwrap()), [1, 3]);

    rude.queue([page(1, "", std::slice::from_ref(&blind)), json(200, &blind), json(200, &to(6, OURS))]);
    assert_eq!(ids(&ravi.list_mail(a(), None, 50).await.unwrap()), [0; 0], "nothing of ours at all");
    assert_eq!(fault(ravi.read_mail(a(), 5).await), AnswerFault::Foreign);
    assert_eq!(fault(ravi.read_mail(a(), 5).await), AnswerFault::Foreign, "another mail than asked for");
}

#[tokio::test]
async fn no_flood_of_blind_copies_keeps_our_mail_from_being_read() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    let blind = |id: i64, to: &str| mail_between(id, u8::try_from(id).unwrap(), "eve@example.net", to);
    let rows = [blind(2, "x@y.z"), blind(3, "b@ravi.id"), blind(4, "x@y.z"), mail(5, 5)];
    rude.queue([page(5, "x", &[blind(1, "b@ravi.id")]), page(5, "", &rows)]);
    assert_eq!(ids(&ravi.list_mail(a(), None, 1).await.unwrap()), [5]);
    assert_eq!([asked(&rude), asked(&rude)][1], "/api/email-messages/?&limit=200&offset=1");
    let newest = || page(5, "x", &[blind(1, "x@y.z")]);
    rude.queue([
        newest(),
        page(5, "", &[blind(5, "b@ravi.id")]),
        page(5, "", &[mail(3, 3), blind(4, "x@y.z")]),
    ]);
    assert_eq!(ids(&ravi.newest_mail(a(), 0, 1).await.unwrap()), [3]);
}

#[tokio::test]
async fn mail_that_another_sent_drops_the_whole_answer() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    let sent = |from: &str| mail_between(2, 2, from, OURS).replace("incoming", "outgoing");
    rude.queue([
        page(2, "", &[mail(1, 1), sent("A <a@ravi.id>")]),
        page(2, "", &[mail(1, 1), sent("kim@example.org")]),
    ]);
    assert_eq!(ravi.list_mail(a(), None, 50).await.unwrap()[1].direction, Direction::Outgoing);
    assert_eq!(fault(ravi.list_mail(a(), None, 50).await), AnswerFault::Foreign);
    rude.queue([json(200, &sent("b@ravi.id"))]);
    assert_eq!(fault(ravi.read_mail(a(), 2).await), AnswerFault::Foreign);
}

#[tokio::test]
async fn our_own_address_is_read_once_and_an_identity_without_one_has_no_mail() {
    let rude = Rude::start(vec![]).await;
    let ravi = Client::new(&rude).ravi;
    let one = || page(1, "", &[mail(1, 1)]);
    rude.queue([page(0, "", &[]), one(), json(200, &identity(A, Some(OURS), None)), one()]);
    assert!(ravi.list_mail(a(), None, 5).await.unwrap().is_empty(), "nothing to compare");
    assert_eq!(ravi.list_mail(a(), None, 5).await.unwrap().len(), 1);
    assert_eq!(ravi.list_mail(a(), None, 5).await.unwrap().len(), 1);
    rude.queue([one(), json(200, &identity(B, None, None))]);
    assert_eq!(fault(ravi.list_mail(b(), None, 5).await), AnswerFault::Foreign);
    assert_eq!(rude.left(), 0);
}

// Text messages.

#[tokio::test]
async fn texts_come_newest_first_and_only_those_after_the_number() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    let rows = [
        text(1, "incoming", "GOOGLE", NUMBER),
        text(3, "new", "12345", NUMBER),
        text(2, "outgoing", NUMBER, "+1"),
    ];
    rude.queue([array(&rows), array(&rows), json(200, &rows[0])]);
    let texts = ravi.list_texts(a(), None).await.unwrap();
    assert_eq!(texts.iter().map(|text| text.id).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(texts[0].direction, Direction::Outgoing, "what is not known");
    assert_eq!(
        (texts[2].from.as_str(), texts[2].to.as_str(), texts[2].body.expose()),
        ("GOOGLE", NUMBER, "B1")
    );
    assert_eq!(ravi.list_texts(a(), Some(2)).await.unwrap().len(), 1);
    let read = ravi.read_text(a(), 1).await.unwrap();
    assert_eq!((read.body.expose(), read.is_read), ("B1", true));
}

#[tokio::test]
async fn a_text_of_another_number_drops_the_whole_answer() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    let who = || json(200, &identity(A, Some(OURS), Some(NUMBER)));
    let ours = text(1, "incoming", "GOOGLE", NUMBER);
    for foreign in [
        text(2, "incoming", NUMBER, "+15550100002"),
        text(2, "outgoing", "+15550100002", NUMBER),
        text(2, "new", "+15550100002", "+15550100003"),
    ] {
        rude.queue([array(&[ours.clone(), foreign.clone()]), who(), json(200, &foreign), who()]);
        assert_eq!(fault(ravi.list_texts(a(), None).await), AnswerFault::Foreign);
        assert_eq!(fault(ravi.read_text(a(), 2).await), AnswerFault::Foreign);
    }
    rude.queue([json(200, &ours)]);
    assert_eq!(fault(ravi.read_text(a(), 2).await), AnswerFault::Foreign, "another text than asked for");
    assert_eq!(rude.left(), 0);
}

#[tokio::test]
async fn texts_that_are_too_many_are_read_by_conversation_the_latest_first() {
    let rude = Rude::start(vec![]).await;
    let ravi = knowing(&rude).await;
    let too_large = || json(200, &format!("[\"{}\"]", "x\",\"".repeat(2 * MIB)));
    let talk = |from: &str, minute: u8| {
        format!(
            r#"{{"conversation_id":"1_{from}","from_number":"{from}","phone_number":"{NUMBER}","latest_message_dt":"2026-11-23T12:{minute:02}:00Z"}}"#
        )
    };
    let said = |from: &str, rows: &str| {
        json(200, &format!(r#"{{"conversation_id":"1_{from}","messages":[{rows}]}}"#))
    };
    let row = |id: i64, direction: &str| {
        format!(
            r#"{{"id":{id},"body":"B{id}","direction":"{direction}","is_read":false,"created_dt":"2026-11-23T12:00:{id:02}Z"}}"#
        )
    };
    let talks = || array(&[talk("+12", 1), talk("+13", 3), talk("+11", 2)]);
    rude.queue([
        too_large(),
        talks(),
        said("+13", &[row(8, "incoming"), row(9, "outgoing")].join(",")),
        said("+11", &row(4, "incoming")),
    ]);
    let texts = ravi.list_texts(a(), Some(5)).await.unwrap();
    let seen: Vec<_> = texts.iter().map(|text| (text.id, text.from.as_str(), text.to.as_str())).collect();
    assert_eq!(seen, [(9, NUMBER, "+13"), (8, "+13", NUMBER)]);
    let paths: Vec<String> = (0..4).map(|_| asked(&rude)).collect();
    assert_eq!(
        paths,
        ["/api/messages/?", "/api/sms-inbox/?", "/api/sms-inbox/1_%2B13/?", "/api/sms-inbox/1_%2B11/?"]
    );

    rude.queue([too_large(), talks(), too_large(), said("+99", &row(4, "incoming"))]);
    assert_eq!(fault(ravi.list_texts(a(), None).await), AnswerFault::Foreign, "another conversation");
    rude.queue([too_large(), array(&[talk("+11", 1).replace(NUMBER, "+15550100002")])]);
    assert_eq!(fault(ravi.list_texts(a(), None).await), AnswerFault::Foreign, "of another number");
    assert_eq!(rude.left(), 0);
}

// Contacts.

#[tokio::test]
async fn a_contact_is_the_one_that_was_asked_for_or_none() {
    let contact = |email: &str, number: i64| {
        format!(
            r#"{{"uuid":"{ROW}","identity":{number},"email":"{email}","phone_number":null,"display_name":"","nickname":"Kim","is_trusted":true,"source":"auto"}}"#
        )
    };
    let rude = Rude::start(vec![
        json(200, &contact("Kim@example.org", 7)),
        status(404),
        json(200, &contact("eve@example.org", 7)),
        json(200, "[]"),
        json(200, &format!("[{}]", secret_row(ROW, 7, "API_KEY"))),
        json(200, &contact("kim@example.org", 8)),
        json(200, &format!("[{}]", contact("kim@example.org", 8))),
        json(200, &format!("[{}]", contact("kim@example.org", 7))),
    ])
    .await;
    let ravi = Client::new(&rude).ravi;
    let kim: EmailAddress = "kim@example.org".parse().unwrap();
    let kim = ContactAddress::Email(kim);
    let found = ravi.find_contact(a(), &kim).await.unwrap().unwrap();
    assert_eq!(
        (found.name.as_str(), found.email.as_str(), found.phone.as_str()),
        ("Kim", "Kim@example.org", "")
    );
    assert!(found.is_trusted);
    assert_eq!(ravi.find_contact(a(), &kim).await.unwrap(), None);
    assert_eq!(fault(ravi.find_contact(a(), &kim).await), AnswerFault::Foreign);
    assert!(ravi.search_contacts(a(), "kim").await.unwrap().is_empty());
    ravi.list_secrets(a()).await.unwrap();
    assert_eq!(fault(ravi.find_contact(a(), &kim).await), AnswerFault::Foreign, "of another number");
    assert_eq!(fault(ravi.search_contacts(a(), "kim").await), AnswerFault::Foreign);
    assert_eq!(ravi.search_contacts(a(), "kim").await.unwrap().len(), 1);
}
