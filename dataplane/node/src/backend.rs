//! Which backend carries which listener.

use abi::Addr;
use clap::ValueEnum;
use io::{DeviceSpec, PortSpec};
use shard::ListenerId;

use crate::config::Listen;
use crate::failure::{Failure, Outcome};

/// What carries listeners that name no port.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Choice {
    /// The raw port that has the listener's address, else io_uring where the kernel offers it, else epoll
    #[default]
    Auto,
    /// io_uring, from Linux 6.1
    Uring,
    /// epoll, anywhere
    Epoll,
    /// AF_XDP: the [[port]] of that backend that has the listener's address
    Xdp,
    /// DPDK: the [[port]] of that backend that has the listener's address
    Dpdk,
}

impl Choice {
    /// Every choice, as `node.toml` writes it.
    pub(crate) const NAMES: [(&str, Self); 5] = [
        ("auto", Self::Auto),
        ("uring", Self::Uring),
        ("epoll", Self::Epoll),
        ("xdp", Self::Xdp),
        ("dpdk", Self::Dpdk),
    ];

    /// What carries connections that are on no port.
    pub(crate) fn kernel(self) -> io::Backend {
        match self {
            Self::Uring => io::Backend::Uring,
            Self::Epoll => io::Backend::Epoll,
            Self::Auto | Self::Xdp | Self::Dpdk => io::Backend::Auto,
        }
    }

    /// True if a listener that names no port may be on this one.
    fn takes(self, port: &PortSpec) -> bool {
        match self {
            Self::Auto => true,
            Self::Uring | Self::Epoll => false,
            Self::Xdp => matches!(port.device, DeviceSpec::Xdp { .. }),
            Self::Dpdk => matches!(port.device, DeviceSpec::Dpdk { .. }),
        }
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, choice)| *choice == self).map_or("", |(name, _)| name)
    }
}

/// Puts each listener on its port; those left are the kernel's, by their places in `listen`.
///
/// # Errors
/// One line for a listener that names no port there is, or whose address is not its port's.
pub(crate) fn place(listen: &[Listen], ports: &mut [PortSpec], choice: Choice) -> Outcome<Vec<ListenerId>> {
    if matches!(choice, Choice::Xdp | Choice::Dpdk) && !ports.iter().any(|port| choice.takes(port)) {
        let name = choice.name();
        return Err(Failure::line(format!(
            "backend {name} needs a raw port: a [[port]] with backend = \"{name}\" in node.toml (--config)"
        )));
    }
    let mut kernel = Vec::new();
    let mut is_taken = false;
    for (id, one) in (0..).map(ListenerId).zip(listen) {
        let port = match (&one.port, &one.address) {
            (Some(name), _) => Some(named(one, name, ports)?),
            (None, Addr::Ip(address)) => {
                ports.iter().position(|port| choice.takes(port) && port.has(address.ip()))
            }
            (None, Addr::Unix(_)) => None,
        };
        match (port.and_then(|port| ports.get_mut(port)), &one.address) {
            (Some(port), Addr::Ip(address)) => {
                is_taken |= choice.takes(port);
                port.listen(id, address.ip(), address.port());
            }
            _ => kernel.push(id),
        }
    }
    if matches!(choice, Choice::Xdp | Choice::Dpdk) && !is_taken {
        let own = ports.iter().filter(|port| choice.takes(port)).flat_map(|port| &port.addresses);
        let own: Vec<String> = own.map(|(address, _)| format!("{address}:15001")).collect();
        let name = choice.name();
        return Err(Failure::line(format!(
            "backend {name}: no listener is on its port; listen on its address, as in --listen {}",
            own.first().map_or("10.7.0.2:15001", String::as_str)
        )));
    }
    Ok(kernel)
}

/// The port a listener names.
fn named(one: &Listen, name: &str, ports: &[PortSpec]) -> Outcome<usize> {
    let place =
        if one.line > 0 { format!("[[listen]] in line {}", one.line) } else { one.address.to_string() };
    let Some(at) = ports.iter().position(|port| port.name == name) else {
        return Err(Failure::line(format!("{place}: {}", unknown(name, ports))));
    };
    let own = ports.get(at).map(|port| port.addresses.as_slice()).unwrap_or_default();
    let fits = match &one.address {
        Addr::Ip(address) => address.ip().is_unspecified() || own.iter().any(|(ip, _)| *ip == address.ip()),
        Addr::Unix(_) => false,
    };
    if !fits {
        let own: Vec<String> = own.iter().map(|(ip, _)| ip.to_string()).collect();
        return Err(Failure::line(format!(
            "{place}: {} is no address of port \"{name}\"; it has {}",
            one.address,
            own.join(", ")
        )));
    }
    Ok(at)
}

fn unknown(name: &str, ports: &[PortSpec]) -> String {
    if ports.is_empty() {
        return format!("there is no port \"{name}\": node.toml has no [[port]]");
    }
    let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    let near = crate::value::nearest(name, names.iter().copied());
    let hint = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
    format!("there is no port \"{name}\" (known: {}){hint}", names.join(", "))
}

/// Refuses a service that leaves by a port the node does not have.
///
/// # Errors
/// One line with those it has.
pub(crate) fn check_via(program: &abi::Program, ports: &[PortSpec]) -> Outcome<()> {
    for service in &program.services {
        if let Some(via) = &service.via
            && !ports.iter().any(|port| port.name == *via)
        {
            return Err(Failure::line(format!("service {}: via: {}", service.name, unknown(via, ports))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, device: DeviceSpec, address: &str) -> PortSpec {
        PortSpec {
            name: name.into(),
            device,
            addresses: vec![(address.parse().unwrap(), 24)],
            routes: Vec::new(),
            shared: None,
            listeners: Vec::new(),
        }
    }

    fn two() -> Vec<PortSpec> {
        let xdp = DeviceSpec::Xdp { interface: "eth1".into(), mode: io::XdpMode::Auto };
        let dpdk = DeviceSpec::Dpdk { device: "net_memif0".into(), promiscuous: false, mtu: None };
        vec![port("fabric", xdp, "10.7.0.2"), port("storage", dpdk, "10.8.0.2")]
    }

    fn at(address: &str, port: Option<&str>) -> Listen {
        Listen { port: port.map(str::to_owned), ..Listen::at(crate::value::addr(address).unwrap()) }
    }

    #[test]
    fn listeners_go_where_their_address_is() {
        let listen = [at("127.0.0.1:1", None), at("10.7.0.2:2", None), at("10.8.0.2:3", Some("storage"))];
        let mut ports = two();
        assert_eq!(place(&listen, &mut ports, Choice::Auto), Ok(vec![ListenerId(0)]));
        assert_eq!(
            ports[0].listeners.iter().map(|l| (l.id, l.port)).collect::<Vec<_>>(),
            [(ListenerId(1), 2)]
        );
        assert_eq!(
            ports[1].listeners.iter().map(|l| (l.id, l.port)).collect::<Vec<_>>(),
            [(ListenerId(2), 3)]
        );
        let mut ports = two();
        let kernel = place(&listen, &mut ports, Choice::Epoll).unwrap();
        assert_eq!(
            kernel,
            [ListenerId(0), ListenerId(1)],
            "an explicit kernel backend has all but named ports"
        );
    }

    #[test]
    fn what_does_not_fit_is_one_line_that_helps() {
        let refused = |listen: Listen, choice| {
            let text = place(&[listen], &mut two(), choice).unwrap_err().to_string();
            assert_eq!(text.lines().count(), 1);
            text
        };
        let text = refused(at("10.7.0.2:2", Some("fabrik")), Choice::Auto);
        assert!(text.contains("fabric, storage") && text.contains("did you mean \"fabric\"?"), "{text}");
        let text = refused(at("10.9.0.2:2", Some("fabric")), Choice::Auto);
        assert!(text.contains("it has 10.7.0.2"), "{text}");
        let text = refused(at("127.0.0.1:2", None), Choice::Dpdk);
        assert!(text.contains("--listen 10.8.0.2:15001"), "{text}");
        let text = place(&[], &mut [], Choice::Xdp).unwrap_err().to_string();
        assert!(text.contains("[[port]] with backend = \"xdp\""), "{text}");
    }
}
