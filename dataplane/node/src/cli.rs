//! The command line: what users, scripts and tests rely on.
//!
//! Diagnostics and the ready line go to standard error; data (access log, tables) to standard output. Exit
//! codes: 0 done, 1 refused with a message that says why, 2 not understood.

use std::path::PathBuf;
use std::time::Duration;

use abi::Addr;
use clap::{Args, Parser, Subcommand};

use crate::backend::Choice;
use crate::value;

/// The per-node dataplane of an Application Defined Network.
#[derive(Parser, Debug)]
#[command(name = "towpath", version, about, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Runs embedded services behind the chain of the introduction, with a load and live figures
    Demo(Demo),
    /// Runs an application in the foreground; SIGHUP reloads, SIGTERM drains, a second one stops
    Run(Run),
    /// Compiles an application and says what is wrong with it
    Check(Check),
    /// Says what the compiler decided and why; which rule and verdict one call would meet
    Explain(Explain),
    /// Lists the standard elements, or shows one
    Elements(Elements),
    /// Lays applications out in the language's own style
    Fmt(Fmt),
    /// Says what this machine offers each backend, and the command that mends what is missing
    Doctor(Doctor),
    /// Shows the running node: shards, calls, endpoints, elements
    Status(Status),
    /// Has the running node compile its application again and take it over
    Reload(Ask),
    /// Comes later
    #[command(hide = true)]
    Top(Later),
    /// Comes later
    #[command(hide = true)]
    Trace(Later),
    /// Writes the frames of a raw port of the running node into a pcapng file
    Capture(Capture),
}

/// Arguments of a command that is not supported yet: any.
#[derive(Args, Debug)]
pub(crate) struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// `towpath demo`.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// How long to run
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Kernel interface
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) backend: Choice,
}

/// `towpath run`.
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The application
    #[arg(value_name = "APP.adn")]
    pub(crate) app: PathBuf,
    /// Node settings; without it every setting has its default
    #[arg(long, value_name = "node.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Address for cleartext HTTP/2 (may be repeated; replaces the file's listeners)
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) listen: Vec<Addr>,
    /// What carries listeners that name no port
    #[arg(long, value_enum)]
    pub(crate) backend: Option<Choice>,
    /// Cores, one shard each, as in 0,1 or 2-5
    #[arg(long, value_name = "LIST", value_parser = cores)]
    pub(crate) cores: Option<Cores>,
    /// Admin address: IP:PORT, unix:PATH, or off (may be repeated, once each)
    #[arg(long, value_name = "ADDR", value_parser = admin_addr)]
    pub(crate) admin: Vec<AdminAddr>,
    /// Reloads by itself when a file of the application has changed
    #[arg(long)]
    pub(crate) watch: bool,
    /// Overrides one key, as in service.catalog.endpoints=10.0.0.1:50051,10.0.0.2:50051
    #[arg(long, value_name = "KEY=VALUE", value_parser = set)]
    pub(crate) set: Vec<(String, Vec<Addr>)>,
}

/// `towpath check`.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The application
    #[arg(value_name = "APP.adn")]
    pub(crate) app: PathBuf,
    /// Node settings to check along with it
    #[arg(long, value_name = "node.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Overrides one key, as in service.catalog.endpoints=10.0.0.1:50051
    #[arg(long, value_name = "KEY=VALUE", value_parser = set)]
    pub(crate) set: Vec<(String, Vec<Addr>)>,
}

/// `towpath explain`.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// The application
    #[arg(value_name = "APP.adn")]
    pub(crate) app: PathBuf,
    /// The same facts as JSON
    #[arg(long, conflicts_with = "call")]
    pub(crate) json: bool,
    /// Takes one imagined call through its chain, as in 'frontend -> catalog.pkg.Service/Method'
    #[arg(long, value_name = "CALL")]
    pub(crate) call: Option<String>,
    /// Metadata of the call (may be repeated)
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE", requires = "call", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// The call's request message as JSON
    #[arg(long, value_name = "JSON", requires = "call")]
    pub(crate) message: Option<String>,
    /// The caller's address
    #[arg(long, value_name = "IP", requires = "call")]
    pub(crate) peer: Option<std::net::IpAddr>,
    /// How the endpoint answers
    #[arg(long, value_name = "STATUS", default_value = "OK", value_parser = status)]
    pub(crate) status: abi::Status,
    /// What the call's draws derive from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Node settings: their `every` rules count
    #[arg(long, value_name = "node.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Overrides one key, as in service.catalog.endpoints=10.0.0.1:50051
    #[arg(long, value_name = "KEY=VALUE", value_parser = set)]
    pub(crate) set: Vec<(String, Vec<Addr>)>,
}

/// `towpath doctor`.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// The same facts as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `towpath elements`.
#[derive(Args, Debug)]
pub(crate) struct Elements {
    /// Shows this element's own file: documentation, examples, text
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// `towpath fmt`.
#[derive(Args, Debug)]
pub(crate) struct Fmt {
    /// Changes nothing: names the files that are not formatted, and exits with 1 if there are any
    #[arg(long)]
    pub(crate) check: bool,
    /// Applications to format in their place, or - for standard input to standard output
    #[arg(value_name = "FILES", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// Commands to a running node.
#[derive(Args, Debug)]
pub(crate) struct Ask {
    /// The node's admin socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) admin: Option<PathBuf>,
}

/// `towpath capture`.
#[derive(Args, Debug)]
pub(crate) struct Capture {
    /// The node it is about
    #[command(flatten)]
    pub(crate) ask: Ask,
    /// The port, as [[port]] in node.toml names it
    #[arg(long, value_name = "NAME")]
    pub(crate) port: String,
    /// Which frames, as in 'tcp and not port 22': tcp, udp, icmp, icmp6, arp, ip, ip6, [src|dst] host A,
    /// [src|dst] net A/BITS, [src|dst] port N, with and, or, not, ( )
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    pub(crate) filter: String,
    /// Ends after this time
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Ends after so many frames
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Keeps so many bytes of each frame
    #[arg(long, value_name = "BYTES", value_parser = snaplen)]
    pub(crate) snaplen: Option<usize>,
    /// The file; - is standard output, as in `| tcpdump -r -`
    #[arg(value_name = "FILE.pcapng")]
    pub(crate) file: PathBuf,
}

/// `towpath status`.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// The node it is about
    #[command(flatten)]
    pub(crate) ask: Ask,
    /// The same as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A list of cores (a type of its own, so that clap takes it as one value).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cores(pub(crate) Vec<usize>);

/// Where `--admin` points.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AdminAddr {
    /// TCP.
    Tcp(std::net::SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// Neither.
    Off,
}

fn duration(text: &str) -> Result<Duration, String> {
    match value::duration_ns(text)? {
        0 => Err("must be longer than nothing".into()),
        ns => Ok(Duration::from_nanos(ns)),
    }
}

fn snaplen(text: &str) -> Result<usize, String> {
    let range = 14..=io::tap::SNAPLEN_MAX;
    let expected = || format!("expected a number of bytes from {} to {}", range.start(), range.end());
    text.parse().ok().filter(|len| range.contains(len)).ok_or_else(expected)
}

fn listen_addr(text: &str) -> Result<Addr, String> {
    value::addr(text)
}

fn cores(text: &str) -> Result<Cores, String> {
    value::cores(text).map(Cores)
}

fn admin_addr(text: &str) -> Result<AdminAddr, String> {
    if text == "off" {
        return Ok(AdminAddr::Off);
    }
    Ok(match value::addr(text)? {
        Addr::Ip(addr) => AdminAddr::Tcp(addr),
        Addr::Unix(path) => AdminAddr::Unix(path.into()),
    })
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME:VALUE")?;
    if name.trim().is_empty() {
        return Err("expected NAME:VALUE".into());
    }
    Ok((name.trim().to_lowercase(), value.trim_start().to_owned()))
}

fn status(text: &str) -> Result<abi::Status, String> {
    let name = text.to_uppercase();
    abi::Status::from_name(&name).ok_or_else(|| {
        let names: Vec<&str> = abi::Status::all().map(abi::Status::name).collect();
        let near = value::nearest(&name, names.iter().copied());
        near.map_or("expected a gRPC status, as in UNAVAILABLE".to_owned(), |n| format!("did you mean {n}?"))
    })
}

fn set(text: &str) -> Result<(String, Vec<Addr>), String> {
    const SHAPE: &str = "expected service.NAME.endpoints=ADDR[,ADDR]";
    let (key, addrs) = text.split_once('=').ok_or(SHAPE)?;
    let name = key.strip_prefix("service.").and_then(|rest| rest.strip_suffix(".endpoints")).ok_or(SHAPE)?;
    if name.is_empty() {
        return Err(SHAPE.into());
    }
    let addrs = addrs.split(',').map(|one| value::addr(one.trim())).collect::<Result<Vec<_>, _>>()?;
    Ok((name.to_owned(), addrs))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_line_parses() {
        let line = "towpath run app.adn --config node.toml --listen 127.0.0.1:0 --listen unix:/tmp/x --backend epoll \
                    --cores 0,1 --admin 127.0.0.1:0 --set service.catalog.endpoints=10.0.0.1:1,unix:/tmp/y";
        let Command::Run(run) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!()
        };
        assert_eq!(run.listen.len(), 2);
        assert_eq!(run.cores, Some(Cores(vec![0, 1])));
        assert_eq!(run.set[0].0, "catalog");
        assert_eq!(run.set[0].1[1], Addr::Unix("/tmp/y".into()));
        assert_eq!(run.admin, [AdminAddr::Tcp("127.0.0.1:0".parse().unwrap())]);
    }

    #[test]
    fn a_bad_override_says_what_was_expected() {
        assert!(set("catalog=1").unwrap_err().contains("service.NAME.endpoints"));
        assert!(set("service.a.endpoints=nowhere").unwrap_err().contains("nowhere"));
    }
}
