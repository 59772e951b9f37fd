//! `--backend xdp|dpdk`: calls by a raw port, so that both ends of a bypass test bypass.

use std::net::IpAddr;

use abi::Addr;
use clap::Args;
use io::{DeviceSpec, DpdkMemory, NetLimits, PortOptions, PortSpec, Ports, Route, XdpMode};

use crate::cli::BackendArg;

/// The raw port of `--backend xdp` and `--backend dpdk`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PortArgs {
    /// With --backend xdp an interface; with dpdk a PCI address, or a device string such as
    /// net_memif0,role=client,socket=/tmp/m.sock.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// The port's own address, as in 10.7.0.9/24.
    #[arg(long, value_name = "IP/LEN", value_parser = io::network)]
    pub(crate) address: Option<(IpAddr, u8)>,
    /// The gateway to everything outside that network.
    #[arg(long, value_name = "IP")]
    pub(crate) gateway: Option<IpAddr>,
    /// The largest IP packet of a DPDK port, bytes; without it the device's own: 9000 with jumbo frames.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1280..))]
    pub(crate) mtu: Option<u16>,
}

/// Opens the port, listening at those addresses; no ports at all for the kernel's backends.
pub(crate) fn open(
    backend: BackendArg,
    args: &PortArgs,
    listen: &[(shard::ListenerId, Addr)],
    poll: io::Poll,
    shards: u16,
) -> Result<Ports, String> {
    if !backend.is_raw() {
        return match (&args.device, &args.address, args.mtu) {
            (None, None, None) => Ok(Ports::none()),
            _ => Err("--device, --address and --mtu go with a raw backend, xdp or dpdk".to_owned()),
        };
    }
    let device = args.device.clone().ok_or("--backend xdp and dpdk need --device")?;
    let address = args.address.ok_or("--backend xdp and dpdk need --address, as in 10.7.0.9/24")?;
    if matches!(backend, BackendArg::Xdp) && args.mtu.is_some() {
        return Err(
            "--mtu goes with --backend dpdk; with xdp it is the interface's: ip link set dev NAME mtu N"
                .to_owned(),
        );
    }
    let device = match backend {
        BackendArg::Xdp => DeviceSpec::Xdp { interface: device, mode: XdpMode::Auto },
        _ => DeviceSpec::Dpdk { device, promiscuous: false, mtu: args.mtu },
    };
    let route = |via: IpAddr| {
        let network = if via.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        Route { network, prefix_len: 0, via }
    };
    let mut spec = PortSpec {
        name: "port".to_owned(),
        device,
        addresses: vec![address],
        routes: args.gateway.into_iter().map(route).collect(),
        shared: None,
        listeners: Vec::new(),
    };
    for (id, addr) in listen {
        match addr {
            Addr::Ip(addr) if addr.ip() == address.0 || addr.ip().is_unspecified() => {
                spec.listen(*id, addr.ip(), addr.port());
            }
            other => return Err(format!("{other} is no address of the port; it has {}", address.0)),
        }
    }
    let options = PortOptions {
        shards,
        poll,
        memory: DpdkMemory::Auto,
        limits: NetLimits::default(),
        seed: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
    };
    let ports = Ports::open(&[spec], &options).map_err(|e| e.to_string())?;
    match ports.shards() {
        Some(served) if served < usize::from(shards) => Err(format!(
            "the port does not steer flows to {shards} threads; it serves {served}: fewer --cores"
        )),
        _ => Ok(ports),
    }
}
