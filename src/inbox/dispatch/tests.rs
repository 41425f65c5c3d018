//! The dispatcher with a mailbox at hand, callbacks of this test, and a clock that the test moves.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use async_trait::async_trait;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::manual::ManualClock;
use crate::config::{self, Environment, MemoryTier, Overrides, Source, Variable};
use crate::inbox::message::Message;
use crate::secret::Secret;
use crate::types::{Channel, EmailAddress, EntryUuid, MessageRef, PhoneNumber};
use crate::upstream::{
    Answering, Contact, ContactAddress, Direction, Draft, Identity, Mail, NewAttachment, Result, Sent, Text,
    UpstreamError,
};

const NOTES: IdentityUuid = IdentityUuid(uuid::Uuid::from_u128(1));

/// Mails by number, and contacts that are trusted.
#[derive(Default)]
struct Mails {
    texts: Mutex<HashMap<i64, (String, String)>>,
    trusted: Mutex<Vec<String>>,
    unavailable: Mutex<bool>,
}

fn mail(id: i64, from: &str, text: &str) -> Mail {
    let nothing = || Secret::copy_of("");
    Mail {
        id,
        created: Timestamp::UNIX_EPOCH,
        direction: Direction::Incoming,
        from: from.to_owned(),
        to: String::new(),
        cc: String::new(),
        subject: Secret::copy_of("Hello"),
        text: Secret::copy_of(text),
        html: nothing(),
        thread: String::new(),
        message_id: String::new(),
        is_read: false,
        attachments: Vec::new(),
        oversized: false,
    }
}

#[async_trait]
impl Mailbox for Mails {
    async fn listen(&self, _: IdentityUuid, _: &(dyn Fn(Option<Channel>) + Send + Sync)) -> Result<()> {
        Ok(())
    }
    async fn list_mail(&self, _: IdentityUuid, _: Option<Timestamp>, _: usize) -> Result<Vec<Mail>> {
        Ok(Vec::new())
    }
    async fn newest_mail(&self, _: IdentityUuid, _: usize, _: usize) -> Result<Vec<Mail>> {
        Ok(Vec::new())
    }
    async fn read_mail(&self, _: IdentityUuid, id: i64) -> Result<Mail> {
        if *self.unavailable.lock().unwrap() {
            return Err(UpstreamError::Unavailable);
        }
        let texts = self.texts.lock().unwrap();
        texts.get(&id).map(|(from, text)| mail(id, from, text)).ok_or(UpstreamError::NotFound)
    }
    async fn list_texts(&self, _: IdentityUuid, _: Option<i64>) -> Result<Vec<Text>> {
        Ok(Vec::new())
    }
    async fn read_text(&self, _: IdentityUuid, _: i64) -> Result<Text> {
        Err(UpstreamError::NotFound)
    }
    async fn attach(&self, _: IdentityUuid, _: NewAttachment) -> Result<EntryUuid> {
        Err(UpstreamError::Refused)
    }
    async fn compose(&self, _: IdentityUuid, _: &Draft) -> Result<Sent> {
        Err(UpstreamError::Refused)
    }
    async fn reply(&self, _: IdentityUuid, _: i64, _: &Answering) -> Result<Sent> {
        Err(UpstreamError::Refused)
    }
    async fn reply_all(&self, _: IdentityUuid, _: i64, _: &Answering) -> Result<Sent> {
        Err(UpstreamError::Refused)
    }
    async fn forward(&self, _: IdentityUuid, _: i64, _: &EmailAddress, _: &Answering) -> Result<Sent> {
        Err(UpstreamError::Refused)
    }
    async fn send_text(&self, _: IdentityUuid, _: &PhoneNumber, _: &Secret) -> Result<Sent> {
        Err(UpstreamError::Refused)
    }
    async fn create_identity(&self, _: &str) -> Result<(Identity, Option<Secret>)> {
        Err(UpstreamError::Refused)
    }
    async fn provision_phone(&self, _: IdentityUuid, _: Option<&str>) -> Result<Identity> {
        Err(UpstreamError::Refused)
    }
    async fn find_contact(&self, _: IdentityUuid, address: &ContactAddress) -> Result<Option<Contact>> {
        let ContactAddress::Email(address) = address else { return Ok(None) };
        let is_trusted = self.trusted.lock().unwrap().contains(&address.to_string());
        let (name, email, phone) = (String::new(), address.to_string(), String::new());
        Ok(Some(Contact { name, email, phone, is_trusted }))
    }
    async fn search_contacts(&self, _: IdentityUuid, _: &str) -> Result<Vec<Contact>> {
        Ok(Vec::new())
    }
}

/// What a callback got: its head in small letters, and its body.
struct Got {
    head: String,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    /// The number of the message that it tells of.
    fn message(&self) -> i64 {
        let (_, rest) = self.body.split_once("message email/").expect("it names the message");
        rest.split([',', ')']).next().unwrap().parse().unwrap()
    }
}

/// A callback that answers as it is told, 200 by default.
struct Callback {
    url: String,
    got: mpsc::UnboundedReceiver<Got>,
    answers: Arc<Mutex<VecDeque<&'static str>>>,
    server: JoinHandle<()>,
}

impl Callback {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/external/sessions/notes/messages", listener.local_addr().unwrap());
        let (tell, got) = mpsc::unbounded_channel();
        let answers: Arc<Mutex<VecDeque<&'static str>>> = Arc::default();
        let queue = answers.clone();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let (head, length, start) = loop {
                    if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some(end) = text.find("\r\n\r\n") else { continue };
                    let head = text[..end].to_ascii_lowercase();
                    let length = head.split("content-length: ").nth(1).unwrap();
                    break (head.clone(), length.lines().next().unwrap().parse::<usize>().unwrap(), end + 4);
                };
                while bytes.len() < start + length {
                    assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
                }
                let body = String::from_utf8(bytes[start..].to_vec()).unwrap();
                let answer = queue.lock().unwrap().pop_front().unwrap_or("200 OK");
                let _ = tell.send(Got { head, body });
                let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, got, answers, server }
    }

    fn will_answer(&self, answers: &[&'static str]) {
        self.answers.lock().unwrap().extend(answers);
    }

    async fn next(&mut self) -> Got {
        let next = tokio::time::timeout(Duration::from_secs(20), self.got.recv());
        next.await.expect("nothing was posted").expect("the callback lives")
    }

    fn has_got_nothing_more(&mut self) {
        assert!(self.got.try_recv().is_err(), "something was posted");
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A queue and its dispatcher.
struct Bench {
    dispatches: Arc<Dispatches>,
    mails: Arc<Mails>,
    clock: ManualClock,
    serving: watch::Sender<bool>,
    stopping: CancellationToken,
    running: Option<JoinHandle<()>>,
    directory: TempDir,
    arena: Arc<Arena>,
}

impl Bench {
    fn new(rules: &str) -> Self {
        let directory = tempfile::Builder::new().permissions(private()).tempdir().unwrap();
        let (clock, arena) = (ManualClock::new(), Arc::new(Arena::new(MemoryTier::Locked).unwrap()));
        let dispatches = open(&directory, &arena, &clock, rules);
        let mut bench = Self {
            dispatches,
            mails: Arc::default(),
            clock,
            serving: watch::Sender::new(true),
            stopping: CancellationToken::new(),
            running: None,
            directory,
            arena,
        };
        bench.run();
        bench
    }

    fn run(&mut self) {
        let shared: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let trail = self.directory.path().join("audit.jsonl");
        let means = Means {
            mailbox: self.mails.clone(),
            audit: Arc::new(AuditFile::open(&trail, 1 << 30, shared.clone()).unwrap()),
            post: Post::new(shared).unwrap(),
            serving: self.serving.subscribe(),
            stopping: self.stopping.clone(),
        };
        self.running = Some(tokio::spawn(Dispatcher::new(self.dispatches.clone(), means).run()));
    }

    /// Ends what runs and begins again on the same file, with these rules.
    async fn restart(&mut self, rules: &str) {
        self.stopping.cancel();
        self.running.take().unwrap().await.unwrap();
        self.stopping = CancellationToken::new();
        let placeholder = TempDir::new().unwrap();
        // The file is of one daemon at a time.
        let empty = open(&placeholder, &self.arena, &self.clock, "");
        drop(std::mem::replace(&mut self.dispatches, empty));
        self.dispatches = open(&self.directory, &self.arena, &self.clock, rules);
        self.run();
    }

    /// A mail comes in, and is seen.
    async fn arrives(&self, id: i64, from: &str, text: &str) {
        self.mails.texts.lock().unwrap().insert(id, (from.to_owned(), text.to_owned()));
        let arrived = Arc::new(Arrived { identity: NOTES, message: Message::from(mail(id, from, text)) });
        let enqueue = self.dispatches.enqueue();
        let taken = self.dispatches.store.change(move |tx| enqueue(tx, NOTES, &[arrived])).await;
        assert_eq!(taken, Ok(Ok(())));
    }

    async fn row(&self, id: i64) -> Delivery {
        let rows = self.dispatches.list(None, 0, 100).await.unwrap();
        rows.into_iter().find(|row| row.new.message.id == id).expect("it is in the queue")
    }

    /// Once it has come to this.
    async fn settled(&self, id: i64, is_so: impl Fn(&Delivery) -> bool) -> Delivery {
        let wait = async {
            loop {
                let row = self.row(id).await;
                if is_so(&row) {
                    return row;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it did not come to that")
    }

    fn trail(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("audit.jsonl")).unwrap()
    }
}

fn private() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o700)
}

fn compiled(text: &str) -> Rules {
    let places = [(Variable::Home, "/home/agent"), (Variable::XdgRuntimeDir, "/run/user/1")];
    let source = Source::of("config.toml", &format!("version = 1\n{text}"));
    let draft = config::read(&source, &Environment::of(1, places), &Overrides::default()).unwrap();
    Rules::compile(&draft.finish(Vec::new()).unwrap_or_else(|error| panic!("{error}"))).unwrap()
}

fn open(directory: &TempDir, arena: &Arc<Arena>, clock: &ManualClock, rules: &str) -> Arc<Dispatches> {
    let store = Store::open(&directory.path().join("inbox.db")).unwrap_or_else(|error| panic!("{error}"));
    Dispatches::open(store, arena.clone(), compiled(rules), Arc::new(clock.clone())).unwrap()
}

fn rule(name: &str, to: &str, more: &str) -> String {
    format!("[[dispatch]]\nname = {name:?}\nidentity = \"{NOTES}\"\non = \"email\"\nto = {to:?}\n{more}\n")
}

#[tokio::test]
async fn a_mail_is_told_once_and_in_its_fence() {
    let mut callback = Callback::start().await;
    let bench = Bench::new(&rule("notes", &callback.url, ""));
    bench.arrives(1, "a@b.co", "Lunch at noon?").await;
    let got = callback.next().await;
    assert!(
        got.body.contains("Lunch at noon?") && got.body.contains("BEGIN UNTRUSTED MESSAGE"),
        "{}",
        got.body
    );
    assert_eq!(got.header("content-type"), "text/plain; charset=utf-8");
    let row = bench.settled(1, |row| row.state == State::Delivered).await;
    assert_eq!((got.header("ravi-broker-id"), row.attempts), (row.new.id.to_string().as_str(), 1));
    // Seen again, after what the cursor knew was lost.
    bench.arrives(1, "a@b.co", "Lunch at noon?").await;
    bench.arrives(2, "a@b.co", "Or at one?").await;
    assert_eq!(callback.next().await.message(), 2);
    let trail = bench.trail();
    for word in ["dispatch.attempted", "dispatch.delivered", "\"message\":\"email/1\"", "\"target\":\"dsp_"] {
        assert!(trail.contains(word), "{word}: {trail}");
    }
    assert!(!trail.contains("Lunch"), "the trail says what the message says");
    let file = std::fs::read(bench.directory.path().join("inbox.db-wal")).unwrap();
    assert!(!file.windows(5).any(|part| part == b"Lunch"), "the queue holds what the message says");
}

#[tokio::test]
async fn what_is_refused_for_now_is_tried_again_with_growing_pauses_and_the_same_id() {
    let mut callback = Callback::start().await;
    callback.will_answer(&["500 No", "503 No", "429 No\r\nRetry-After: 120", "200 OK"]);
    let bench = Bench::new(&rule("notes", &callback.url, ""));
    bench.arrives(1, "a@b.co", "x").await;
    bench.arrives(2, "a@b.co", "y").await;
    let first = callback.next().await;
    let mut pauses = Vec::new();
    for attempts in 1..=3 {
        let row = bench.settled(1, |row| row.attempts == attempts).await;
        let pause = Duration::from_millis(u64::try_from(row.next_at - bench.dispatches.now()).unwrap());
        pauses.push(pause);
        bench.clock.advance(pause - Duration::from_millis(1));
        tokio::task::yield_now().await;
        callback.has_got_nothing_more();
        bench.clock.advance(Duration::from_millis(1));
        let again = callback.next().await;
        assert_eq!(again.header("ravi-broker-id"), first.header("ravi-broker-id"));
        assert_eq!(again.message(), 1, "the second one was let past");
    }
    let [five, ten, asked] = [5, 10, 120].map(Duration::from_secs);
    assert!(pauses[0] <= five && pauses[0] >= five * 4 / 5, "{pauses:?}");
    assert!(pauses[1] <= ten && pauses[1] >= ten * 4 / 5, "{pauses:?}");
    assert_eq!(pauses[2], asked);
    assert_eq!(callback.next().await.message(), 2);
    assert_eq!(bench.settled(1, |row| row.state == State::Delivered).await.attempts, 4);
    bench.settled(2, |row| row.state == State::Delivered).await;
    assert_eq!(bench.trail().matches("dispatch.attempted").count(), 2, "failures are counted, not recorded");
    assert!(bench.trail().contains("\"attempts\":4"));
}

#[tokio::test]
async fn a_dead_one_is_set_aside_and_the_operator_decides() {
    let mut callback = Callback::start().await;
    callback.will_answer(&["410 Gone", "200 OK", "500 No", "500 No", "200 OK"]);
    let bench = Bench::new(&rule("notes", &callback.url, "max_attempts = 2"));
    bench.arrives(1, "a@b.co", "x").await;
    assert_eq!(callback.next().await.message(), 1);
    let dead = bench.settled(1, |row| row.state == State::Dead).await;
    assert_eq!((dead.attempts, dead.fault.as_str()), (1, "status_410"));
    bench.arrives(2, "a@b.co", "y").await;
    assert_eq!(callback.next().await.message(), 2);
    // Given up after as many attempts as the rule allows.
    bench.arrives(3, "a@b.co", "z").await;
    callback.next().await;
    bench.settled(3, |row| row.attempts == 1).await;
    bench.clock.advance(Duration::from_secs(5));
    callback.next().await;
    let dead = bench.settled(3, |row| row.state == State::Dead).await;
    assert_eq!((dead.attempts, dead.fault.as_str()), (2, "status_500"));
    assert_eq!(bench.dispatches.backlog().await.unwrap().dead, 2);
    assert_eq!(bench.dispatches.drop_chosen(Chosen::One(dead.new.id)).await, Ok(1));
    assert_eq!(bench.dispatches.retry(Chosen::AllDead).await, Ok(1));
    assert_eq!(callback.next().await.message(), 1);
    bench.settled(1, |row| row.state == State::Delivered).await;
    assert_eq!(bench.row(3).await.state, State::Dropped);
    assert_eq!(bench.trail().matches("dispatch.dead").count(), 2);
}

#[tokio::test]
async fn one_target_does_not_wait_for_another() {
    let (mut slow, mut quick) = (Callback::start().await, Callback::start().await);
    slow.will_answer(&["500 No"]);
    let rules = rule("slow", &slow.url, "from = [\"slow.example\"]")
        + &rule("quick", &quick.url, "from = [\"quick.example\"]");
    let bench = Bench::new(&rules);
    bench.arrives(1, "a@slow.example", "x").await;
    slow.next().await;
    bench.arrives(2, "a@quick.example", "y").await;
    assert_eq!(quick.next().await.message(), 2);
    quick.has_got_nothing_more();
}

#[tokio::test]
async fn what_was_queued_is_told_after_a_restart_where_its_rule_points_to_now() {
    let mut first = Callback::start().await;
    first.will_answer(&["500 No"]);
    let mut bench = Bench::new(&rule("notes", &first.url, ""));
    bench.arrives(1, "a@b.co", "x").await;
    let id = first.next().await.header("ravi-broker-id").to_owned();
    bench.settled(1, |row| row.attempts == 1).await;
    let mut second = Callback::start().await;
    bench.restart(&rule("notes", &second.url, "")).await;
    bench.clock.advance(Duration::from_secs(5));
    let got = second.next().await;
    assert_eq!((got.header("ravi-broker-id"), got.message()), (id.as_str(), 1));
    bench.settled(1, |row| row.state == State::Delivered).await;
    bench.restart("").await;
    bench.arrives(1, "a@b.co", "x").await;
    assert_eq!(bench.row(1).await.state, State::Delivered);
}

#[tokio::test]
async fn what_is_under_way_is_not_told_elsewhere_as_well_when_its_rule_moves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("http://{}/external/sessions/notes/messages", listener.local_addr().unwrap());
    let bench = Bench::new(&rule("notes", &to, ""));
    bench.arrives(1, "a@b.co", "x").await;
    let (held, _) = listener.accept().await.unwrap();
    let mut second = Callback::start().await;
    let (moved, dispatches) = (compiled(&rule("notes", &second.url, "")), bench.dispatches.clone());
    tokio::task::spawn_blocking(move || dispatches.put(moved)).await.unwrap().unwrap();
    // It has looked at the queue more often than it would.
    for _ in 0..20 {
        bench.dispatches.wake.notify_one();
        bench.row(1).await;
        tokio::task::yield_now().await;
    }
    second.has_got_nothing_more();
    drop(held);
    bench.settled(1, |row| row.attempts == 1).await;
    bench.clock.advance(Duration::from_secs(5));
    assert_eq!(second.next().await.message(), 1);
    bench.settled(1, |row| row.state == State::Delivered).await;
}

#[tokio::test]
async fn nothing_is_told_while_the_broker_does_not_serve() {
    let mut callback = Callback::start().await;
    let bench = Bench::new(&rule("notes", &callback.url, ""));
    bench.serving.send_replace(false);
    bench.arrives(1, "a@b.co", "x").await;
    // It has looked at the queue as often as it ever would.
    for _ in 0..5 {
        bench.clock.advance(LOOK);
        bench.dispatches.wake.notify_one();
        tokio::task::yield_now().await;
        bench.row(1).await;
    }
    callback.has_got_nothing_more();
    assert_eq!(bench.row(1).await.attempts, 0);
    bench.serving.send_replace(true);
    assert_eq!(callback.next().await.message(), 1);
}

#[tokio::test]
async fn who_is_not_trusted_wakes_nobody() {
    let mut callback = Callback::start().await;
    let bench = Bench::new(&rule("notes", &callback.url, "trusted = true"));
    bench.mails.trusted.lock().unwrap().push("owner@b.co".to_owned());
    bench.arrives(1, "stranger@b.co", "x").await;
    let dropped = bench.settled(1, |row| row.state != State::Pending).await;
    assert_eq!((dropped.state, dropped.fault.as_str()), (State::Dropped, "sender_untrusted"));
    bench.arrives(2, "\"owner@b.co\" <stranger@b.co>", "x").await;
    bench.arrives(3, "Owner <Owner@B.co>", "y").await;
    assert_eq!(callback.next().await.message(), 3);
    assert!(bench.trail().contains("\"cause\":\"sender_untrusted\""));
}

#[tokio::test]
async fn while_ravi_does_not_answer_no_attempt_is_counted() {
    let mut callback = Callback::start().await;
    let bench = Bench::new(&rule("notes", &callback.url, "max_attempts = 1"));
    *bench.mails.unavailable.lock().unwrap() = true;
    bench.arrives(1, "a@b.co", "x").await;
    let waiting = bench.settled(1, |row| !row.fault.is_empty()).await;
    assert_eq!(
        (waiting.state, waiting.attempts, waiting.fault.as_str()),
        (State::Pending, 0, "ravi_unavailable")
    );
    *bench.mails.unavailable.lock().unwrap() = false;
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(callback.next().await.message(), 1);
    bench.settled(1, |row| row.state == State::Delivered).await;
    assert_eq!(bench.trail().matches("dispatch.attempted").count(), 1);
    // A message that Ravi has no more is told to nobody.
    bench.arrives(2, "a@b.co", "x").await;
    bench.settled(2, |row| row.state == State::Delivered).await;
    *bench.mails.unavailable.lock().unwrap() = true;
    bench.arrives(3, "a@b.co", "x").await;
    bench.settled(3, |row| !row.fault.is_empty()).await;
    bench.mails.texts.lock().unwrap().remove(&3);
    *bench.mails.unavailable.lock().unwrap() = false;
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.settled(3, |row| row.state == State::Dead).await.fault, "message_gone");
}

#[tokio::test]
async fn a_code_stays_here_unless_the_rule_reveals_it() {
    let (mut hidden, mut shown) = (Callback::start().await, Callback::start().await);
    let bench = Bench::new(&(rule("hidden", &hidden.url, "") + &rule("shown", &shown.url, "reveal = true")));
    let text = "Your verification code is 482913. Or sign in: https://example.com/login?token=AbCdEf123456";
    bench.arrives(1, "a@b.co", text).await;
    let got = hidden.next().await.body;
    assert!(!got.contains("482913") && !got.contains("AbCdEf123456"), "{got}");
    assert!(got.contains("were taken out of it"), "{got}");
    let got = shown.next().await.body;
    assert!(got.contains("482913") && got.contains("AbCdEf123456"), "{got}");
}

#[tokio::test]
async fn a_document_is_signed_with_the_key_of_the_file_also_after_a_lock() {
    let mut callback = Callback::start().await;
    let directory = TempDir::new().unwrap();
    let (file, key) = (directory.path().join("key"), "k".repeat(40));
    std::fs::write(&file, format!("{key}\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let more = format!("form = \"json\"\nsecret_file = {file:?}");
    let bench = Bench::new(&rule("notes", &callback.url, &more));
    for id in 1..=2 {
        bench.arrives(id, "a@b.co", "x").await;
        let got = callback.next().await;
        let (timestamp, own) = (got.header("ravi-broker-timestamp"), got.header("ravi-broker-id"));
        let (time, own) = (timestamp.parse().unwrap(), own.parse().unwrap());
        let signed = envelope::signature(&Secret::copy_of(&key), own, time, got.body.as_bytes());
        assert_eq!(got.header("ravi-broker-signature"), signed);
        assert_eq!(time, bench.clock.wall().as_second());
        let document: serde_json::Value = serde_json::from_str(&got.body).unwrap();
        assert_eq!((&document["id"], &document["rule"]), (&own.to_string().into(), &"notes".into()));
        // What a lock does to all that is sealed.
        bench.arena.rekey().unwrap();
    }
}

#[tokio::test]
async fn no_more_are_told_at_once_than_is_allowed() {
    let (tell, mut accepted) = mpsc::unbounded_channel();
    let mut rules = String::new();
    for number in 0..MAX_UNDER_WAY + 2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("http://{}/external/sessions/n/messages", listener.local_addr().unwrap());
        rules += &rule(&format!("rule-{number}"), &to, "");
        let tell = tell.clone();
        tokio::spawn(async move { tell.send(listener.accept().await.unwrap()).unwrap() });
    }
    let bench = Bench::new(&rules);
    bench.arrives(1, "a@b.co", "x").await;
    let mut held = Vec::new();
    for _ in 0..MAX_UNDER_WAY {
        let next = tokio::time::timeout(Duration::from_secs(20), accepted.recv()).await;
        held.push(next.expect("as many as are allowed").unwrap());
    }
    for _ in 0..5 {
        bench.dispatches.wake.notify_one();
        bench.row(1).await;
        tokio::task::yield_now().await;
    }
    assert!(accepted.try_recv().is_err(), "one more is under way");
    drop(held);
    for _ in 0..2 {
        let next = tokio::time::timeout(Duration::from_secs(20), accepted.recv()).await;
        drop(next.expect("the rest follow").unwrap());
    }
}

#[tokio::test]
async fn a_queue_without_room_takes_nothing_in_and_says_so() {
    let bench = Bench::new(&rule("notes", "http://127.0.0.1:9/external/sessions/n/messages", ""));
    bench.serving.send_replace(false);
    let message = |id| MessageRef { channel: Channel::Email, id };
    let filling = bench.dispatches.store.change(move |tx| {
        let new = |id| New {
            id: random_id().unwrap(),
            rule: "notes".into(),
            target: "http://127.0.0.1:9/external/sessions/n/messages".into(),
            identity: NOTES,
            message: message(id),
        };
        outbox::add(tx, &(1..=outbox::MAX_PENDING).map(new).collect::<Vec<_>>(), 0)
    });
    assert!(filling.await.unwrap().is_ok());
    let arrived = Arc::new(Arrived { identity: NOTES, message: Message::from(mail(99_999, "a@b.co", "x")) });
    let enqueue = bench.dispatches.enqueue();
    let taken = bench.dispatches.store.change(move |tx| enqueue(tx, NOTES, &[arrived])).await;
    assert_eq!(taken, Ok(Err(OutboxFull)));
    assert!(bench.dispatches.backlog().await.unwrap().full);
    assert_eq!(bench.dispatches.drop_chosen(Chosen::AllDead).await, Ok(0));
    bench.dispatches.store.change(|tx| tx.execute("UPDATE outbox SET state = 'dropped'", [])).await.unwrap();
    bench.arrives(99_999, "a@b.co", "x").await;
    assert!(!bench.dispatches.backlog().await.unwrap().full);
}
