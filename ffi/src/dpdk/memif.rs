//! What is particular to DPDK's memif driver.

use std::borrow::Cow;

use super::setup::ETHER_OVERHEAD;

/// The driver carries frames of this MTU though it says that it ends at 1500: it asks only that they fit its buffers.
pub(super) const MTU_MAX: u16 = 9216;
/// What the driver says of itself, and its buffers hold by default.
pub(super) const MTU_DEFAULT: u16 = 1500;

/// True of a memif's device string.
pub(super) fn is(device: &str) -> bool {
    device.starts_with("net_memif")
}

/// True of one whose peer makes the socket: it looks for it when it is started, and never again.
pub(super) fn is_client(device: &str) -> bool {
    // The driver's own default is the client.
    is(device) && !device.contains("role=server")
}

/// The device string with buffers that frames of this MTU fit in whole, unless it says what they are. Both ends have to
/// ask for it: the client's buffers are those of both directions, and each end reads frames into its own.
pub(super) fn sized(device: &str, mtu: Option<u16>) -> Cow<'_, str> {
    match mtu {
        Some(mtu) if is(device) && mtu > MTU_DEFAULT && !device.contains("bsize=") => {
            Cow::Owned(format!("{device},bsize={}", mtu.saturating_add(ETHER_OVERHEAD)))
        }
        _ => Cow::Borrowed(device),
    }
}

/// True of a client that would let the server map its pools. The server could then write to a buffer that has an owner
/// here, whose bytes must not change under it. The bus may be named before the device, or another device wrap it.
pub(super) fn lends_pools(device: &str) -> bool {
    let mut values = device.split("zero-copy=").skip(1);
    // As the driver reads it: anything with a yes in it.
    device.contains("memif") && values.any(|rest| rest.split(',').next().is_some_and(|v| v.contains("yes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_not_lent_whatever_the_string_looks_like() {
        for device in [
            "net_memif0,zero-copy=yes",
            "net_memif0,zero-copy=no,role=client,zero-copy=yes",
            "vdev:net_memif0,role=client,zero-copy=yes",
            "net_failsafe0,dev(net_memif0,zero-copy=yes)",
        ] {
            assert!(lends_pools(device), "{device}");
        }
        for device in ["net_memif0", "net_memif0,zero-copy=no,secret=yes", "net_null0,zero-copy=yes"] {
            assert!(!lends_pools(device), "{device}");
        }
    }
}
