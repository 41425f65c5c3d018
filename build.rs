//! Compiles `proto/` with a pure-Rust compiler, so that a build needs no `protoc`, and tells the programs of
//! which commit they are.

use std::process::Command;

const PROTO_ROOT: &str = "proto";
const FILES: [&str; 7] = ["admin", "error", "identity", "inbox", "lease", "session", "vault"];

/// Messages that can carry a secret: their generated `Debug` would print it. `src/pb.rs` writes a
/// redacted one by hand.
const SECRET_MESSAGES: [&str; 20] = [
    "Credential",
    "OpenSessionResponse",
    "DelegateSessionResponse",
    "AcquireLeaseResponse",
    "ReadLeaseResponse",
    "UpdatePasswordRequest",
    "SetSecretRequest",
    "ImportKeysRequest",
    "MintSsoTokenResponse",
    "Message",
    "GetMessageResponse",
    "Code",
    "AwaitCodeResponse",
    "AttachFileRequest",
    "Content",
    "SendEmailRequest",
    "ReplyEmailRequest",
    "ReplyAllEmailRequest",
    "ForwardEmailRequest",
    "SendSmsRequest",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rustc-env=RAVI_BROKER_COMMIT={}", commit().unwrap_or_else(|| "unknown".to_owned()));
    println!("cargo:rerun-if-changed={PROTO_ROOT}");
    let files = FILES.map(|name| format!("ravi/broker/v1/{name}.proto"));
    let descriptors = protox::compile(&files, [PROTO_ROOT])?;
    // The names of all calls, which metrics tell apart: `LeaseService/AcquireLease`.
    let services = descriptors.file.iter().flat_map(|file| &file.service);
    let of_service = services.flat_map(|service| {
        service.method.iter().map(|method| format!("{}/{}", service.name(), method.name()))
    });
    println!("cargo:rustc-env=RAVI_BROKER_METHODS={}", of_service.collect::<Vec<_>>().join(" "));
    let secret = SECRET_MESSAGES.map(|name| format!(".ravi.broker.v1.{name}"));
    tonic_prost_build::configure()
        .skip_debug(secret)
        // So that padding, the only field of this type, is not allocated for each answer.
        .bytes(".ravi.broker.v1")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}

/// `RAVI_BROKER_COMMIT`, for who builds without the repository; else what git says, `+` after it where the
/// tree differed. Only of what is shipped: a commit must not rebuild everything that is under test.
fn commit() -> Option<String> {
    println!("cargo:rerun-if-env-changed=RAVI_BROKER_COMMIT");
    if let Ok(named) = std::env::var("RAVI_BROKER_COMMIT") {
        let fits = named.len() <= 64 && named.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
        return Some(named).filter(|named| fits && !named.is_empty());
    }
    if std::env::var("PROFILE").ok()? != "release" {
        return Some("development".to_owned());
    }
    // Every file's state belongs to the answer.
    for path in ["Cargo.toml", "Cargo.lock", "src", git(&["rev-parse", "--git-path", "logs/HEAD"])?.as_str()]
    {
        println!("cargo:rerun-if-changed={path}");
    }
    git(&["describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"])
}

/// `None`: there is no git, or this is no repository of it.
fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}
