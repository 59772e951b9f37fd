//! One shard's queue of a port with TCP/IP on top, whichever backend drives it.

use core::fmt;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use net::Stack;
use shard::Instant;

use super::post::Post;
use super::{DeviceSpec, PortError, PortOptions, PortSpec, XdpMode};
#[cfg(feature = "dpdk")]
use crate::dpdk;
use crate::tap::{Tap, TapHandle};
use crate::xdp;

/// A port that nothing comes from is looked at this often.
const LOOK_AT_LINK: Duration = Duration::from_secs(1);

/// A raw port of one shard.
pub(crate) struct Raw {
    pub(crate) stack: AnyStack,
    /// Its frames go through the kernel: a burst is a system call.
    pub(crate) is_over_kernel: bool,
    name: String,
    shard: usize,
    post: Arc<Post>,
    /// As it was last told. A port begins as if it were up.
    was_up: bool,
}

/// The stacks there are.
#[allow(clippy::large_enum_variant, reason = "one per shard and port, never moved")]
pub(crate) enum AnyStack {
    Xdp(Stack<Tap<xdp::Queue>>),
    #[cfg(feature = "dpdk")]
    Dpdk(Stack<Tap<dpdk::Queue>>),
}

/// Calls the same method of whichever it is.
macro_rules! any {
    ($stack:expr, $inner:ident => $body:expr) => {
        match $stack {
            $crate::ports::AnyStack::Xdp($inner) => $body,
            #[cfg(feature = "dpdk")]
            $crate::ports::AnyStack::Dpdk($inner) => $body,
        }
    };
}
pub(crate) use any;

/// What a raw port of one shard counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortSnapshot {
    /// The port's name.
    pub name: String,
    /// TCP/IP.
    pub net: net::Snapshot,
    /// The device's totals, by name.
    pub device: Vec<(&'static str, u64)>,
    /// Its buffers and how many of them are out, where it counts them (DPDK).
    pub buffers: Option<[u64; 2]>,
}

impl Raw {
    /// Hands on what only this shard's queue receives, and takes what others' have. True if there was any
    /// for this one.
    pub(crate) fn exchange(&mut self) -> bool {
        if self.post.shards() == 1 {
            return false;
        }
        let (post, shard) = (&self.post, self.shard);
        any!(&mut self.stack, stack => {
            stack.shared_frames(|frame| post.send(shard, frame));
            let mut any = false;
            while let Some(frame) = post.take(shard) {
                stack.inject(&frame);
                any = true;
            }
            any
        })
    }

    /// True if the next burst has something to tell, without waiting.
    pub(crate) fn is_ready(&mut self) -> bool {
        let has_work = any!(&self.stack, stack => stack.has_work());
        has_work
            || self.post.has_any(self.shard)
            || match &mut self.stack {
                AnyStack::Xdp(stack) => stack.device_mut().inner_mut().settle(),
                #[cfg(feature = "dpdk")]
                AnyStack::Dpdk(stack) => stack.device_mut().inner_mut().has_frames(),
            }
    }

    /// When it must be looked at although no frame has come.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = any!(&self.stack, stack => stack.next_due());
        let retry = match &self.stack {
            AnyStack::Xdp(stack) => stack.device().inner().retry_at(now),
            #[cfg(feature = "dpdk")]
            AnyStack::Dpdk(stack) => stack.device().inner().retry_at(),
        };
        // However quiet it is, its link is looked at.
        [due, retry, Some(now.after(LOOK_AT_LINK))].into_iter().flatten().min()
    }

    /// What a sleeping thread may be woken by; `None`: it must look again after a while.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.stack {
            AnyStack::Xdp(stack) => Some(stack.device().inner().as_fd()),
            #[cfg(feature = "dpdk")]
            AnyStack::Dpdk(_) => None,
        }
    }

    /// What it counts.
    pub(crate) fn snapshot(&self) -> PortSnapshot {
        PortSnapshot {
            name: self.name.clone(),
            net: any!(&self.stack, stack => stack.snapshot()),
            device: match &self.stack {
                AnyStack::Xdp(stack) => stack.device().inner().counters().iter().collect(),
                #[cfg(feature = "dpdk")]
                AnyStack::Dpdk(stack) => stack.device().inner().totals(),
            },
            buffers: match &self.stack {
                AnyStack::Xdp(_) => None,
                #[cfg(feature = "dpdk")]
                AnyStack::Dpdk(stack) => Some(stack.device().inner().buffers()),
            },
        }
    }

    /// Its name, and whether its link is up, if that has changed since it was last asked.
    pub(crate) fn link_change(&mut self) -> Option<(&str, bool)> {
        let is_up = any!(&self.stack, stack => stack.is_link_up());
        (core::mem::replace(&mut self.was_up, is_up) != is_up).then_some((self.name.as_str(), is_up))
    }
}

/// What the queues of a port need to stay open.
pub(super) enum Owner {
    /// The queues own it together.
    Xdp,
    #[cfg(feature = "dpdk")]
    Dpdk { _port: dpdk::Port },
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owner")
    }
}

/// A shard's queue, not yet on its thread.
#[derive(Debug)]
pub(crate) enum Seat {
    Xdp(xdp::BoundQueue),
    #[cfg(feature = "dpdk")]
    Dpdk(dpdk::Seat),
}

impl Seat {
    /// The queue with its stack, for the calling thread.
    pub(super) fn open(
        self,
        name: &str,
        config: net::Config,
        post: Arc<Post>,
        shard: usize,
        tap: &TapHandle,
    ) -> Result<Raw, PortError> {
        let refused = |why: String| PortError { port: name.to_owned(), why };
        let is_over_kernel = match &self {
            Self::Xdp(_) => true,
            #[cfg(feature = "dpdk")]
            Self::Dpdk(seat) => seat.is_over_kernel(),
        };
        let stack = match self {
            Self::Xdp(queue) => Stack::open(Tap::new(queue.start(), tap), config).map(AnyStack::Xdp),
            #[cfg(feature = "dpdk")]
            Self::Dpdk(seat) => {
                let queue = seat.open().map_err(|e| refused(e.to_string()))?;
                Stack::open(Tap::new(queue, tap), config).map(AnyStack::Dpdk)
            }
        };
        let stack = stack.map_err(|e| refused(e.to_string()))?;
        Ok(Raw { stack, is_over_kernel, name: name.to_owned(), shard, post, was_up: true })
    }
}

/// What must happen once, before any port is opened.
pub(super) fn start(specs: &[PortSpec], options: &PortOptions) -> Result<(), PortError> {
    let of_dpdk = |spec: &PortSpec| match &spec.device {
        DeviceSpec::Dpdk { device, .. } => Some((spec.name.clone(), device.clone())),
        DeviceSpec::Xdp { .. } => None,
    };
    let devices: Vec<(String, String)> = specs.iter().filter_map(of_dpdk).collect();
    let Some((port, _)) = devices.first() else { return Ok(()) };
    #[cfg(feature = "dpdk")]
    {
        let refused = |why: String| PortError { port: port.clone(), why };
        let names: Vec<&str> = devices.iter().map(|(_, device)| device.as_str()).collect();
        let memory = match options.memory {
            super::DpdkMemory::Auto => dpdk::Memory::Auto,
            super::DpdkMemory::Huge => dpdk::Memory::Huge,
            super::DpdkMemory::Ordinary(mib) => dpdk::Memory::Ordinary { mib },
        };
        dpdk::start(&names, memory).map_err(|e| refused(e.to_string()))
    }
    #[cfg(not(feature = "dpdk"))]
    {
        let _ = options;
        Err(without_dpdk(port))
    }
}

#[cfg(not(feature = "dpdk"))]
fn without_dpdk(port: &str) -> PortError {
    PortError {
        port: port.to_owned(),
        why: "this build has no DPDK; install it (apt-get install libdpdk-dev dpdk-dev libclang-dev pkg-config) and \
              build with `--features dpdk`, or use backend = \"xdp\""
            .to_owned(),
    }
}

/// Opens a port: what keeps it open, a seat for each shard it can serve, and one line about it.
pub(super) fn open(spec: &PortSpec, options: &PortOptions) -> Result<(Owner, Vec<Seat>, String), PortError> {
    match &spec.device {
        DeviceSpec::Xdp { interface, mode } => open_xdp(spec, interface, *mode, options),
        #[cfg(feature = "dpdk")]
        DeviceSpec::Dpdk { device, promiscuous, mtu } => {
            let config = dpdk::Config {
                queues: options.shards,
                poll: options.poll,
                promiscuous: *promiscuous,
                mtu: *mtu,
                ..dpdk::Config::default()
            };
            open_dpdk(spec, device, &config)
        }
        #[cfg(not(feature = "dpdk"))]
        DeviceSpec::Dpdk { .. } => Err(without_dpdk(&spec.name)),
    }
}

fn open_xdp(
    spec: &PortSpec,
    interface: &str,
    mode: XdpMode,
    options: &PortOptions,
) -> Result<(Owner, Vec<Seat>, String), PortError> {
    let addresses: Vec<_> = spec.addresses.iter().map(|(address, _)| *address).collect();
    let ours = |sources: &RangeInclusive<u16>| {
        let listened = spec.listeners.iter().map(|listener| listener.port..=listener.port);
        listened.chain([sources.clone()]).collect()
    };
    let config = xdp::PortConfig {
        mode: match mode {
            XdpMode::Auto => xdp::Mode::Auto,
            XdpMode::Skb => xdp::Mode::Skb,
            XdpMode::Drv => xdp::Mode::Drv,
            XdpMode::ZeroCopy => xdp::Mode::ZeroCopy,
        },
        shards: options.shards,
        ports: spec.shared.as_ref().map(ours).unwrap_or_default(),
        poll: options.poll,
        ..xdp::PortConfig::new(interface, &addresses)
    };
    let refused = |e: xdp::OpenError| PortError { port: spec.name.clone(), why: e.to_string() };
    let port = xdp::Port::open(&config).map_err(refused)?;
    let line = port.description().to_owned();
    Ok((Owner::Xdp, port.into_queues().into_iter().map(Seat::Xdp).collect(), line))
}

#[cfg(feature = "dpdk")]
fn open_dpdk(
    spec: &PortSpec,
    device: &str,
    config: &dpdk::Config,
) -> Result<(Owner, Vec<Seat>, String), PortError> {
    let refused = |e: dpdk::Error| PortError { port: spec.name.clone(), why: e.to_string() };
    let mut port = dpdk::Port::open(device, config).map_err(refused)?;
    let line = port.line();
    let seats = (0..port.queues()).filter_map(|queue| port.seat(queue)).map(Seat::Dpdk).collect();
    Ok((Owner::Dpdk { _port: port }, seats, line))
}
