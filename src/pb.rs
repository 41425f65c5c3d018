//! The generated wire types of `ravi.broker.v1`. Imported by `grpc` and `client` alone: everything
//! else speaks domain types.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; `proto/` has the documentation")]

use std::fmt;

tonic::include_proto!("ravi.broker.v1");

/// The messages that can carry a secret print their name only. `build.rs` keeps `prost` from
/// deriving `Debug` for them.
macro_rules! redacted_debug {
    ($($message:ident),* $(,)?) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message)).finish_non_exhaustive()
            }
        }
    )*};
}

redacted_debug!(
    Credential,
    OpenSessionResponse,
    DelegateSessionResponse,
    AcquireLeaseResponse,
    ReadLeaseResponse,
    UpdatePasswordRequest,
    SetSecretRequest,
    ImportKeysRequest,
    MintSsoTokenResponse,
    Message,
    GetMessageResponse,
    Code,
    AwaitCodeResponse,
    AttachFileRequest,
    Content,
    SendEmailRequest,
    ReplyEmailRequest,
    ReplyAllEmailRequest,
    ForwardEmailRequest,
    SendSmsRequest,
);
