//! A compiled application: what an `.adn` file says, ready for a shard.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::net::{IpAddr, SocketAddr};

use crate::{Chain, Routes};

/// An index into [`Program::services`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServiceIdx(pub u16);

/// An index into one service's [`Service::endpoints`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct EndpointIdx(pub u16);

/// An index into [`Program::sinks`]: where access-log lines go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SinkIdx(pub u16);

/// An index into [`Program::keys`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyIdx(pub u16);

/// Where a peer listens.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Addr {
    /// TCP over IPv4 or IPv6.
    Ip(SocketAddr),
    /// A unix socket's path.
    Unix(String),
}

impl Addr {
    /// Its place on a ring of endpoints: a hash of how it reads, stable over reloads.
    pub fn ring_place(&self) -> u64 {
        let mix = |x: u64| {
            let mut x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        let text = alloc::format!("{self}");
        text.bytes().fold(0x5851_F42D_4C95_7F2D, |h, b| mix(h ^ u64::from(b)))
    }
}

impl core::fmt::Display for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ip(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// One backend of a service.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub addr: Addr,
    /// Its share under weighted policies; 1 unless written.
    pub weight: u32,
    /// Its zone; empty unless written.
    pub zone: String,
    /// Free labels, in the order written.
    pub labels: Vec<(String, String)>,
}

/// How a caller is recognised (`from:`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// `listen:NAME`, a listener of `node.toml`.
    Listener(String),
    /// `unix:PATH`, the unix socket it came through.
    Unix(String),
    /// `uid:N`, by the peer credentials of a unix socket.
    Uid(u32),
    /// An address range: address and prefix length in bits.
    Cidr(IpAddr, u8),
}

/// A `service` of the file.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The authorities that mean it, lower case; its name is always one of them, written or not.
    pub hosts: Vec<String>,
    /// Who it is when it calls; empty when the file says nothing.
    pub from: Vec<Source>,
    /// Its backends, in the order written.
    pub endpoints: Vec<Endpoint>,
    /// `via:`, the port its connections leave by.
    pub via: Option<String>,
    /// True if some rule has it as a destination.
    pub is_destination: bool,
}

/// Which methods a route covers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MethodMatch {
    /// Every method but those of `grpc.health.v1` and reflection.
    Any,
    /// `pkg.Service/*`.
    Service(String),
    /// `pkg.Service/Method`: both, without the slash.
    Method(String, String),
}

/// One line of the flattened rule table. The first that matches a call serves it.
#[derive(Clone, Debug)]
pub struct Route {
    /// The calling service; `None` is any caller.
    pub source: Option<ServiceIdx>,
    /// The called service; `None` is any.
    pub destination: Option<ServiceIdx>,
    /// The methods.
    pub method: MethodMatch,
    /// An index into [`Program::chains`].
    pub chain: u32,
    /// The line of the file that says so, from 1.
    pub line: u32,
}

/// What is known of one element of a chain: for logs, metrics and messages.
#[derive(Clone, Debug)]
pub struct ElementInfo {
    /// Its name, `FaultInjection`.
    pub name: String,
    /// As written in the rule, `FaultInjection(0.1)`.
    pub text: String,
    /// The line of the rule that put it there, from 1.
    pub line: u32,
}

/// A compiled application. Immutable; a reload makes another.
pub struct Program {
    /// The file it came from, as the user named it.
    pub file: String,
    /// The services, in the order written.
    pub services: Vec<Service>,
    /// The rules, flattened: the first match wins, `every` rules are already in the chains.
    pub routes: Routes,
    /// The chains that routes name.
    pub chains: Vec<Arc<dyn Chain>>,
    /// Where access-log lines go: `stdout`, or a path.
    pub sinks: Vec<String>,
    /// What `count`, `observe` and counters of elements are called, by index.
    pub metrics: Vec<String>,
    /// Names of the keys that `encrypt` and `decrypt` name; what they are says `node.toml`.
    pub keys: Vec<String>,
}

impl Program {
    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<ServiceIdx> {
        let at = self.services.iter().position(|s| s.name == name)?;
        u16::try_from(at).ok().map(ServiceIdx)
    }

    /// The name of a service; empty for none.
    pub fn service_name(&self, service: Option<ServiceIdx>) -> &str {
        service.and_then(|s| self.services.get(usize::from(s.0))).map_or("", |s| s.name.as_str())
    }

    /// Health checks and reflection: general rules do not touch them, and they are never faulted.
    pub fn is_reserved(service: &str) -> bool {
        service.starts_with("grpc.health.v1") || service.starts_with("grpc.reflection.")
    }
}

impl core::fmt::Debug for Program {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Program")
            .field("file", &self.file)
            .field("services", &self.services)
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}
