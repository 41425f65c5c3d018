//! The story: each step says what happens, shows the command and what came of it, and fails the demo if
//! it came otherwise. Values are counted, never shown.

use std::io::Write;
use std::process::Output;

use anyhow::{Context, Result, bail, ensure};

use super::stage::{DEPLOY, NOTES, NOTES_EMAIL, NOTES_PHONE, Stage};

/// More requests than the rate of the first agent's role lets through.
const MANY: usize = 40;
/// Mails that are sent until one is new.
const MAILS: usize = 4;
const DENIED: i32 = 4;
const LIMITED: i32 = 5;
const ENDED: i32 = 6;

/// Prints the story.
pub(super) struct Teller {
    colour: bool,
    step: usize,
}

/// Tells it from beginning to end.
pub(super) fn tell(stage: &mut Stage, teller: &mut Teller) -> Result<()> {
    log_in(stage, teller)?;
    lease(stage, teller)?;
    deny(stage, teller)?;
    impersonate(stage, teller)?;
    revoke(stage, teller)?;
    wait_for_code(stage, teller)?;
    limit(stage, teller)?;
    audit(stage, teller)?;
    wake_up(stage, teller)?;
    lock(stage, teller)?;
    teller.say("")?;
    teller.say(
        "That is the broker: one login on the machine, one scoped, accountable identity for each agent.",
    )?;
    teller.say("Next: README.md, \"Five minutes with a real account\".")
}

fn log_in(stage: &Stage, teller: &mut Teller) -> Result<()> {
    teller.step("One login for the machine")?;
    teller.say(&format!(
        "A stand-in for Ravi listens on {} over TLS, and ravi-brokerd runs.",
        stage.base_url
    ))?;
    let output = teller.operator(stage, &["login"])?;
    expect(&output, 0)?;
    teller.show(&output)?;
    teller.say(
        "The daemon ran the login itself: the key rests sealed in its memory and in no file, and passed",
    )?;
    teller.say("through no other program. (The stand-in approved it in place of a person.)")
}

fn lease(stage: &Stage, teller: &mut Teller) -> Result<()> {
    teller.step("Two agents, two identities")?;
    for agent in [NOTES, DEPLOY] {
        let who = teller.agent(stage, agent, &["whoami", "--role", agent, "--format", "json"])?;
        expect(&who, 0)?;
        let who: serde_json::Value = serde_json::from_slice(&who.stdout)?;
        let email = who["identity"]["email"].as_str().context("the identity has a mail address")?;
        teller.result(&format!("acts as {email}"))?;
    }
    let mut values = Vec::new();
    for agent in [NOTES, DEPLOY] {
        let output = teller.agent(stage, agent, &["get", "secret/OPENAI_API_KEY", "--role", agent])?;
        expect(&output, 0)?;
        teller
            .result(&format!("a value of {} characters, not shown here", output.stdout.trim_ascii().len()))?;
        values.push(output.stdout);
    }
    ensure!(values[0] != values[1], "two identities have the same value");
    teller.say("The same name, and each agent got the value of its own identity.")
}

/// What an agent was told, but for the id of its call, which is another one each time.
fn without_id(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let word = |word: &str| if word.contains("den_") { "den_…".to_owned() } else { word.to_owned() };
    said.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

fn deny(stage: &Stage, teller: &mut Teller) -> Result<()> {
    teller.step("A denial tells nothing")?;
    let forbidden = teller.agent(stage, NOTES, &["get", "secret/STRIPE_API_KEY", "--role", NOTES])?;
    expect(&forbidden, DENIED)?;
    teller.show(&forbidden)?;
    let absent = teller.agent(stage, NOTES, &["get", "secret/OPENAI_NO_SUCH_KEY", "--role", NOTES])?;
    expect(&absent, DENIED)?;
    teller.show(&absent)?;
    let [forbidden, absent] = [forbidden, absent].map(|output| without_id(&output.stderr));
    ensure!(forbidden == absent, "absent and forbidden look different");
    teller
        .say("The first exists and is forbidden, the second does not exist. To the agent they look the same.")
}

fn impersonate(stage: &Stage, teller: &mut Teller) -> Result<()> {
    teller.step("The kernel says who is asking")?;
    let output = teller.agent(stage, DEPLOY, &["get", "secret/OPENAI_API_KEY", "--role", NOTES])?;
    expect(&output, DENIED)?;
    teller.show(&output)?;
    teller
        .say("Same user, same request; but the role is for another executable, and saying so does not help.")
}

fn revoke(stage: &Stage, teller: &mut Teller) -> Result<()> {
    teller.step("A lease, and its revocation")?;
    let file = stage.file("session.json");
    let file = file.to_str().context("the path is text")?;
    let opened = ["session", "open", "--role", DEPLOY, "--reason", "deploy the site", "--file", file];
    expect(&teller.agent(stage, DEPLOY, &opened)?, 0)?;
    let mut watch = stage.watch(DEPLOY, &["lease", "watch", "--session-file", file, "--format", "json"])?;
    let acquire = ["lease", "acquire", "password/github.com", "--session-file", file, "--ttl", "10m"];
    let output = teller.agent(stage, DEPLOY, &acquire)?;
    expect(&output, 0)?;
    teller.show(&output)?;
    let output = teller.operator(stage, &["revoke", "--role", DEPLOY, "--reason", "end of the demo"])?;
    expect(&output, 0)?;
    teller.show(&output)?;
    let told = watch.line()?;
    ensure!(told.is_empty() || told.contains("revoked"), "the agent was told something else");
    if !told.is_empty() {
        teller.result(&format!("{DEPLOY}, which watched its leases, was told: {told}"))?;
    }
    let output = teller.agent(stage, DEPLOY, &["lease", "list", "--session-file", file])?;
    expect(&output, ENDED)?;
    teller.show(&output)
}

fn wait_for_code(stage: &Stage, teller: &mut Teller) -> Result<()> {
    teller.step("A code, read without a person")?;
    teller.say(&format!("{DEPLOY} plays a service that texts a code to the number of {NOTES}."))?;
    let text = "4 parcels, order 20261123. Your verification code is 739214. Do not share it.";
    let program = stage.program(DEPLOY);
    let program = program.to_str().context("the path is text")?;
    let socket = stage.file("broker.sock");
    let socket = socket.to_str().context("the path is text")?;
    let wait = ["wait-code", "--role", NOTES, "--channel", "sms", "--timeout", "30s", "--"];
    let send =
        [program, "--socket", socket, "send", "sms", "--role", DEPLOY, "--to", NOTES_PHONE, "--text", text];
    teller.command(NOTES, &[&wait[..], &["send", "sms", "--to", NOTES_PHONE, "--text", text]].concat())?;
    let output = stage.agent(NOTES, &[&wait[..], &send].concat())?;
    expect(&output, 0)?;
    ensure!(output.stdout.trim_ascii() == b"739214", "another number was taken for the code");
    teller.result("a code of 6 digits, not shown here, and not the order's number")?;
    teller
        .say("The watch was open before the message was sent: what lay there already would not have counted.")
}

fn wake_up(stage: &Stage, teller: &mut Teller) -> Result<()> {
    teller.step("A mail starts an agent")?;
    teller.say(&format!("A rule tells {} of mail to {NOTES}.", stage.callback.address()))?;
    let (subject, text) = ("Minutes", "Please put the minutes of Monday into the notes.");
    let send = ["send", "email", "--role", DEPLOY, "--to", NOTES_EMAIL, "--subject", subject, "--text", text];
    let mut told = None;
    for _ in 0..MAILS {
        let output = teller.agent(stage, DEPLOY, &send)?;
        expect(&output, 0)?;
        teller.show(&output)?;
        told = stage.callback.told()?;
        if told.is_some() {
            break;
        }
        // The daemon had no key until a moment ago: what lay there at its first look is nobody's news.
        teller.say("It came before the daemon had looked for the first time, so once more:")?;
    }
    let told = told.context("nobody was told of the mail")?;
    ensure!(told.contains(text), "the callback was told something else");
    for line in told.lines().filter(|line| !line.trim().is_empty()) {
        teller.result(line)?;
    }
    teller.say("That is what the agent begins with: the mail is fenced off as a stranger's text.")
}

fn limit(stage: &Stage, teller: &mut Teller) -> Result<()> {
    teller.step("A rate limit")?;
    let arguments = ["get", "secret/OPENAI_API_KEY", "--role", NOTES];
    for tried in 1..=MANY {
        let output = stage.agent(NOTES, &arguments)?;
        if output.status.code() == Some(LIMITED) {
            teller.command(NOTES, &arguments)?;
            teller.show(&output)?;
            return teller.say(&format!(
                "Request {tried} in a row was one too many for 12 reads a minute, over all sessions of the role."
            ));
        }
        expect(&output, 0)?;
    }
    bail!("{MANY} requests in a row were let through");
}

fn audit(stage: &Stage, teller: &mut Teller) -> Result<()> {
    teller.step("Every decision is written down")?;
    let output = teller.operator(stage, &["audit", "tail", "-n", "6"])?;
    expect(&output, 0)?;
    teller.show(&output)?;
    let trail = stage.file("audit.jsonl");
    let output = teller.operator(stage, &["audit", "verify", trail.to_str().context("the path is text")?])?;
    expect(&output, 0)?;
    teller.show(&output)
}

fn lock(stage: &mut Stage, teller: &mut Teller) -> Result<()> {
    teller.step("The kill switch")?;
    let output = teller.operator(stage, &["lock", "--reason", "end of the demo"])?;
    expect(&output, 0)?;
    teller.show(&output)?;
    let output = teller.agent(stage, DEPLOY, &["get", "secret/OPENAI_API_KEY", "--role", DEPLOY])?;
    expect(&output, DENIED)?;
    teller.show(&output)?;
    ensure!(stage.stop_daemon()?, "the daemon did not end well");
    teller.say("The daemon forgot every value and key, and has ended.")
}

fn expect(output: &Output, code: i32) -> Result<()> {
    let actual = output.status.code();
    ensure!(
        actual == Some(code),
        "the command ended with {actual:?} instead of {code}: {}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(())
}

impl Teller {
    pub(super) fn new(colour: bool) -> Self {
        Self { colour, step: 0 }
    }

    fn step(&mut self, title: &str) -> Result<()> {
        self.step += 1;
        let (bold, plain) = self.style("\x1b[1m");
        let step = self.step;
        self.say(&format!("\n{bold}{step}. {title}{plain}"))
    }

    fn operator(&mut self, stage: &Stage, arguments: &[&str]) -> Result<Output> {
        self.command("operator", arguments)?;
        stage.operator(arguments)
    }

    fn agent(&mut self, stage: &Stage, agent: &str, arguments: &[&str]) -> Result<Output> {
        self.command(agent, arguments)?;
        stage.agent(agent, arguments)
    }

    /// The command, without the paths that only the demo needs.
    fn command(&mut self, who: &str, arguments: &[&str]) -> Result<()> {
        let (cyan, plain) = self.style("\x1b[36m");
        let short: Vec<String> = arguments.iter().map(|argument| shown(argument)).collect();
        self.say(&format!("  {who}$ {cyan}ravi-broker {}{plain}", short.join(" ")))
    }

    /// What a command printed that is no value.
    fn show(&mut self, output: &Output) -> Result<()> {
        for line in [&output.stdout, &output.stderr].into_iter().flat_map(|text| text.split(|b| *b == b'\n'))
        {
            let line = String::from_utf8_lossy(line);
            if !line.trim().is_empty() {
                self.result(&line)?;
            }
        }
        Ok(())
    }

    fn result(&mut self, line: &str) -> Result<()> {
        self.say(&format!("    {line}"))
    }

    /// A reader that goes away ends the demo without a complaint of ours.
    #[expect(clippy::unused_self, reason = "all that is printed goes through the teller")]
    fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(std::io::stdout().lock(), "{line}")?)
    }

    fn style(&self, code: &'static str) -> (&'static str, &'static str) {
        if self.colour { (code, "\x1b[0m") } else { ("", "") }
    }
}

fn shown(argument: &str) -> String {
    match argument.rsplit_once('/') {
        Some((path, name)) if path.starts_with('/') => format!("…/{name}"),
        _ if argument.contains(' ') => format!("'{argument}'"),
        _ => argument.to_owned(),
    }
}
