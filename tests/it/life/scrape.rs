//! `[metrics] listen`: what a scraper is told, and what anybody else is not.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{assert_two_lines, metrics, refused, steady};
use crate::support::{Stack, bounded, until};

async fn served() -> (Stack, SocketAddr) {
    // Any port that is free; the log says which.
    let stack = Stack::with(|setup| setup.sections = "[metrics]\nlisten = \"127.0.0.1:0\"".to_owned()).await;
    let said = |log: &str| {
        let line = log.lines().find(|line| line.contains("metrics are served over HTTP"))?.to_owned();
        line.split("address=").nth(1)?.trim().parse().ok()
    };
    let address = said(&stack.daemon.log()).unwrap_or_else(|| panic!("{}", stack.daemon.log()));
    (stack, address)
}

/// All that the daemon answers to these bytes until it closes the connection.
async fn told(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the daemon listens");
    // It may hang up on what is too much before all of it was written.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = bounded(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(method: &str, path: &str, host: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_is_told_what_the_operator_is_told() {
    let (stack, address) = served().await;
    let agent = stack.agent("notes").await;
    let (lease, credential) = agent.acquire("secret/OPENAI_API_KEY", None, "to-canary").await.unwrap();
    let scrape = request("GET", "/metrics", &address.to_string());
    let same = async || {
        let answer = told(address, &scrape).await;
        let (head, page) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        let kept = [credential.value.expose(), &lease.lease_id.to_string(), "OPENAI", "canary", "assistant-"];
        assert!(kept.iter().all(|kept| !page.contains(kept)), "{page}");
        let (scraped, shown) = (steady(page), steady(&metrics(&stack)));
        assert!(scraped.len() > 50, "{page}");
        scraped == shown
    };
    // Closing what asked before is still being counted.
    until(same).await;
    let head = told(address, &request("HEAD", "/metrics", "localhost")).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_is_asked_is_refused() {
    let (stack, address) = served().await;
    let own = address.to_string();
    let huge = format!("GET /metrics HTTP/1.1\r\nHost: {own}\r\nX: {}\r\n\r\n", "a".repeat(64 << 10));
    let many = format!("GET /metrics HTTP/1.1\r\nHost: {own}\r\n{}\r\n", "X: a\r\n".repeat(100));
    for (asked, status) in [
        (request("POST", "/metrics", &own), "405 "),
        (request("DELETE", "/metrics", &own), "405 "),
        (request("GET", "/", &own), "404 "),
        (request("GET", "/metrics?all=1", &own), "404 "),
        (request("GET", "/../metrics", &own), "404 "),
        // A name that leads here: a web page in a browser of this machine.
        (request("GET", "/metrics", "evil.example:9464"), "421 "),
        (b"GET /metrics HTTP/1.1\r\n\r\n".to_vec(), "421 "),
        (huge.into_bytes(), "431 "),
        (many.into_bytes(), "431 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(), "400 "),
    ] {
        let answer = told(address, &asked).await;
        let shown = String::from_utf8_lossy(&asked[..asked.len().min(60)]).into_owned();
        // What was too much may cost the answer along with the connection.
        let expected =
            answer.is_empty() && status == "431 " || answer.starts_with(&format!("HTTP/1.1 {status}"));
        assert!(expected, "{shown:?}: {answer}");
        assert!(!answer.contains("ravi_broker_"), "{shown:?}: {answer}");
    }
    assert_eq!(told(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "", "HTTP/2 is not spoken");
    let second = [request("GET", "/metrics", &own), request("GET", "/metrics", &own)].concat();
    let answer = told(address, &second).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "one request for a connection");
    stack.agent("notes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_slow_is_cut_off_and_holds_up_no_agent() {
    let (stack, address) = served().await;
    let mut slow = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(address).await.expect("the daemon listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
        slow.push(stream);
    }
    // All places are taken; agents have nothing to do with them.
    stack.agent("notes").await.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let scraped = tokio::spawn(async move { told(address, &request("GET", "/metrics", "localhost")).await });
    for mut stream in slow {
        let mut answer = Vec::new();
        // The end, or a reset: in any case nothing.
        let _ = bounded(stream.read_to_end(&mut answer)).await;
        assert!(!String::from_utf8_lossy(&answer).contains("ravi_broker_"));
    }
    let answer = bounded(scraped).await.unwrap();
    assert!(answer.contains("ravi_broker_serving 1"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_keeps_the_daemon_from_starting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (setup, _sandbox) =
        Stack::prepared(|setup| setup.sections = format!("[metrics]\nlisten = \"{address}\"")).await;
    let said = refused(&setup).await;
    let said = said.lines().skip_while(|line| !line.starts_with("error: ")).collect::<Vec<_>>().join("\n");
    assert_two_lines(&said);
    assert!(said.contains(&address.to_string()) && said.contains("metrics.listen"), "{said}");
}
