//! `[[port]]` and `[dpdk]`: raw ports.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use io::{DeviceSpec, DpdkMemory, PORTS_MAX, PortSpec, Route, SHARED_SOURCE_PORTS, XdpMode};
use toml::Spanned;
use toml::de::DeValue;

use super::reader::Reader;
use crate::value;

/// Reads `[[port]]`.
pub(super) fn read(r: &mut Reader, value: &Spanned<DeValue<'_>>, ports: &mut Vec<PortSpec>) {
    let DeValue::Array(list) = value.get_ref() else {
        r.problem(value.span(), "raw ports are a list", "expected [[port]], with two brackets");
        return;
    };
    for one in list.iter() {
        if ports.len() == PORTS_MAX {
            r.problem(one.span(), format!("more than {PORTS_MAX} raw ports"), "one too many");
            return;
        }
        let Some(port) = port(r, one) else { continue };
        if ports.iter().any(|known| known.name == port.name) {
            r.problem(one.span(), format!("port `{}` is named twice", port.name), "expected another name");
        }
        ports.push(port);
    }
}

/// What every IPv6 link must carry (RFC 8200 section 5).
const MTU_MIN: u16 = 1280;

/// What a `[[port]]` says, before it is known to be whole.
#[derive(Default)]
struct Draft {
    name: Option<String>,
    backend: Option<Backend>,
    device: Option<String>,
    addresses: Vec<(IpAddr, u8)>,
    routes: Vec<Route>,
    mode: XdpMode,
    promiscuous: bool,
    mtu: Option<u16>,
    is_shared: bool,
    source_ports: Option<RangeInclusive<u16>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Backend {
    Xdp,
    Dpdk,
}

fn port(r: &mut Reader, one: &Spanned<DeValue<'_>>) -> Option<PortSpec> {
    const KEYS: [&str; 11] = [
        "name",
        "backend",
        "device",
        "address",
        "gateway",
        "route",
        "mode",
        "promiscuous",
        "mtu",
        "shared",
        "source_ports",
    ];
    let before = r.problems.len();
    let mut draft = Draft::default();
    // Keys come sorted, so what goes with one backend only is looked at afterwards.
    let mut only: Vec<(&str, Backend, std::ops::Range<usize>)> = Vec::new();
    let mut gateways = Vec::new();
    r.table(one, "[[port]]", &KEYS, |r, key, value| match key {
        "name" => draft.name = r.string(value).map(str::to_owned),
        "backend" => {
            draft.backend = r.one_of(value, &[("dpdk", Backend::Dpdk), ("xdp", Backend::Xdp)]);
        }
        "device" => draft.device = r.string(value).map(str::to_owned),
        "address" => draft.addresses = networks(r, value),
        "gateway" => gateways = gateway(r, value),
        "route" => draft.routes = routes(r, value),
        "mode" => {
            only.push(("mode", Backend::Xdp, value.span()));
            let known = [
                ("auto", XdpMode::Auto),
                ("skb", XdpMode::Skb),
                ("drv", XdpMode::Drv),
                ("zerocopy", XdpMode::ZeroCopy),
            ];
            draft.mode = r.one_of(value, &known).unwrap_or_default();
        }
        "promiscuous" => {
            only.push(("promiscuous", Backend::Dpdk, value.span()));
            draft.promiscuous = r.boolean(value).unwrap_or_default();
        }
        "mtu" => {
            only.push(("mtu", Backend::Dpdk, value.span()));
            draft.mtu = mtu(r, value);
        }
        "shared" => {
            only.push(("shared", Backend::Xdp, value.span()));
            draft.is_shared = r.boolean(value).unwrap_or_default();
        }
        _ => {
            only.push(("source_ports", Backend::Xdp, value.span()));
            draft.source_ports = r.parsed(value, value::port_range);
        }
    });
    draft.routes.extend(gateways);
    if r.problems.len() > before {
        return None;
    }
    whole(r, one, draft, only)
}

fn whole(
    r: &mut Reader,
    one: &Spanned<DeValue<'_>>,
    draft: Draft,
    only: Vec<(&str, Backend, std::ops::Range<usize>)>,
) -> Option<PortSpec> {
    let mut needs = |is_there: bool, what: &str, shape: &str| {
        if !is_there {
            r.problem(one.span(), format!("a raw port needs {what}"), format!("expected {shape}"));
        }
    };
    needs(draft.name.as_ref().is_some_and(|n| !n.is_empty()), "a name", "name = \"fabric\"");
    needs(draft.backend.is_some(), "a backend", "backend = \"dpdk\" or \"xdp\"");
    let device = match draft.backend {
        Some(Backend::Xdp) => "device = \"eth1\", an interface",
        _ => {
            "device = \"0000:01:00.0\", a PCI address, or a device string such as \"net_memif0,role=client\""
        }
    };
    needs(draft.device.as_ref().is_some_and(|d| !d.is_empty()), "a device", device);
    needs(!draft.addresses.is_empty(), "an address", "address = \"10.7.0.2/24\", or a list of them");
    let (name, backend, device) = (draft.name?, draft.backend?, draft.device?);
    for (key, goes_with, span) in only {
        if goes_with != backend {
            let with = if goes_with == Backend::Xdp { "xdp" } else { "dpdk" };
            r.problem(span, format!("`{key}` goes with backend = \"{with}\" only"), "not for this port");
        }
    }
    if draft.addresses.is_empty() {
        return None;
    }
    let device = match backend {
        Backend::Xdp => DeviceSpec::Xdp { interface: device, mode: draft.mode },
        Backend::Dpdk => DeviceSpec::Dpdk { device, promiscuous: draft.promiscuous, mtu: draft.mtu },
    };
    let is_shared = draft.is_shared || draft.source_ports.is_some();
    Some(PortSpec {
        name,
        device,
        addresses: draft.addresses,
        routes: draft.routes,
        shared: is_shared.then(|| draft.source_ports.unwrap_or(SHARED_SOURCE_PORTS)),
        listeners: Vec::new(),
    })
}

/// The largest IP packet of a port. How much more a device takes is its driver's to say.
fn mtu(r: &mut Reader, value: &Spanned<DeValue<'_>>) -> Option<u16> {
    let bytes = r.integer(value)?;
    let mtu = u16::try_from(bytes).ok().filter(|mtu| *mtu >= MTU_MIN);
    if mtu.is_none() {
        let shape =
            format!("expected bytes from {MTU_MIN} on: 1500 on most networks, 9000 with jumbo frames");
        r.problem(value.span(), format!("no MTU: {bytes}"), shape);
    }
    mtu
}

/// One network, or a list of them.
fn networks(r: &mut Reader, value: &Spanned<DeValue<'_>>) -> Vec<(IpAddr, u8)> {
    match value.get_ref() {
        DeValue::Array(list) => list.iter().filter_map(|one| r.parsed(one, io::network)).collect(),
        _ => r.parsed(value, io::network).into_iter().collect(),
    }
}

/// One gateway for everything else, or one of each family.
fn gateway(r: &mut Reader, value: &Spanned<DeValue<'_>>) -> Vec<Route> {
    let vias: Vec<IpAddr> = match value.get_ref() {
        DeValue::Array(list) => list.iter().filter_map(|one| r.parsed(one, value::ip)).collect(),
        _ => r.parsed(value, value::ip).into_iter().collect(),
    };
    vias.into_iter().map(|via| Route { network: unspecified(via), prefix_len: 0, via }).collect()
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

/// `route = [{ to = "10.9.0.0/16", via = "10.7.0.1" }]`.
fn routes(r: &mut Reader, value: &Spanned<DeValue<'_>>) -> Vec<Route> {
    let DeValue::Array(list) = value.get_ref() else {
        r.problem(
            value.span(),
            "routes are a list",
            "expected [{ to = \"10.9.0.0/16\", via = \"10.7.0.1\" }]",
        );
        return Vec::new();
    };
    let mut routes = Vec::new();
    for one in list.iter() {
        let (mut to, mut via) = (None, None);
        let before = r.problems.len();
        r.table(one, "a route", &["to", "via"], |r, key, value| match key {
            "to" => to = r.parsed(value, io::network),
            _ => via = r.parsed(value, value::ip),
        });
        match (to, via) {
            (Some((network, prefix_len)), Some(via)) => routes.push(Route { network, prefix_len, via }),
            _ if r.problems.len() > before => {}
            _ => r.problem(
                one.span(),
                "a route needs both",
                "expected { to = \"10.9.0.0/16\", via = \"10.7.0.1\" }",
            ),
        }
    }
    routes
}

/// Reads `[dpdk]`: what all DPDK ports of a process share.
pub(super) fn dpdk(r: &mut Reader, value: &Spanned<DeValue<'_>>, memory: &mut DpdkMemory) {
    r.table(value, "[dpdk]", &["memory"], |r, _, value| {
        let read = |text: &str| match text {
            "auto" => Ok(DpdkMemory::Auto),
            "hugepages" => Ok(DpdkMemory::Huge),
            size => {
                let bytes = value::size_bytes(size).map_err(|_| {
                    format!("`{size}` is neither \"auto\", \"hugepages\" nor a size such as \"512MiB\"")
                })?;
                match u32::try_from(bytes >> 20) {
                    Ok(mib @ 64..) => Ok(DpdkMemory::Ordinary(mib)),
                    _ => Err(format!("{size} is not enough for DPDK, or too much; expected 64MiB or more")),
                }
            }
        };
        if let Some(read) = r.parsed(value, read) {
            *memory = read;
        }
    });
}
