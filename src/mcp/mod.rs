//! The MCP stdio adapter: what a model sees of the broker. Thin: no vault, no upstream, no key; it holds
//! the token of one session and passes one call on per tool call.
//!
//! Nothing but protocol reaches standard output. The adapter lives for hours, so nothing of a value stays
//! once its answer is written: each call has a connection of its own, and no buffer outlives its line. Memory
//! is bounded: the length of a message, the calls under way, the answers that wait for the host to read them.
//! May import `client`, `secret` and `types`; `rmcp` is imported in this folder alone.

mod access;
mod advice;
mod args;
mod output;
mod progress;
mod rights;
mod server;
mod session;
mod stdio;
#[cfg(test)]
mod tests;
mod tools;
mod untrusted;
mod wire;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use rmcp::service::{QuitReason, serve_server_with_ct};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub use access::Access;
pub use args::{Args, ArgsError, Asked};
use server::Adapter;
use session::BrokerSession;
use wire::{Link, Wire};

/// The service's own task failed, which no input should be able to cause.
#[derive(Debug, Error)]
#[error("the adapter's service task failed")]
pub struct ServiceFailed;

/// Serves MCP on standard input and output until the input ends or `stop` is done, then closes the
/// session. Calls under way get a few seconds to finish.
///
/// The caller must not wait for the runtime's blocking threads afterwards: one of them is still reading
/// standard input.
pub async fn run(
    access: Access,
    sockets: Vec<PathBuf>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServiceFailed> {
    serve(access, sockets, stdio::Input::default(), stdio::Output::default(), stop).await
}

/// Serves MCP on any pair of streams, until the input ends or `stop` is done.
///
/// # Errors
/// [`ServiceFailed`], which no input should be able to cause.
pub async fn serve<R, W>(
    access: Access,
    sockets: Vec<PathBuf>,
    input: R,
    output: W,
    stop: impl Future<Output = ()>,
) -> Result<(), ServiceFailed>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let session = Arc::new(BrokerSession::new(access, sockets));
    let link = Arc::new(Link::default());
    let adapter = Adapter::new(Arc::clone(&session), Arc::clone(&link));
    let wire = Wire::new(input, output, link);
    let cancel = CancellationToken::new();
    let served = until_closed(adapter, wire, cancel.clone());
    tokio::pin!(served);
    let result = tokio::select! {
        result = &mut served => result,
        () = stop => {
            cancel.cancel();
            served.await
        }
    };
    session.close().await;
    result
}

async fn until_closed<R>(
    adapter: Adapter,
    wire: Wire<R>,
    cancel: CancellationToken,
) -> Result<(), ServiceFailed>
where
    R: AsyncRead + Send + Unpin + 'static,
{
    // Fails only where the input ends before a session of the protocol began, or on cancellation.
    let Ok(service) = serve_server_with_ct(adapter, wire, cancel).await else { return Ok(()) };
    match service.waiting().await {
        Ok(QuitReason::JoinError(_)) | Err(_) => Err(ServiceFailed),
        Ok(_) => Ok(()),
    }
}
