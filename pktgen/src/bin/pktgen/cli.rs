//! The command line.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use abi::{Addr, Status};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::port::PortArgs;
use crate::units;

/// Towpath's load generator: unchanged gRPC calls, and a backend that returns them.
#[derive(Parser, Debug)]
#[command(name = "pktgen", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Call(Box<CallArgs>),
    Echo(EchoArgs),
    Packet(PacketArgs),
}

/// What carries the bytes.
#[derive(Clone, Copy, ValueEnum, Debug)]
pub(crate) enum BackendArg {
    /// io_uring where the kernel offers it, else epoll.
    Auto,
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
    /// AF_XDP on --device, with the address --address.
    Xdp,
    /// DPDK by --device, with the address --address.
    Dpdk,
}

/// What drives a raw port.
#[derive(Clone, Copy, ValueEnum, Debug)]
pub(crate) enum RawArg {
    /// DPDK: takes every frame.
    Dpdk,
    /// AF_XDP: takes frames to --to-ip, and leaves the rest to the kernel.
    Xdp,
}

/// How the kernel hands frames to AF_XDP.
#[derive(Clone, Copy, ValueEnum, Debug)]
pub(crate) enum ModeArg {
    /// In the driver if it can.
    Auto,
    /// Generic.
    Skb,
    /// In the driver, copied.
    Drv,
}

impl From<ModeArg> for io::xdp::Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Auto => Self::Auto,
            ModeArg::Skb => Self::Skb,
            ModeArg::Drv => Self::Drv,
        }
    }
}

/// How a thread with nothing to do waits.
#[derive(Clone, Copy, ValueEnum, Debug)]
pub(crate) enum PollArg {
    /// Spins a little, then blocks.
    Adaptive,
    /// Never blocks.
    Busy,
    /// Never spins.
    Block,
}

/// Make gRPC calls and report what became of them.
///
/// With --rate (open loop) calls are due at fixed times and latency runs from the time a call was due: a
/// target that stalls cannot hide the calls it kept waiting. With --streams (closed loop, the default) each
/// connection keeps so many calls under way, which finds the most the target can do.
#[derive(Args, Debug)]
pub(crate) struct CallArgs {
    /// Whom to call: HOST:PORT or unix:PATH; several share the connections.
    #[arg(long, value_name = "ADDR", required = true, value_parser = units::addr)]
    pub(crate) to: Vec<Addr>,
    /// The method, as in /catalog.Catalog/Get.
    #[arg(long, value_name = "/PKG.SERVICE/METHOD")]
    pub(crate) method: String,
    /// Open loop: calls a second, over all connections together; 5000 or 50k.
    #[arg(long, value_name = "N", conflicts_with = "streams", value_parser = units::rate)]
    pub(crate) rate: Option<f64>,
    /// Closed loop: calls under way on each connection.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) streams: u32,
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) conns: u32,
    /// Bytes of the request message: 32, 1KiB, …
    #[arg(long, value_name = "B", default_value = "32", value_parser = units::bytes)]
    pub(crate) size: u32,
    /// How long calls are counted.
    #[arg(long = "for", value_name = "T", default_value = "10s", value_parser = units::duration)]
    pub(crate) run_for: Duration,
    /// Calls made before counting begins.
    #[arg(long, value_name = "T", default_value = "1s", value_parser = units::duration)]
    pub(crate) warm_up: Duration,
    /// End after so many counted calls, if that comes first.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Metadata of every call, NAME:VALUE; may be given several times.
    #[arg(long, short = 'H', value_name = "K:V", value_parser = units::header)]
    pub(crate) header: Vec<(String, String)>,
    /// The :authority of every call [default: the target's address].
    #[arg(long, value_name = "NAME")]
    pub(crate) authority: Option<String>,
    /// Each call's deadline: sent as grpc-timeout and kept here.
    #[arg(long, value_name = "T", value_parser = units::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Keep trying targets that cannot be reached for this long before giving up.
    #[arg(long, value_name = "T", default_value = "0s", value_parser = units::duration)]
    pub(crate) wait: Duration,
    /// How long the last answers may take after the end.
    #[arg(long, value_name = "T", default_value = "2s", value_parser = units::duration)]
    pub(crate) drain: Duration,
    /// What carries the calls.
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    pub(crate) backend: BackendArg,
    #[command(flatten)]
    pub(crate) port: PortArgs,
    /// How to wait when there is nothing to do; block where client and backend share a core.
    #[arg(long, value_enum, default_value_t = PollArg::Adaptive)]
    pub(crate) poll: PollArg,
    /// Stay on this core.
    #[arg(long, value_name = "N")]
    pub(crate) core: Option<usize>,
    /// Write the figures as JSON; - is standard output, in place of the summary.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots, self-contained.
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Be the backend as well: answer calls at this address, on the same thread, which then never sleeps. So a
    /// proxy has one core for itself and all else has the other.
    #[arg(long, value_name = "ADDR", value_parser = units::addr)]
    pub(crate) echo: Option<Addr>,
    /// The backend's device, with --backend xdp or dpdk.
    #[arg(long, value_name = "DEVICE", requires = "echo")]
    pub(crate) echo_device: Option<String>,
    /// The backend's own address.
    #[arg(long, value_name = "IP/LEN", requires = "echo", value_parser = io::network)]
    pub(crate) echo_address: Option<(IpAddr, u8)>,
    /// Make no calls: open the connections, exchange SETTINGS and hold them.
    #[arg(long, conflicts_with = "stall")]
    pub(crate) idle: bool,
    /// Make --streams calls a connection with windows of 1 GiB, then read nothing any more.
    #[arg(long, conflicts_with = "rate")]
    pub(crate) stall: bool,
    /// No live line.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Answer every call with its own message, as cheaply as can be.
///
/// The ready line on standard error names the address (port 0 lets the kernel choose); calls by method are
/// printed at the end.
#[derive(Args, Debug)]
pub(crate) struct EchoArgs {
    /// Where to listen: HOST:PORT or unix:PATH; may be given several times.
    #[arg(long, value_name = "ADDR", required = true, value_parser = units::addr)]
    pub(crate) listen: Vec<Addr>,
    /// What carries the calls.
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    pub(crate) backend: BackendArg,
    #[command(flatten)]
    pub(crate) port: PortArgs,
    /// How to wait when there is nothing to do; block where client and backend share a core.
    #[arg(long, value_enum, default_value_t = PollArg::Adaptive)]
    pub(crate) poll: PollArg,
    /// One thread on each of these cores, as in 0,1 [default: one thread, anywhere].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) cores: Vec<usize>,
    /// Hold every answer back by this much.
    #[arg(long, value_name = "T", default_value = "0s", value_parser = units::duration)]
    pub(crate) latency: Duration,
    /// Answer every call with this status, by name or number; anything but OK comes without a message.
    #[arg(long, value_name = "STATUS", default_value = "OK", value_parser = units::status)]
    pub(crate) status: Status,
    /// The grpc-message beside --status.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) message: String,
    /// Answer with a message of this many zero bytes instead of the caller's own.
    #[arg(long, value_name = "B", value_parser = units::bytes)]
    pub(crate) answer: Option<u32>,
    /// Answer only this method by --answer, and echo the others.
    #[arg(long, value_name = "/PKG.SERVICE/METHOD", requires = "answer")]
    pub(crate) answer_method: Option<String>,
    /// Advertise this grpc-accept-encoding, such as gzip.
    #[arg(long, value_name = "LIST")]
    pub(crate) accept_encoding: Option<String>,
}

/// Send ethernet frames by a raw port and count what comes back; or be what returns them.
///
/// A port is a DPDK device, a string such as net_memif0,role=client,socket=/tmp/m.sock or a PCI address, or with
/// --backend xdp an interface. Frames are UDP to the discard port, numbered; sizes are without the frame's check
/// sequence. The thread never sleeps: give it a core of its own.
#[derive(Args, Debug)]
pub(crate) struct PacketArgs {
    /// The port; given twice: frames leave by the first and come back by the second.
    #[arg(long, value_name = "DEVICE", required = true)]
    pub(crate) port: Vec<String>,
    /// What drives it.
    #[arg(long, value_enum, default_value = "dpdk")]
    pub(crate) backend: RawArg,
    /// How the kernel hands frames to AF_XDP.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) mode: ModeArg,
    /// Send nothing: return every TCP and UDP packet with its ethernet addresses swapped, and report what each
    /// step has cost.
    #[arg(long, conflicts_with_all = ["rate", "size", "flows"])]
    pub(crate) forward: bool,
    /// Frames a second; 100k, 1.5M [default: as many as the port takes].
    #[arg(long, value_name = "N", value_parser = units::rate)]
    pub(crate) rate: Option<f64>,
    /// Bytes of a frame, at least 60.
    #[arg(long, value_name = "B", default_value = "64", value_parser = units::bytes)]
    pub(crate) size: u32,
    /// Flows, told apart by their source ports.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) flows: u16,
    /// How long to send, or to return [default: 10s, or until stopped].
    #[arg(long = "for", value_name = "T", value_parser = units::duration)]
    pub(crate) run_for: Option<Duration>,
    /// How long to wait for the link first.
    #[arg(long, value_name = "T", default_value = "10s", value_parser = units::duration)]
    pub(crate) wait: Duration,
    /// The receiver's ethernet address [default: everybody's].
    #[arg(long, value_name = "MAC", value_parser = units::mac)]
    pub(crate) to_mac: Option<[u8; 6]>,
    /// The frames' sender.
    #[arg(long, value_name = "IP", default_value = "198.18.0.1")]
    pub(crate) from_ip: Ipv4Addr,
    /// The frames' receiver.
    #[arg(long, value_name = "IP", default_value = "198.18.0.2")]
    pub(crate) to_ip: Ipv4Addr,
    /// Stay on this core.
    #[arg(long, value_name = "N")]
    pub(crate) core: Option<usize>,
    /// Write the figures as JSON; - is standard output, in place of the summary.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl BackendArg {
    /// True for those that open a raw port.
    pub(crate) fn is_raw(self) -> bool {
        matches!(self, Self::Xdp | Self::Dpdk)
    }

    /// What carries connections that are on no port.
    pub(crate) fn backend(self) -> io::Backend {
        match self {
            Self::Auto | Self::Xdp | Self::Dpdk => io::Backend::Auto,
            Self::Uring => io::Backend::Uring,
            Self::Epoll => io::Backend::Epoll,
        }
    }
}

impl PollArg {
    pub(crate) fn poll(self) -> io::Poll {
        match self {
            Self::Adaptive => io::Poll::Adaptive,
            Self::Busy => io::Poll::Busy,
            Self::Block => io::Poll::Block,
        }
    }
}

/// What a backend is called on the command line.
pub(crate) fn backend_name(backend: io::Backend) -> &'static str {
    match backend {
        io::Backend::Auto => "auto",
        io::Backend::Uring => "uring",
        io::Backend::Epoll => "epoll",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_of_the_design_is_understood() {
        Cli::command().debug_assert();
        let line = "pktgen call --to 127.0.0.1:1 --method /p.S/M --rate 5k --conns 2 --size 1KiB --for 3s \
                    --header k:v --header x-b:w --backend epoll --json a.json --report a.html";
        let Ok(Cli { command: Command::Call(args) }) = Cli::try_parse_from(line.split_whitespace()) else {
            panic!("not understood")
        };
        assert_eq!((args.rate, args.conns, args.size), (Some(5000.0), 2, 1024));
        assert_eq!(args.header, [("k".to_owned(), "v".to_owned()), ("x-b".to_owned(), "w".to_owned())]);
        let both = "pktgen call --to 127.0.0.1:1 --method /p.S/M --rate 5k --streams 3";
        assert!(Cli::try_parse_from(both.split_whitespace()).is_err());
        let echo = "pktgen echo --listen 127.0.0.1:0 --backend uring --cores 0,1 --status 14 --latency 5ms";
        assert!(Cli::try_parse_from(echo.split_whitespace()).is_ok());
        let packet =
            "pktgen packet --port net_ring0 --rate 1.5M --size 1500 --for 2s --to-mac 02:00:00:00:00:0a";
        let Ok(Cli { command: Command::Packet(args) }) = Cli::try_parse_from(packet.split_whitespace())
        else {
            panic!("not understood")
        };
        assert_eq!((args.rate, args.to_mac), (Some(1.5e6), Some([2, 0, 0, 0, 0, 10])));
        let both = "pktgen packet --port net_ring0 --forward --rate 5";
        assert!(Cli::try_parse_from(both.split_whitespace()).is_err());
    }
}
