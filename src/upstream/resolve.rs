//! Host names to addresses: `localhost` is 127.0.0.1 and nothing else, the rest is the system's business.
//! For hosts that an answer named, addresses inside this network are left out.

use std::future::{Ready, ready};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};

use futures_util::future::{Either, FutureExt, Map};
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiFuture, GaiResolver, Name};
use tower::Service;

use crate::types::LOCALHOST;

/// Which addresses are connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// All: the operator named the host.
    All,
    /// Those of this machine.
    Loopback,
    /// Those of the public internet.
    Public,
}

impl Reach {
    pub(super) fn covers(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::All, _) => true,
            (Self::Loopback, address) => address.is_loopback(),
            (Self::Public, IpAddr::V4(address)) => is_public(address),
            (Self::Public, IpAddr::V6(address)) => is_public_v6(address),
        }
    }
}

/// Not one of the special-purpose ranges (RFC 6890); the clouds' metadata services are among them.
fn is_public(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (b == 18 || b == 19);
    let special = address.is_private() || address.is_loopback() || address.is_link_local();
    !(special || shared || protocol || benchmark || address.is_documentation() || a == 0 || a >= 224)
}

/// Global unicast without the ranges that stand for IPv4 or for examples; translated IPv4 by what it stands for.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = address.octets();
            is_public(Ipv4Addr::new(a, b, c, d))
        }
        [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Resolves the hosts that are called.
#[derive(Clone)]
pub(super) struct Resolver {
    system: GaiResolver,
    reach: Reach,
}

impl Resolver {
    pub(super) fn new(reach: Reach) -> Self {
        Self { system: GaiResolver::new(), reach }
    }
}

/// Addresses of a host; the port is set by the connector.
pub(super) struct Addresses {
    found: Found,
    reach: Reach,
}

enum Found {
    Loopback(std::iter::Once<SocketAddr>),
    System(GaiAddrs),
}

impl Iterator for Addresses {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        let reach = self.reach;
        let covered = |address: &SocketAddr| reach.covers(address.ip());
        match &mut self.found {
            Found::Loopback(addresses) => addresses.find(covered),
            Found::System(addresses) => addresses.find(covered),
        }
    }
}

type Answer = io::Result<Addresses>;
type Wrap = Box<dyn FnOnce(io::Result<GaiAddrs>) -> Answer + Send>;
type Within = Map<GaiFuture, Wrap>;

impl Service<Name> for Resolver {
    type Response = Addresses;
    type Error = io::Error;
    type Future = Either<Ready<Answer>, Within>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let reach = self.reach;
        if name.as_str() == LOCALHOST {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let found = Found::Loopback(std::iter::once(address));
            return Either::Left(ready(Ok(Addresses { found, reach })));
        }
        let found = self.system.call(name);
        let within = move |found: io::Result<GaiAddrs>| {
            found.map(|found| Addresses { found: Found::System(found), reach })
        };
        Either::Right(found.map(Box::new(within) as Wrap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_one_address() {
        let found = Resolver::new(Reach::All).call("localhost".parse().unwrap()).await.unwrap();
        assert!(matches!(found.found, Found::Loopback(_)), "the system was not asked");
        assert_eq!(found.collect::<Vec<_>>(), [SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]);
    }

    #[tokio::test]
    async fn a_host_that_an_answer_named_is_not_this_machine() {
        for name in ["localhost", "127.0.0.1"] {
            let found = Resolver::new(Reach::Public).call(name.parse().unwrap()).await.unwrap();
            assert_eq!(found.collect::<Vec<_>>(), [], "{name}");
        }
    }

    #[test]
    fn the_public_internet_is_what_no_special_range_holds() {
        for address in
            ["1.1.1.1", "100.63.0.1", "172.32.0.1", "198.20.0.1", "2606:4700::1", "64:ff9b::101:101"]
        {
            assert!(Reach::Public.covers(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.2",
            "169.254.169.254",
            "172.31.0.1",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!Reach::Public.covers(address.parse().unwrap()), "{address}");
        }
    }
}
