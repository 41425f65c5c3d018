//! git's protocol, by hand and by git itself over real TLS.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use ravi_broker::clock::{Clock, SystemClock};
use ravi_broker::secret::Secret;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{PASSWORD, stack};
use crate::cli::{PROGRAM, Shell, on_terminal, text};
use crate::support::DEPLOY;

const ASKED: &str = "capability[]=authtype\nprotocol=https\nhost=github.com\nwwwauth[]=Basic realm=\"x\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn git_is_answered_in_its_protocol_and_with_the_end_of_the_lease() {
    let stack = stack().await;
    let answer = stack.ask("git-credential get --host github.com", ASKED).good();
    let lines: Vec<&str> = answer.lines().collect();
    let password = format!("password={PASSWORD}");
    let [username, given, expiry] = lines[..] else { panic!("{answer}") };
    assert_eq!((username, given), ("username=deploy-agent", password.as_str()));
    let expiry: i64 = expiry.strip_prefix("password_expiry_utc=").unwrap().parse().unwrap();
    let left = expiry - SystemClock.wall().as_second();
    assert!((200..=300).contains(&left), "{left}");
    // The role may see nothing: what it got was leased to be used.
    assert_eq!(stack.audited("lease.acquired")[0]["reason"], "git-credential");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_user_or_port_gets_silence_and_costs_nothing() {
    let stack = stack().await;
    let bound = "git-credential get --host github.com=ravi://password/github.com/deploy-agent";
    for asked in [
        "protocol=https\nhost=gitlab.com\n",
        "protocol=https\nhost=github.com.evil.example\n",
        "protocol=https\nhost=gist.github.com\n",
        "protocol=https\nhost=github.com:8443\n",
        "protocol=https\nhost=github.com\nusername=root\n",
    ] {
        assert_eq!(stack.ask(bound, asked).good(), "", "{asked}");
    }
    assert_eq!(stack.ask("git-credential get", "protocol=https\nhost=github.com:8443\n").good(), "");
    assert!(stack.audited("session.opened").is_empty());
    assert_eq!(stack.control().total_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_tampered_with_is_refused_before_the_broker_is_asked() {
    let stack = stack().await;
    for asked in [
        // CVE-2020-5260, CVE-2020-11008, CVE-2024-52006, CVE-2024-50349.
        "protocol=https\nhost=evil.example\nhost=github.com\n",
        "protocol=https\nhost=evil.example\n\nhost=github.com\n",
        "protocol=https\nhost=\n",
        "host=github.com\n",
        "protocol=https\nhost=github.com\r\n",
        "protocol=https\rhost=github.com\nhost=evil.example\n",
        "protocol=https\nhost=evil.example\x1b[1Ggithub.com\n",
        "protocol=https\nhost=github.com%0d%0aevil.example\n",
        "protocol=https\nhost=github.com\0.evil.example\n",
        "protocol=https\nhost=github.com@evil.example\n",
        "protocol=https\nhost=alice:pw@github.com\n",
        "protocol=https\nhost=github.com:443:8443\n",
        "protocol=https\nhost=gith\u{443}b.com\n",
        "protocol=https\nhost=xn--gthub-cta.com\n",
        "protocol=https\nhost=127.0.0.1\n",
        "protocol=http\nhost=github.com\n",
        "url=https://github.com\n",
        "nonsense",
        "",
    ] {
        for verb in ["get", "store --allow-store", "erase"] {
            let (what, hint) =
                stack.ask(&format!("git-credential {verb} --host github.com"), asked).failed(2);
            assert!(!what.contains("evil") && !hint.contains("evil"), "{what}");
        }
    }
    let (what, _) = stack.ask("git-credential get", &"x=y\n".repeat(20_000)).failed(2);
    assert!(what.contains("longer"), "{what}");
    assert!(stack.audited("session.opened").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_forbids_git_does_not_get() {
    let stack = stack().await;
    let get = |role: &str, host: &str| {
        let input = format!("protocol=https\nhost={host}\n");
        stack.run_with(&format!("git-credential get --role {role}"), &input)
    };
    let (what, _) = get("sealed", "github.com").failed(4);
    assert!(what.contains("deliver"), "{what}");
    // Absent and forbidden look the same.
    let [absent, forbidden] = ["absent.example", "grafana.net"].map(|host| get("tools", host).failed(4).0);
    assert_eq!(absent, forbidden);
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_again_leaves_one_lease_and_erase_ends_it_without_deleting_anything() {
    let stack = stack().await;
    let mut shell = Shell::under(&stack, "tools");
    let git = |shell: &mut Shell, verb: &str| {
        let asked = r"protocol=https\nhost=github.com\nusername=deploy-agent\npassword=x\n";
        shell.run(&format!("printf '{asked}' | ravi-broker git-credential {verb}")).good()
    };
    let leases = |shell: &mut Shell| {
        let live = shell.run("ravi-broker lease list --format json").json();
        live.as_array().unwrap().len()
    };
    // More often than the role may have leases.
    for _ in 0..6 {
        assert!(git(&mut shell, "get").contains(PASSWORD));
        assert_eq!(leases(&mut shell), 1);
    }
    assert_eq!((git(&mut shell, "store"), leases(&mut shell)), (String::new(), 1));
    // Another host's lease is not for it to end.
    shell.run("printf 'protocol=https\\nhost=grafana.net\\n' | ravi-broker git-credential erase").good();
    assert_eq!(leases(&mut shell), 1);
    assert_eq!((git(&mut shell, "erase"), leases(&mut shell)), (String::new(), 0));
    assert!(
        git(&mut shell, "get").contains(PASSWORD),
        "it is still there, and what `store` said was not kept"
    );
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn store_replaces_a_password_only_where_that_was_allowed() {
    let stack = stack().await;
    let typed = "protocol=https\nhost=github.com\nusername=deploy-agent\npassword=typed-4471\n";
    let known = typed.replace("typed-4471", PASSWORD);
    stack.ask("git-credential store", typed).good();
    assert!(stack.audited("password.updated").is_empty());
    stack.ask("git-credential store --allow-store", &known).good();
    assert!(stack.audited("password.updated").is_empty(), "it was the same");
    stack.ask("git-credential store --allow-store", typed).good();
    assert!(stack.ask("git-credential get", ASKED).good().contains("\npassword=typed-4471\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_would_be_two_lines_is_not_given() {
    let stack = stack().await;
    let value = Secret::copy_of("first\nhost=github.com");
    stack.control().set_password(DEPLOY, "github.com", "deploy-agent", value).unwrap();
    let (what, _) = stack.ask("git-credential get", ASKED).failed(1);
    assert!(what.contains("line break"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_shown_nothing() {
    let stack = stack().await;
    for line in [
        &["git-credential", "get"][..],
        &["api-key", "ravi://secret/STRIPE_API_KEY"],
        &["ssh-askpass", "--host", "github.com", "--", "deploy-agent@github.com's password: "],
    ] {
        let mut command = stack.surrounded(PROGRAM);
        command.args(&line[..1]).args(["--role", "tools"]).args(&line[1..]);
        let (shown, code) = on_terminal(command, "", "");
        assert!(code == Some(2) && shown.contains("not a terminal"), "{shown}");
    }
    assert!(stack.audited("session.opened").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn git_itself_clones_over_https_with_what_the_helper_gives_it() {
    let Some(git) = git() else { return };
    let stack = stack().await;
    let home = stack.setup.directory();
    let server = Server::start(&repository(&git, home), "deploy-agent", PASSWORD);
    fs::write(home.join("ca.pem"), &server.certificate).unwrap();
    let clone = |host: &str, to: &str| {
        let port = server.port;
        let mut command = stack.surrounded(git.to_str().unwrap());
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_NOSYSTEM", "1");
        let bound = format!("--host github.com:{port}=ravi://password/github.com");
        for set in [
            "credential.helper=".to_owned(),
            format!("credential.helper=!ravi-broker git-credential --role tools {bound}"),
            format!("http.sslCAInfo={}", home.join("ca.pem").display()),
            format!("http.curloptResolve={host}:{port}:127.0.0.1"),
        ] {
            command.args(["-c", &set]);
        }
        command.args(["clone", "-q", &format!("https://{host}:{port}/notes.git"), to]).output().unwrap()
    };
    let cloned = clone("github.com", "clone");
    assert!(cloned.status.success(), "{}", text(&cloned.stderr));
    assert_eq!(fs::read_to_string(home.join("clone/README")).unwrap(), "notes\n");
    assert!(server.authorizations().contains(&true));
    // The same server under a name that the helper is not bound to is told no password, right or wrong.
    let refused = clone("other.example", "other");
    assert!(!refused.status.success() && server.authorizations().is_empty());
    let left = [cloned, refused].map(|output| [output.stdout, output.stderr].concat());
    assert!(left.iter().all(|said| !text(said).contains(PASSWORD)));
}

/// git, if there is one that can be told where a host is.
fn git() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|place| place.join("git")).find(|git| git.is_file());
    if found.is_none() {
        let _ = writeln!(std::io::stderr(), "skipped: there is no git here");
    }
    found
}

/// A repository that can be served as plain files.
fn repository(git: &Path, home: &Path) -> PathBuf {
    let run = |arguments: &[&str], directory: &Path| {
        let mut command = Command::new(git);
        command.env_clear().env("HOME", home).env("GIT_CONFIG_NOSYSTEM", "1").env("PATH", "/usr/bin:/bin");
        for name in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{name}_NAME"), "x").env(format!("GIT_{name}_EMAIL"), "x@example.com");
        }
        let done = command.args(arguments).current_dir(directory).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    let [source, served] = ["source", "served"].map(|name| home.join(name));
    fs::create_dir_all(&served).unwrap();
    run(&["init", "-q", source.to_str().unwrap()], home);
    fs::write(source.join("README"), "notes\n").unwrap();
    run(&["add", "README"], &source);
    run(&["commit", "-q", "-m", "x"], &source);
    run(&["clone", "-q", "--bare", source.to_str().unwrap(), "notes.git"], &served);
    run(&["update-server-info"], &served.join("notes.git"));
    served
}

/// Files over TLS, for whoever has the password.
struct Server {
    port: u16,
    certificate: String,
    /// One for each request that had an `Authorization`: whether it was right.
    seen: Receiver<bool>,
}

impl Server {
    fn start(root: &Path, username: &str, password: &str) -> Self {
        let names = ["github.com".to_owned(), "other.example".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![made.cert.der().clone()], key).unwrap());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let account = data_encoding::BASE64.encode(format!("{username}:{password}").as_bytes());
        let (root, (sender, seen)) = (root.to_owned(), channel());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is none of ours.
                let _ = serve(stream, &config, &root, &format!("Basic {account}"), &sender);
            }
        });
        Self { port, certificate: made.cert.pem(), seen }
    }

    /// What was tried since the last look.
    fn authorizations(&self) -> Vec<bool> {
        self.seen.try_iter().collect()
    }
}

fn serve(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    root: &Path,
    expected: &str,
    seen: &Sender<bool>,
) -> std::io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    let (mut path, mut allowed) = (String::new(), false);
    for line in reader.by_ref().lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET /") {
            path = rest.split([' ', '?']).next().unwrap_or_default().to_owned();
        }
        if let Some(given) = line.strip_prefix("Authorization: ") {
            allowed = given == expected;
            let _ = seen.send(allowed);
        }
    }
    let (status, body) = match (allowed, fs::read(root.join(path))) {
        (false, _) => ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"notes\"", Vec::new()),
        (true, Ok(body)) => ("200 OK", body),
        (true, Err(_)) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut stream = reader.into_inner();
    stream.write_all(&[head.as_bytes(), &body].concat())?;
    stream.conn.send_close_notify();
    stream.flush()
}
