//! Flow rules: which packets a port gives to which queue, where its hardware looks at headers.

use core::ffi::CStr;
use core::net::IpAddr;
use core::ptr::NonNull;
use std::sync::{Arc, PoisonError};

use super::mbuf::L4;
use super::port::{CONTROL, Port, Shared};
use super::{Error, log, raw};

/// Packets to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowMatch {
    /// The receiver.
    pub to: IpAddr,
    /// TCP or UDP to this port (0: any); [`L4::Other`] is any protocol.
    pub l4: (L4, u16),
}

/// What becomes of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowAction {
    /// They come to this queue.
    Queue(u16),
    /// The port drops them.
    Drop,
}

/// A rule in force, until it is dropped. Keeps its port open.
#[derive(Debug)]
pub struct FlowRule {
    rule: NonNull<raw::rte_flow>,
    port: Arc<Shared>,
}

// SAFETY: a rule may be destroyed on any thread, one at a time (`CONTROL`).
unsafe impl Send for FlowRule {}

impl Port {
    /// Puts a rule in force; an error that says so where the driver has none.
    pub fn flow_rule(&self, what: FlowMatch, then: FlowAction) -> Result<FlowRule, Error> {
        let _control = CONTROL.lock().unwrap_or_else(PoisonError::into_inner);
        log::begin();
        let mut to = [0; 16];
        match what.to {
            IpAddr::V4(ip) => to[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => to = ip.octets(),
        }
        let (l4, to_port) = what.l4;
        let protocol = match l4 {
            L4::Tcp => 6,
            L4::Udp => 17,
            L4::Other => 0,
        };
        let queue = match then {
            FlowAction::Queue(queue) => i32::from(queue),
            FlowAction::Drop => -1,
        };
        let rule = raw::towpath_flow { to, ipv6: what.to.is_ipv6().into(), protocol, to_port, queue };
        let mut error = raw::rte_flow_error::default();
        // SAFETY: the port is started; the rule is read and the error written during the call only.
        let made = unsafe { raw::towpath_flow_create(self.id(), &raw const rule, &raw mut error) };
        match NonNull::new(made) {
            Some(rule) => Ok(FlowRule { rule, port: Arc::clone(self.shared()) }),
            None => Err(Error::last(&self.info().device, "make a flow rule").with_hint(text(&error))),
        }
    }
}

impl Drop for FlowRule {
    fn drop(&mut self) {
        let _control = CONTROL.lock().unwrap_or_else(PoisonError::into_inner);
        let mut error = raw::rte_flow_error::default();
        // SAFETY: a rule of this port's, which is open, destroyed once.
        let _ = unsafe { raw::rte_flow_destroy(self.port.id, self.rule.as_ptr(), &raw mut error) };
    }
}

/// The driver's reason.
fn text(error: &raw::rte_flow_error) -> String {
    if error.message.is_null() {
        return "the driver gives no reason".to_owned();
    }
    // SAFETY: a terminated string of the driver's, static by the interface's rules.
    unsafe { CStr::from_ptr(error.message) }.to_string_lossy().into_owned()
}
