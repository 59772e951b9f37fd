//! Listening sockets: bound once by the node, before its threads start, and shared by all shards.

use std::fmt;
use std::io;

use abi::Addr;
use shard::ListenerId;

/// One address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerSpec {
    /// What `Accepted` will say.
    pub id: ListenerId,
    /// Where; port 0 lets the kernel choose.
    pub addr: Addr,
}

/// The listening sockets of a node. Dropping the last copy closes them and removes unix sockets.
#[derive(Debug)]
pub struct Listeners {
    addrs: Vec<(ListenerId, Addr)>,
}

/// Why an address could not be listened on.
#[derive(Debug)]
pub struct BindError {
    /// Which.
    pub addr: Addr,
    /// Why.
    pub kind: BindErrorKind,
}

/// The reasons worth telling apart.
#[derive(Debug)]
pub enum BindErrorKind {
    /// Somebody listens there: the pid and command, where readable.
    InUse(Option<(u32, String)>),
    /// Ports below 1024, or a folder, that need a permission.
    Permission,
    /// No interface has the address.
    NotLocal,
    /// The path exists and is not a socket.
    NotASocket,
    /// Anything else.
    Io(io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.addr, self.kind)
    }
}

impl std::error::Error for BindError {}

impl Listeners {
    /// Binds and listens on every address, or on none.
    pub fn bind(specs: &[ListenerSpec]) -> Result<Self, BindError> {
        let _ = specs;
        unimplemented!()
    }

    /// No listeners: for a client.
    pub fn none() -> Self {
        Self { addrs: Vec::new() }
    }

    /// Where each listens, with the ports the kernel chose.
    pub fn local_addrs(&self) -> &[(ListenerId, Addr)] {
        &self.addrs
    }
}
