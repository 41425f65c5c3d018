//! Host names to addresses: `localhost` is 127.0.0.1 and nothing else, the rest is the system's business.

use std::future::{Ready, ready};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};

use futures_util::future::{Either, FutureExt, Map};
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiFuture, GaiResolver, Name};
use tower::Service;

use crate::types::LOCALHOST;

/// Resolves the one host that is called.
#[derive(Clone)]
pub(super) struct Resolver(GaiResolver);

impl Default for Resolver {
    fn default() -> Self {
        Self(GaiResolver::new())
    }
}

/// Addresses of a host; the port is set by the connector.
pub(super) enum Addresses {
    Loopback(std::iter::Once<SocketAddr>),
    System(GaiAddrs),
}

impl Iterator for Addresses {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        match self {
            Self::Loopback(addresses) => addresses.next(),
            Self::System(addresses) => addresses.next(),
        }
    }
}

type Answer = io::Result<Addresses>;

impl Service<Name> for Resolver {
    type Response = Addresses;
    type Error = io::Error;
    type Future = Either<Ready<Answer>, Map<GaiFuture, fn(io::Result<GaiAddrs>) -> Answer>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if name.as_str() == LOCALHOST {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            return Either::Left(ready(Ok(Addresses::Loopback(std::iter::once(address)))));
        }
        Either::Right(self.0.call(name).map(|found| found.map(Addresses::System)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_one_address() {
        let found = Resolver::default().call("localhost".parse().unwrap()).await.unwrap();
        assert!(matches!(found, Addresses::Loopback(_)), "the system was not asked");
        assert_eq!(found.collect::<Vec<_>>(), [SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]);
    }
}
