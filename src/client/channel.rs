//! The connection: HTTP/2 over a Unix socket, with bounds on waits and sizes. A lost connection is made
//! again with the next call, to the same socket; the call that was under way is not repeated.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

use super::error::{Attempt, ClientError, ConnectFailure};
use super::link::{self, Conversation};

/// Longest answer that is decoded.
pub(super) const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// The daemon may itself wait 30 s for Ravi, and does so more than once for a write.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// A local socket answers at once, unless its backlog is full.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// The daemon accepts this authority and no socket path in its place.
const ORIGIN: &str = "http://localhost";

/// A stream of events; ends with the first error.
pub type Events<T> = BoxStream<'static, Result<T, ClientError>>;

/// Connects to the first candidate that accepts.
pub(super) async fn connect(candidates: &[PathBuf]) -> Result<(Channel, PathBuf), ClientError> {
    let mut tried = Vec::new();
    for path in candidates {
        match dial(path).await {
            Ok(stream) => return Ok((channel(path, stream).await?, path.clone())),
            Err(attempt) => tried.push(attempt),
        }
    }
    Err(ClientError::Unreachable { tried })
}

/// The link that a launcher left open, if it leads to the one candidate: the only way where sockets are
/// forbidden. `None`: there is none.
pub(super) async fn over_link(candidates: &[PathBuf]) -> Option<Result<Channel, Attempt>> {
    let [candidate] = candidates else { return None };
    if !link::leads_to(candidate) {
        return None;
    }
    let opened = Conversation::open().await.map_err(of_link);
    Some(match opened {
        Ok(first) => converse(first).await,
        Err(attempt) => Err(attempt),
    })
}

async fn converse(first: Conversation) -> Result<Channel, Attempt> {
    let first = Arc::new(Mutex::new(Some(first)));
    let connector = tower::service_fn(move |_| {
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            let conversation = match first {
                Some(conversation) => Ok(conversation),
                None => Conversation::open().await,
            };
            conversation.map(TokioIo::new).map_err(of_link)
        }
    });
    endpoint().connect_with_connector(connector).await.map_err(|_| of_link(ConnectFailure::LinkEnded))
}

/// What became of an attempt to use the link, by the name of what names it.
fn of_link(failure: ConnectFailure) -> Attempt {
    Attempt { path: link::VARIABLE.into(), failure }
}

fn endpoint() -> Endpoint {
    Endpoint::from_static(ORIGIN).http2_max_header_list_size(MAX_HEADER_BYTES)
}

pub(super) async fn dial(path: &Path) -> Result<UnixStream, Attempt> {
    let failure = match timeout(CONNECT_DEADLINE, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => ConnectFailure::from(&error),
        Err(_) => ConnectFailure::Other(std::io::ErrorKind::TimedOut),
    };
    Err(Attempt { path: path.to_owned(), failure })
}

/// Starts with `stream`, so that the daemon sees one connection and not a probe before it.
async fn channel(path: &Path, stream: UnixStream) -> Result<Channel, ClientError> {
    let first = Arc::new(Mutex::new(Some(stream)));
    let path: Arc<Path> = path.into();
    let connector = tower::service_fn(move |_| {
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let path = Arc::clone(&path);
        async move {
            let stream = match first {
                Some(stream) => stream,
                None => dial(&path).await?,
            };
            Ok::<_, Attempt>(TokioIo::new(stream))
        }
    });
    endpoint().connect_with_connector(connector).await.map_err(|_| ClientError::Lost)
}

/// Waits for the one answer of a call.
pub(super) async fn answer<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ClientError> {
    answer_within(CALL_DEADLINE, call).await
}

async fn answer_within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ClientError> {
    match timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(ClientError::of_status(&status)),
        Err(_) => Err(ClientError::TimedOut),
    }
}

/// Waits for a stream to begin; its items have no deadline.
pub(super) async fn events<M, T, F>(
    call: impl Future<Output = Result<Response<Streaming<M>>, Status>>,
    convert: F,
) -> Result<Events<T>, ClientError>
where
    M: Send + 'static,
    T: Send + 'static,
    F: Fn(M) -> Result<T, ClientError> + Send + 'static,
{
    let stream = answer(call).await?;
    let items = stream.map(move |item| item.map_err(|s| ClientError::of_status(&s)).and_then(&convert));
    let until_error = items.scan(false, |failed, item| {
        let end = std::mem::replace(failed, item.is_err());
        std::future::ready((!end).then_some(item))
    });
    Ok(until_error.boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_without_an_answer_ends_at_its_deadline() {
        let never = std::future::pending::<Result<Response<()>, Status>>();
        assert_eq!(answer_within(Duration::ZERO, never).await, Err(ClientError::TimedOut));
    }
}
