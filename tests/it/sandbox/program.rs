//! The program `ravi-sandbox` itself.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use super::*;

struct Program(Child);

impl Program {
    fn start(arguments: &[&str]) -> (Self, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ravi-sandbox"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self(child), line)
    }

    fn end(mut self, signal: nix::sys::signal::Signal) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_serves_until_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let ca_dir = dir.path().join("dev");
    let key_file = dir.path().join("management-key");
    std::fs::write(&key_file, "ravi_mgmt_from_file\n").unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let arguments = [
        "--format=json",
        "--auto-approve",
        "--switch=email_messages=array",
        "--switch=device_interval=0",
        "--ca-dir",
        ca_dir.to_str().unwrap(),
        "--management-key-file",
        key_file.to_str().unwrap(),
    ];
    let (program, line) = Program::start(&arguments);
    assert!(!line.contains("ravi_mgmt_"));
    let ready: Value = serde_json::from_str(&line).unwrap();
    let pem = std::fs::read_to_string(ready["ca"].as_str().unwrap()).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----") && !pem.contains("PRIVATE"));
    assert_eq!(std::fs::read_dir(&ca_dir).unwrap().count(), 1, "the certificate and nothing else");
    let http = Http::new(ready["base_url"].as_str().unwrap(), Some(&pem));
    let request = http.request(Method::GET, "/api/identities/", Some("ravi_mgmt_from_file"), None);
    assert_eq!(http.send(request).await.unwrap().status, 200);
    let login = http.send(http.request(Method::POST, "/api/auth/device/", None, None)).await.unwrap().json();
    assert_eq!(login["interval"], json!(0));
    let body = json!({ "device_code": login["device_code"] });
    let paid =
        http.send(http.request(Method::POST, "/api/auth/device/token/", None, Some(body))).await.unwrap();
    assert_eq!(paid.json()["management_key"], json!("ravi_mgmt_from_file"));
    assert_eq!(program.end(nix::sys::signal::SIGTERM), Some(0));
}

#[test]
fn the_program_speaks_plain_text_and_plain_http_too() {
    let (program, line) = Program::start(&["--http"]);
    assert!(line.starts_with("listening on http://127.0.0.1:") && !line.contains("CA"), "{line}");
    assert_eq!(program.end(nix::sys::signal::SIGINT), Some(0));
}

#[test]
fn the_program_refuses_a_key_file_that_others_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("management-key");
    std::fs::write(&key_file, "ravi_mgmt_from_file").unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ravi-sandbox"))
        .args(["--http", "--management-key-file", key_file.to_str().unwrap()])
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), message.lines().count()), (Some(1), 2));
    assert!(
        message.contains("can be read by others")
            && message.contains("chmod 600")
            && !message.contains("ravi_mgmt")
    );
}
