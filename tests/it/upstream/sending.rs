//! What is sent and made: once, for the right identity, and in doubt where the answer is lost. Against the sandbox
//! where it can do it.

use ravi_broker::sandbox::seed::{DEPLOY_AGENT, NOTES_AGENT, SeedIdentity};
use ravi_broker::sandbox::{
    Answer, Behaviour, Control, Fault, ListShape, NewMail, NewSms, Sandbox, SandboxConfig, StorageHost,
};
use ravi_broker::types::{Channel, MessageRef};
use ravi_broker::upstream::{
    Answering, ContactAddress, Direction, Draft, Mail, Mailbox, NewAttachment, Sent,
};
use zeroize::Zeroizing;

use super::*;

fn answering(content: &str) -> Answering {
    Answering { content: Secret::copy_of(content), cc: Vec::new(), bcc: Vec::new(), attachments: Vec::new() }
}

fn draft(to: &str) -> Draft {
    Draft { to: to.parse().unwrap(), subject: Secret::copy_of("Plan"), rest: answering("<p>Hi</p>") }
}

fn sent(channel: Channel, id: i64) -> Sent {
    Sent { message: MessageRef { channel, id } }
}

const EMAILS: &str = r#"[{"id":71,"email":"a@ravi.id","created_dt":"x"}]"#;

fn who() -> Act {
    json(200, &identity(A, Some("a@ravi.id"), Some("+15550100001")))
}

#[tokio::test]
async fn what_is_sent_is_as_documented_and_names_its_identity() {
    let rude =
        Rude::start(vec![json(200, EMAILS), who(), json(201, r#"{"id":8,"from_email":"A <a@ravi.id>"}"#)])
            .await;
    let ravi = Client::new(&rude).ravi;
    let full = || Answering {
        cc: vec!["c@d.e".parse().unwrap()],
        bcc: vec!["f@g.h".parse().unwrap()],
        attachments: vec![row()],
        ..answering("<p>\"</p>")
    };
    let composed = ravi.compose(a(), &Draft { rest: full(), ..draft("kim@example.org") }).await.unwrap();
    assert_eq!(composed, sent(Channel::Email, 8));
    rude.expect((format!("GET /api/email/?identity={A} "), Some(MANAGEMENT_KEY)));
    rude.expect((format!("GET /api/identities/{A}/ "), Some(MANAGEMENT_KEY)));
    let more =
        format!(r#""content":"<p>\"</p>","cc":["c@d.e"],"bcc":["f@g.h"],"attachment_uuids":["{ROW}"]}}"#);
    let request = rude.take();
    assert!(request.head.starts_with(&format!("POST /api/email-messages/compose/?identity={A}&inbox=71 ")));
    assert_eq!(request.body(), format!(r#"{{"to_email":"kim@example.org","subject":"Plan",{more}"#));

    let calls = [("reply", r#"{"content":"x"}"#.to_owned()), ("reply-all", format!("{{{more}"))];
    let _ = ravi.reply(a(), 9, &answering("x")).await;
    let _ = ravi.reply_all(a(), 9, &full()).await;
    for (verb, body) in calls {
        let request = rude.take();
        assert!(
            request.head.starts_with(&format!("POST /api/email-messages/9/{verb}/?identity={A} ")),
            "{verb}"
        );
        assert_eq!(request.body(), body);
    }
    let _ = ravi.forward(a(), 9, &"kim@example.org".parse().unwrap(), &answering("x")).await;
    let request = rude.take();
    assert!(request.head.starts_with(&format!("POST /api/email-messages/9/forward/?identity={A} ")));
    assert_eq!(request.body(), r#"{"to_email":"kim@example.org","content":"x"}"#);
    let _ = ravi.send_text(a(), &"+15550100009".parse().unwrap(), &Secret::copy_of("x")).await;
    let request = rude.take();
    assert!(request.head.starts_with(&format!("POST /api/messages/send/?identity={A} ")));
    assert_eq!(request.body(), r#"{"to_number":"+15550100009","body":"x"}"#);
    let _ = ravi.create_identity("helper").await;
    let request = rude.take();
    assert!(request.head.starts_with("POST /api/identities/ "));
    assert_eq!(request.body(), r#"{"name":"helper"}"#);
    for (country, body) in [(None, "{}"), (Some("CA"), r#"{"country_code":"CA"}"#)] {
        let _ = ravi.provision_phone(a(), country).await;
        let request = rude.take();
        assert!(request.head.starts_with(&format!("POST /api/identities/{A}/provision-phone/ ")));
        assert_eq!((request.body(), request.bearer()), (body, Some(MANAGEMENT_KEY)));
    }
    assert_eq!(ravi.provision_phone(a(), Some("ca")).await.err(), Some(UpstreamError::Invalid));
    assert_eq!(rude.seen(), 0);
}

#[tokio::test]
async fn mail_goes_out_from_the_identitys_own_inbox_alone() {
    let both = r#"[{"id":72,"email":"b@ravi.id"},{"id":71,"email":"a@ravi.id"}]"#;
    let rude = Rude::start(vec![json(200, both), who(), json(200, "[]")]).await;
    let ravi = Client::new(&rude).ravi;
    assert_eq!(fault(ravi.compose(a(), &draft("k@b.c")).await), AnswerFault::Foreign);
    assert_eq!(ravi.compose(a(), &draft("k@b.c")).await.err(), Some(UpstreamError::NotFound), "no inbox");
    let split = Draft { subject: Secret::copy_of("a\r\nBcc: x"), ..draft("k@b.c") };
    assert_eq!(ravi.compose(a(), &split).await.err(), Some(UpstreamError::Invalid));
    assert_eq!((rude.seen(), rude.left()), (3, 0), "nothing was sent");
}

#[tokio::test]
async fn what_may_have_been_sent_is_in_doubt_and_not_repeated() {
    let half =
        Act::Cut(b"HTTP/1.1 201 X\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[".to_vec());
    let unreadable = || {
        vec![
            json(201, "[]"),
            json(201, r#"{"id":0}"#),
            status(201),
            empty(201),
            json(201, &" ".repeat(2 << 20)),
        ]
    };
    let lost = vec![status(500), status(503), Act::Reset, Act::Cut(Vec::new()), half];
    for act in lost.into_iter().chain(unreadable()) {
        let rude = Rude::start(vec![json(200, EMAILS), who()]).await;
        let ravi = Client::new(&rude).ravi;
        rude.queue(vec![act; 7]);
        let doubt = Some(UpstreamError::OutcomeUnknown);
        assert_eq!(ravi.compose(a(), &draft("k@b.c")).await.err(), doubt);
        assert_eq!(rude.seen(), 3);
        assert_eq!(ravi.reply(a(), 9, &answering("x")).await.err(), doubt);
        assert_eq!(ravi.reply_all(a(), 9, &answering("x")).await.err(), doubt);
        assert_eq!(ravi.forward(a(), 9, &"k@b.c".parse().unwrap(), &answering("x")).await.err(), doubt);
        assert_eq!(
            ravi.send_text(a(), &"+15550100009".parse().unwrap(), &Secret::copy_of("x")).await.err(),
            doubt
        );
        assert_eq!(ravi.create_identity("n").await.err(), doubt);
        assert_eq!(ravi.provision_phone(a(), None).await.err(), doubt);
        assert_eq!((rude.seen(), rude.left()), (9, 0));
    }
    let rude = Rude::start(vec![json(200, &identity(B, Some("b@ravi.id"), None))]).await;
    let ravi = Client::new(&rude).ravi;
    ravi.read_identity(b()).await.unwrap();
    rude.queue([json(201, r#"{"id":8,"from_email":"b@ravi.id"}"#), json(201, &identity(B, None, None))]);
    let doubt = Some(UpstreamError::OutcomeUnknown);
    assert_eq!(ravi.reply(a(), 9, &answering("x")).await.err(), doubt, "sent by another");
    assert_eq!(ravi.provision_phone(a(), None).await.err(), doubt, "given to another");
}

#[tokio::test]
async fn a_refusal_says_why_nothing_was_sent() {
    let throttled = with_type(429, "application/json", r#"{"retry_after_seconds":30}"#);
    for (act, error) in [
        (status(400), UpstreamError::Invalid),
        (status(402), UpstreamError::PlanRequired),
        (status(403), UpstreamError::Refused),
        (status(404), UpstreamError::NotFound),
        (status(409), UpstreamError::Conflict),
        (throttled, UpstreamError::Throttled { retry_after: Duration::from_secs(30) }),
        (raw("HTTP/1.1 302 X\r\nLocation: /x\r\n\r\n"), UpstreamError::Answer(AnswerFault::Redirect)),
    ] {
        let rude = Rude::start(vec![act.clone(), act]).await;
        let ravi = Client::new(&rude).ravi;
        assert_eq!(ravi.reply(a(), 9, &answering("x")).await.err().as_ref(), Some(&error));
        assert_eq!(ravi.provision_phone(a(), None).await.err().as_ref(), Some(&error));
        assert_eq!(rude.seen(), 2);
    }
}

#[tokio::test]
async fn the_answer_to_a_large_mail_is_read_for_its_number() {
    let large = format!(r#"{{"html_content":"{}","id":8}}"#, "x".repeat(12 << 20));
    let rude = Rude::start(vec![json(201, &large)]).await;
    let forwarded = Client::new(&rude).ravi.forward(a(), 9, &"k@b.c".parse().unwrap(), &answering("x")).await;
    assert_eq!(forwarded.unwrap(), sent(Channel::Email, 8));
}

#[tokio::test]
async fn a_new_identity_comes_with_its_key_or_without() {
    let with = |key: &str| {
        json(201, &identity(A, Some("a@ravi.id"), None).replace('}', &format!(r#","api_key":{key}}}"#)))
    };
    let keys = [r#""ravi_id_new""#, "null", r#""""#, r#""ravi_mgmt_x""#, r#""ravi_id_a b""#, "7"];
    let rude = Rude::start(keys.iter().map(|key| with(key)).collect()).await;
    let ravi = Client::new(&rude).ravi;
    for expected in [Some("ravi_id_new"), None, None, None, None, None] {
        let (created, key) = ravi.create_identity("n").await.unwrap();
        assert_eq!((created.uuid, key.as_ref().map(Secret::expose)), (a(), expected));
        rude.expect(("POST /api/identities/ ".into(), Some(MANAGEMENT_KEY)));
    }
}

#[tokio::test]
async fn a_phone_is_waited_for_a_minute() {
    let rude = Rude::start(vec![Act::Wait(Box::new(who())), Act::Hang]).await;
    let client = Client::new(&rude);
    let passing = async {
        rude.arrived().await;
        client.clock.advance(Duration::from_secs(59));
        rude.open_gate();
    };
    let (provisioned, ()) = tokio::join!(client.ravi.provision_phone(a(), None), passing);
    assert_eq!(provisioned.unwrap().phone.as_deref(), Some("+15550100001"));
    let passing = async {
        rude.arrived().await;
        client.clock.advance(Duration::from_secs(60));
    };
    let (provisioned, ()) = tokio::join!(client.ravi.provision_phone(a(), None), passing);
    assert_eq!(provisioned.err(), Some(UpstreamError::OutcomeUnknown));
}

// Against the sandbox.

struct Bench {
    _sandbox: Sandbox,
    control: Control,
    ravi: HttpUpstream,
    me: IdentityUuid,
}

struct SeedKeys {
    management: String,
    notes: Option<String>,
}

impl Keys for SeedKeys {
    fn open(&self, id: KeyId) -> Option<OpenKey> {
        let notes = IdentityUuid(NOTES_AGENT.uuid);
        let key = match id {
            KeyId::Management => &self.management,
            KeyId::Identity(identity) => self.notes.as_ref().filter(|_| identity == notes)?,
        };
        Some(OpenKey { value: Secret::copy_of(key), generation: 1 })
    }

    fn reject(&self, _: KeyId, _: u64) {}
}

impl Bench {
    async fn start(behaviour: Behaviour, with_identity_key: bool) -> Self {
        let sandbox = Sandbox::start(SandboxConfig { behaviour, ..SandboxConfig::default() }).await.unwrap();
        let control = sandbox.control();
        let settings = Settings {
            base_url: sandbox.base_url().parse().unwrap(),
            ca_pem: sandbox.ca_pem().map(|pem| pem.as_bytes().to_vec()),
        };
        let key = |key: Option<Secret>| key.unwrap().expose().to_owned();
        let keys = SeedKeys {
            management: key(control.management_key()),
            notes: with_identity_key.then(|| key(control.identity_key(NOTES_AGENT.name))),
        };
        let (budget, clock) = (Arc::new(Purse::default()), Arc::new(TestClock::new()));
        let ravi = HttpUpstream::new(settings, Arc::new(keys), budget, clock).unwrap();
        Self { _sandbox: sandbox, control, ravi, me: IdentityUuid(NOTES_AGENT.uuid) }
    }

    fn deliver(&self, to: SeedIdentity, subject: &str) -> i64 {
        let (identity, from) = (to.name.to_owned(), "kim@example.org".to_owned());
        let (subject, text) = (subject.to_owned(), format!("about {subject}"));
        self.control.deliver_mail(NewMail { identity, from, subject, text, ..NewMail::default() }).unwrap()
    }

    async fn newest(&self) -> Mail {
        self.ravi.newest_mail(self.me, 0, 1).await.unwrap().remove(0)
    }
}

fn shaped(email_messages: ListShape) -> Behaviour {
    Behaviour { email_messages, ..Behaviour::default() }
}

#[tokio::test]
async fn the_sandboxs_mail_is_read_with_a_cursor_in_both_shapes() {
    for (shape, inclusive) in [(ListShape::Paged, false), (ListShape::Array, false), (ListShape::Paged, true)]
    {
        let behaviour = Behaviour { created_after_inclusive: inclusive, ..shaped(shape) };
        let bench = Bench::start(behaviour, false).await;
        let all = bench.ravi.list_mail(bench.me, None, 200).await.unwrap();
        assert_eq!(all.iter().map(|mail| mail.id).collect::<Vec<_>>(), [501, 502, 503, 504]);
        assert_eq!(all[2].direction, Direction::Outgoing);
        let mut cursor = None;
        let mut walked = Vec::new();
        loop {
            let some = bench.ravi.list_mail(bench.me, cursor, 1).await.unwrap();
            let Some(mail) = some.first() else { break };
            cursor = Some(mail.created);
            walked.push(mail.id);
        }
        assert_eq!(walked, [501, 502, 503, 504]);
        let id = bench.deliver(NOTES_AGENT, "news");
        bench.deliver(DEPLOY_AGENT, "other news");
        let new = bench.ravi.list_mail(bench.me, cursor, 50).await.unwrap();
        assert_eq!((new.len(), new[0].id, new[0].text.expose()), (1, id, "about news"));
        let newest = bench.ravi.newest_mail(bench.me, 1, 2).await.unwrap();
        assert_eq!(newest.iter().map(|mail| mail.id).collect::<Vec<_>>(), [504, 503]);
        assert_eq!(bench.ravi.read_mail(bench.me, id).await.unwrap().subject.expose(), "news");
        assert_eq!(bench.ravi.read_mail(bench.me, 505).await.err(), Some(UpstreamError::NotFound));
    }
}

#[tokio::test]
async fn the_sandboxs_messages_of_another_identity_are_never_shown() {
    for with_identity_key in [false, true] {
        let bench = Bench::start(Behaviour::default(), with_identity_key).await;
        bench.ravi.list_identities().await.unwrap();
        bench.control.add_fault(Fault::new("/api/email-messages/", Answer::WrongIdentity)).unwrap();
        bench.control.add_fault(Fault::new("/api/messages/", Answer::WrongIdentity)).unwrap();
        // What came in names another, as a blind copy would.
        assert!(bench.ravi.list_mail(bench.me, None, 50).await.unwrap().is_empty());
        assert!(bench.ravi.newest_mail(bench.me, 0, 50).await.unwrap().is_empty());
        assert_eq!(fault(bench.ravi.read_mail(bench.me, 505).await), AnswerFault::Foreign);
        assert_eq!(fault(bench.ravi.list_texts(bench.me, None).await), AnswerFault::Foreign);
        assert_eq!(fault(bench.ravi.read_text(bench.me, 804).await), AnswerFault::Foreign);
    }
}

#[tokio::test]
async fn the_sandbox_takes_mail_replies_texts_and_files() {
    for storage in [StorageHost::Same, StorageHost::Other] {
        let bench = Bench::start(Behaviour { storage, ..Behaviour::default() }, true).await;
        let (name, content_type) = ("notes.txt".into(), "text/plain".into());
        let file = NewAttachment { name, content_type, bytes: Zeroizing::new(b"hello".to_vec()) };
        let uuid = bench.ravi.attach(bench.me, file).await.unwrap();
        assert_eq!(bench.control.keys_at_storage(), 0);
        let with_file = Answering { attachments: vec![uuid], ..answering("<p>Hi</p>") };
        let composed = bench
            .ravi
            .compose(bench.me, &Draft { rest: with_file, ..draft("kim@example.org") })
            .await
            .unwrap();
        let newest = bench.newest().await;
        assert_eq!(composed, sent(Channel::Email, newest.id));
        assert_eq!(
            (newest.subject.expose(), newest.to.as_str(), newest.attachments[0].size),
            ("Plan", "kim@example.org", 5)
        );

        let replied = bench.ravi.reply(bench.me, 502, &answering("x")).await.unwrap();
        assert_eq!(bench.newest().await.subject.expose(), "Re: Plan for Thursday");
        let all = bench.ravi.reply_all(bench.me, 502, &answering("x")).await.unwrap();
        let to = "eve@example.net".parse().unwrap();
        let forwarded = bench.ravi.forward(bench.me, 502, &to, &answering("x")).await.unwrap();
        let newest = bench.newest().await;
        assert_eq!(
            (newest.subject.expose(), newest.to.as_str()),
            ("Fwd: Plan for Thursday", "eve@example.net")
        );
        assert!(replied.message < all.message && all.message < forwarded.message);

        let number = "+12025550188".parse().unwrap();
        let texted = bench.ravi.send_text(bench.me, &number, &Secret::copy_of("on my way")).await.unwrap();
        let read = bench.ravi.read_text(bench.me, texted.message.id).await.unwrap();
        assert_eq!((texted.message.channel, read.body.expose()), (Channel::Sms, "on my way"));
        let (identity, from, body) = (NOTES_AGENT.name.into(), "+12025550188".into(), "code 99".into());
        let id = bench.control.deliver_sms(NewSms { identity, from, body, ..NewSms::default() }).unwrap();
        let new = bench.ravi.list_texts(bench.me, Some(texted.message.id)).await.unwrap();
        assert_eq!((new.len(), new[0].id, new[0].body.expose()), (1, id, "code 99"));
        assert_eq!(
            bench.ravi.reply(bench.me, 505, &answering("x")).await.err(),
            Some(UpstreamError::NotFound)
        );
    }
}

#[tokio::test]
async fn what_the_sandbox_carried_out_and_did_not_answer_is_sent_once() {
    let bench = Bench::start(Behaviour::default(), true).await;
    let before = bench.control.sent().len();
    for (n, path) in ["/api/email-messages/compose/", "/api/email-messages/502/reply/", "/api/messages/send/"]
        .into_iter()
        .enumerate()
    {
        bench.control.add_fault(Fault::new(path, Answer::Reset).on("POST").taking_effect()).unwrap();
        let outcome = match n {
            0 => bench.ravi.compose(bench.me, &draft("kim@example.org")).await,
            1 => bench.ravi.reply(bench.me, 502, &answering("x")).await,
            _ => {
                bench.ravi.send_text(bench.me, &"+12025550188".parse().unwrap(), &Secret::copy_of("x")).await
            }
        };
        assert_eq!(outcome.err(), Some(UpstreamError::OutcomeUnknown), "{path}");
        assert_eq!(bench.control.requests("POST", path), 1, "{path}");
        assert_eq!(bench.control.sent().len(), before + n + 1, "{path}");
    }
}

#[tokio::test]
async fn the_sandbox_makes_identities_phones_and_contacts() {
    let bench = Bench::start(Behaviour::default(), false).await;
    let (made, key) = bench.ravi.create_identity("helper").await.unwrap();
    assert_eq!((made.name.as_str(), made.phone.as_deref()), ("helper", None));
    assert!(key.unwrap().expose().starts_with("ravi_id_"));
    let phone = bench.ravi.provision_phone(made.uuid, Some("US")).await.unwrap().phone;
    assert!(phone.is_some());
    assert_eq!(bench.ravi.provision_phone(made.uuid, None).await.err(), Some(UpstreamError::Conflict));
    assert!(bench.ravi.list_mail(made.uuid, None, 50).await.unwrap().is_empty());

    let kim = ContactAddress::Email("kim@example.org".parse().unwrap());
    let found = bench.ravi.find_contact(bench.me, &kim).await.unwrap().unwrap();
    assert_eq!((found.email.as_str(), found.is_trusted), ("kim@example.org", false));
    assert_eq!(bench.ravi.search_contacts(bench.me, "kim").await.unwrap(), [found]);
    let nobody = ContactAddress::Phone("+12025550199".parse().unwrap());
    assert_eq!(bench.ravi.find_contact(bench.me, &nobody).await.unwrap(), None);
}
