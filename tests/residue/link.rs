//! A link: what its conversations leave behind, value and keys.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use aho_corasick::AhoCorasick;
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use ravi_broker::client::{OpenSession, link};
use ravi_broker::link::{HEAD, Head, Kind, PUBLIC_KEY, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::canary::Kind as Of;
use crate::command::at_exit;
use crate::frozen::Frozen;
use crate::memory::{may_look, read_all};
use crate::scan::Scanner;
use crate::stage::{Stage, nothing};
use crate::support::bounded;

const NUMBER: u64 = 7;
/// One on which nothing happens ends by itself, but not before 15 s.
const AT_ONCE: Duration = Duration::from_secs(8);

async fn linked(stage: &mut Stage) -> OwnedFd {
    let client = stage.stack.stranger().await;
    let (_, token) = client.open_session(OpenSession::role("notes")).await.unwrap();
    stage.saw(Of::SessionToken, token.expose());
    link::make(&stage.stack.setup.agent_socket, &token).await.unwrap()
}

/// The command line with the link as its only way.
fn asking(stage: &Stage, link: &OwnedFd) -> Command {
    let script =
        format!("exec 9<&0 0</dev/null; exec {} get secret/CANARY", env!("CARGO_BIN_EXE_ravi-broker"));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]).env_clear().current_dir(stage.stack.setup.directory());
    command.env("RAVI_BROKER_SOCKET", &stage.stack.setup.agent_socket).env("RAVI_BROKER_LINK_FD", "9");
    command.stdin(Stdio::from(link.try_clone().unwrap())).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_leaves_no_copy_of_its_value_at_either_end() {
    if !may_look() {
        return;
    }
    let mut stage = Stage::set().await;
    stage.plant_secret("CANARY");
    let link = linked(&mut stage).await;
    for _ in 0..8 {
        let (scanner, daemon) = (Scanner::new(&stage.canaries), stage.stack.daemon.pid());
        let command = asking(&stage, &link);
        let (census, outcome) =
            tokio::task::spawn_blocking(move || at_exit(command, daemon, &scanner)).await.unwrap();
        assert_eq!(outcome, Some(0));
        assert!(census.is_clean(), "copies were left at the exit:\n{census}");
    }
    // The link itself is still open.
    stage.search("link", &nothing);
    stage.show();
    let failures = stage.beyond("link", &nothing);
    assert!(failures.is_empty(), "copies were left:\n{failures}");
}

/// The keys of both directions, in halves: what the documents say they are made of.
fn keys(private: &PrivateKey, client: &[u8], broker: &[u8]) -> Vec<Vec<u8>> {
    let peer = UnparsedPublicKey::new(&X25519, broker);
    agree(private, peer, (), |shared| {
        let mut halves: Vec<Vec<u8>> = shared.chunks(16).map(<[u8]>::to_vec).collect();
        let secret = Salt::new(HKDF_SHA256, b"ravi-broker link 2").extract(shared);
        for direction in [&b"to the broker"[..], b"to the client"] {
            let mut key = [0; 32];
            let info = [direction, client, broker, &NUMBER.to_be_bytes()];
            secret.expand(&info, HKDF_SHA256).unwrap().fill(&mut key).unwrap();
            halves.extend(key.chunks(16).map(<[u8]>::to_vec));
        }
        Ok(halves)
    })
    .unwrap()
}

/// Where they are in the daemon. The first two, of the shared secret, must never be.
fn found(pid: i32, halves: &[Vec<u8>]) -> Vec<String> {
    let _frozen = Frozen::new(pid);
    let automaton = AhoCorasick::new(halves).unwrap();
    let mut places = Vec::new();
    read_all(pid, |mapping, content| {
        let hits = automaton.find_overlapping_iter(content);
        places.extend(
            hits.map(|hit| format!("{} {}", hit.pattern().as_usize(), mapping.place(hit.start() as u64))),
        );
    });
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_a_conversation_are_there_while_it_lasts_and_gone_with_it() {
    if !may_look() {
        return;
    }
    let mut stage = Stage::set().await;
    let link = linked(&mut stage).await;
    let stream = std::os::unix::net::UnixStream::from(link);
    stream.set_nonblocking(true).unwrap();
    let mut stream = UnixStream::from_std(stream).unwrap();
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).unwrap();
    let private = PrivateKey::from_private_key(&X25519, &secret).unwrap();
    let public = private.compute_public_key().unwrap().as_ref().to_vec();
    let mut open = Vec::new();
    write(Kind::Open, NUMBER, &public, &mut open);
    stream.write_all(&open).await.unwrap();
    let mut opened = [0; HEAD + PUBLIC_KEY];
    bounded(stream.read_exact(&mut opened)).await.unwrap();
    assert_eq!(Head::read(opened.first_chunk().unwrap()).unwrap().kind, Kind::Opened);
    let halves = keys(&private, &public, &opened[HEAD..]);
    // Its first answer is sealed already.
    bounded(stream.read_exact(&mut [0; HEAD])).await.unwrap();
    let pid = stage.stack.daemon.pid();
    let lasting = found(pid, &halves);
    for half in 2..6 {
        let of = format!("{half} ");
        assert!(
            lasting.iter().any(|place| place.starts_with(&of)),
            "no key is found while it is in use: {lasting:?}"
        );
    }
    assert!(!lasting.iter().any(|place| place.starts_with("0 ") || place.starts_with("1 ")), "{lasting:?}");
    // A frame that does not open ends it.
    let mut broken = Vec::new();
    write(Kind::Data, NUMBER, &[9; 64], &mut broken);
    stream.write_all(&broken).await.unwrap();
    let gone = timeout(AT_ONCE, async {
        while !found(pid, &halves).is_empty() {
            tokio::task::yield_now().await;
        }
    });
    assert!(gone.await.is_ok(), "keys outlive their conversation");
}
