//! Compiles `proto/` with a pure-Rust compiler, so that a build needs no `protoc`.

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
