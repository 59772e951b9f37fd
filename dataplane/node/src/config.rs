//! `node.toml`: what an operator decides about a node. Every key has a default that works on a laptop.
//!
//! Parsed by hand from the spanned tree, so that whatever is wrong is shown at its place, all at once, with
//! the nearest key. Not here: what the application decides (that is the `.adn` file).

mod limits;
mod offload;
mod port;
mod reader;

use std::net::SocketAddr;
use std::path::PathBuf;

use abi::Addr;
use shard::{AccessWhen, Limits, Protocol};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::backend::Choice;
use crate::failure::{Failure, Outcome, draw, line_of};
use crate::node::Code;
use crate::privileges::Security;
pub(crate) use limits::describe as limits_text;
pub(crate) use offload::Offload;
use reader::Reader;

/// Where `towpath run` listens when nobody says.
const LISTEN_DEFAULT: &str = "127.0.0.1:15001";
/// Where the admin address is when nobody says.
const ADMIN_DEFAULT: &str = "127.0.0.1:9901";

/// Everything `node.toml` says.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Config {
    /// `[shards] cores`; `None` is "auto".
    pub(crate) cores: Option<Vec<usize>>,
    /// `[shards] poll`.
    pub(crate) poll: io::Poll,
    /// `[shards] backend`.
    pub(crate) backend: Choice,
    /// `[shards] force_baseline`: nothing of io_uring that Linux 6.1 did not have.
    pub(crate) force_baseline: bool,
    /// `[[listen]]`.
    pub(crate) listen: Vec<Listen>,
    /// `[[port]]`: raw ports. Their listeners are in `listen`.
    pub(crate) ports: Vec<io::PortSpec>,
    /// `[dpdk] memory`.
    pub(crate) dpdk_memory: io::DpdkMemory,
    /// `[offload]` and `[keys]`.
    pub(crate) offload: Offload,
    /// `[access_log] to`.
    pub(crate) log_to: LogTo,
    /// `[access_log] when`.
    pub(crate) log_when: AccessWhen,
    /// `[admin] address`; `None` is "off".
    pub(crate) admin: Option<SocketAddr>,
    /// `[admin] socket`.
    pub(crate) socket: AdminSocket,
    /// `[chains] code`.
    pub(crate) code: Code,
    /// `[chains] cost_max`: operations one entry of a chain may take.
    pub(crate) chain_cost_max: u64,
    /// `[limits]`.
    pub(crate) limits: Limits,
    /// `[reload] watch`: reload by itself when a file of the application has changed.
    pub(crate) watch: bool,
    /// `every`: the operator's files of `every` rules.
    pub(crate) every: Vec<String>,
    /// `[security]`: who the node is once its ports are open.
    pub(crate) security: Security,
}

/// One `[[listen]]`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Listen {
    /// What `from: ["listen:NAME"]` means.
    pub(crate) name: String,
    /// Where.
    pub(crate) address: Addr,
    /// The service its calls go to, whatever they say.
    pub(crate) destination: Option<String>,
    /// What its connections speak.
    pub(crate) protocol: Protocol,
    /// The raw port it is on; `None`: the one that has its address, else the kernel.
    pub(crate) port: Option<String>,
    /// The line it stands on, from 1; 0 for the command line's.
    pub(crate) line: usize,
}

/// Where the node's own access log goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LogTo {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    Path(String),
    /// Nowhere.
    Off,
}

/// The admin socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AdminSocket {
    /// Where the user may write, see `admin::socket_default`.
    Default,
    /// There.
    Path(PathBuf),
    /// None.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cores: None,
            poll: io::Poll::default(),
            backend: Choice::default(),
            force_baseline: false,
            listen: vec![Listen::at(default_addr(LISTEN_DEFAULT))],
            ports: Vec::new(),
            dpdk_memory: io::DpdkMemory::default(),
            offload: Offload::default(),
            log_to: LogTo::Stdout,
            log_when: AccessWhen::Failures,
            admin: ADMIN_DEFAULT.parse().ok(),
            socket: AdminSocket::Default,
            code: Code::default(),
            chain_cost_max: lang::CHAIN_COST_MAX,
            limits: Limits::DEFAULT,
            watch: false,
            every: Vec::new(),
            security: Security::default(),
        }
    }
}

impl Listen {
    /// Cleartext HTTP/2 at this address, as `--listen` means it.
    pub(crate) fn at(address: Addr) -> Self {
        Self { name: String::new(), address, destination: None, protocol: Protocol::H2, port: None, line: 0 }
    }
}

fn default_addr(text: &str) -> Addr {
    crate::value::addr(text).unwrap_or(Addr::Unix(String::new()))
}

/// Reads the text of a `node.toml`.
///
/// # Errors
/// Everything that is wrong with it, drawn.
pub(crate) fn parse(name: &str, text: &str) -> Outcome<Config> {
    let mut reader = Reader::default();
    let (tree, syntax) = DeTable::parse_recoverable(text);
    for error in syntax {
        reader.problem(error.span().unwrap_or(0..0), error.message(), "not TOML");
    }
    let mut config = Config::default();
    if reader.problems.is_empty() {
        root(&mut reader, text, &tree, &mut config);
    }
    if reader.problems.is_empty() {
        return Ok(config);
    }
    reader.problems.sort_by_key(|p| p.span.start);
    Err(Failure::drawn(draw(name, text, &reader.problems)))
}

fn root(r: &mut Reader, text: &str, tree: &Spanned<DeTable<'_>>, c: &mut Config) {
    const KEYS: [&str; 13] = [
        "shards",
        "listen",
        "port",
        "dpdk",
        "offload",
        "keys",
        "access_log",
        "admin",
        "chains",
        "reload",
        "limits",
        "every",
        "security",
    ];
    r.each(tree.get_ref(), "node.toml", &KEYS, |r, key, value| match key {
        "shards" => shards(r, value, c),
        "listen" => listen(r, text, value, c),
        "port" => port::read(r, value, &mut c.ports),
        "dpdk" => port::dpdk(r, value, &mut c.dpdk_memory),
        "offload" => offload::read(r, value, &mut c.offload),
        "keys" => offload::keys(r, value, &mut c.offload),
        "access_log" => access_log(r, value, c),
        "admin" => admin(r, value, c),
        "chains" => chains(r, value, c),
        "reload" => reload(r, value, c),
        "limits" => limits::read(r, value, &mut c.limits),
        "security" => security(r, value, c),
        _ => c.every = r.strings(value).unwrap_or_default(),
    });
}

fn shards(r: &mut Reader, value: &Spanned<DeValue<'_>>, c: &mut Config) {
    const KEYS: [&str; 4] = ["cores", "poll", "backend", "force_baseline"];
    r.table(value, "[shards]", &KEYS, |r, key, value| match key {
        "cores" => c.cores = cores(r, value),
        "poll" => {
            let known =
                [("adaptive", io::Poll::Adaptive), ("busy", io::Poll::Busy), ("block", io::Poll::Block)];
            c.poll = r.one_of(value, &known).unwrap_or_default();
        }
        "backend" => c.backend = r.one_of(value, &Choice::NAMES).unwrap_or_default(),
        _ => c.force_baseline = r.boolean(value).unwrap_or_default(),
    });
}

fn cores(r: &mut Reader, value: &Spanned<DeValue<'_>>) -> Option<Vec<usize>> {
    const SHAPE: &str = "expected \"auto\", a list of numbers, or a text such as \"0,1\" or \"2-5\"";
    match value.get_ref() {
        DeValue::String(text) if text == "auto" => None,
        DeValue::String(text) => match crate::value::cores(text) {
            Ok(list) => Some(list),
            Err(why) => {
                r.problem(value.span(), why, SHAPE);
                None
            }
        },
        DeValue::Array(list) if !list.is_empty() => {
            let mut out = Vec::new();
            for one in list.iter() {
                match r.integer(one).and_then(|n| usize::try_from(n).ok()) {
                    Some(core) if out.contains(&core) => {
                        r.problem(
                            one.span(),
                            format!("core {core} is named twice"),
                            "expected each core once",
                        );
                    }
                    Some(core) => out.push(core),
                    None => {}
                }
            }
            Some(out)
        }
        _ => {
            r.problem(value.span(), "these are no cores", SHAPE);
            None
        }
    }
}

fn listen(r: &mut Reader, text: &str, value: &Spanned<DeValue<'_>>, c: &mut Config) {
    const KEYS: [&str; 5] = ["name", "address", "destination", "protocol", "port"];
    let DeValue::Array(list) = value.get_ref() else {
        r.problem(value.span(), "listeners are a list", "expected [[listen]], with two brackets");
        return;
    };
    c.listen.clear();
    for one in list.iter() {
        let mut it = Listen::at(Addr::Unix(String::new()));
        it.line = line_of(text, one.span().start);
        let mut has_address = false;
        r.table(one, "[[listen]]", &KEYS, |r, key, value| match key {
            "name" => it.name = r.string(value).unwrap_or_default().to_owned(),
            "address" => {
                has_address = true;
                if let Some(address) = r.parsed(value, crate::value::addr) {
                    it.address = address;
                }
            }
            "destination" => it.destination = r.string(value).map(str::to_owned),
            "protocol" => {
                let known = [("h2", Protocol::H2), ("tcp", Protocol::Tcp), ("auto", Protocol::Auto)];
                it.protocol = r.one_of(value, &known).unwrap_or(Protocol::H2);
            }
            _ => it.port = r.string(value).map(str::to_owned),
        });
        if !has_address {
            r.problem(
                one.span(),
                "a listener needs an address",
                "expected address = \"IP:PORT\" or \"unix:PATH\"",
            );
        }
        let is_twice = c.listen.iter().any(|l| !l.name.is_empty() && l.name == it.name);
        if is_twice {
            r.problem(one.span(), format!("listener `{}` is named twice", it.name), "expected another name");
        }
        if it.protocol == Protocol::Tcp && it.destination.is_none() {
            r.problem(
                one.span(),
                "a listener for bytes has no authority to go by",
                "expected destination = \"SERVICE\"",
            );
        }
        c.listen.push(it);
    }
}

fn access_log(r: &mut Reader, value: &Spanned<DeValue<'_>>, c: &mut Config) {
    r.table(value, "[access_log]", &["to", "when"], |r, key, value| match key {
        "to" => {
            c.log_to = match r.string(value) {
                Some("stdout") | None => LogTo::Stdout,
                Some("off") => LogTo::Off,
                Some(path) => LogTo::Path(path.to_owned()),
            }
        }
        _ => {
            let known = [
                ("failures", AccessWhen::Failures),
                ("always", AccessWhen::Always),
                ("never", AccessWhen::Never),
            ];
            c.log_when = r.one_of(value, &known).unwrap_or(AccessWhen::Failures);
        }
    });
}

fn chains(r: &mut Reader, value: &Spanned<DeValue<'_>>, c: &mut Config) {
    r.table(value, "[chains]", &["code", "cost_max"], |r, key, value| match key {
        "code" => {
            let known = [("auto", Code::Auto), ("interpret", Code::Interpret)];
            c.code = r.one_of(value, &known).unwrap_or_default();
        }
        _ => match r.integer(value) {
            Some(0) => r.problem(value.span(), "no chain takes 0 operations", "expected at least 1"),
            Some(max) => c.chain_cost_max = max,
            None => {}
        },
    });
}

fn reload(r: &mut Reader, value: &Spanned<DeValue<'_>>, c: &mut Config) {
    r.table(value, "[reload]", &["watch"], |r, _, value| c.watch = r.boolean(value).unwrap_or_default());
}

fn security(r: &mut Reader, value: &Spanned<DeValue<'_>>, c: &mut Config) {
    r.table(value, "[security]", &["user", "capabilities"], |r, key, value| match key {
        "user" => c.security.user = r.string(value).map(str::to_owned),
        _ => c.security.keeps_all = r.one_of(value, &[("drop", false), ("keep", true)]).unwrap_or_default(),
    });
    if c.security.keeps_all && c.security.user.is_some() {
        r.problem(
            value.span(),
            "a user other than root has no capabilities to keep",
            "expected either `user` or capabilities = \"keep\"",
        );
    }
}

fn admin(r: &mut Reader, value: &Spanned<DeValue<'_>>, c: &mut Config) {
    r.table(value, "[admin]", &["address", "socket"], |r, key, value| match key {
        "address" => {
            let read = |text: &str| match crate::value::addr(text)? {
                Addr::Ip(addr) => Ok(addr),
                Addr::Unix(_) => Err("the admin address is TCP; a unix socket is `socket`".to_owned()),
            };
            c.admin = match value.get_ref().as_str() {
                Some("off") => None,
                _ => r.parsed(value, read),
            };
        }
        _ => {
            c.socket = match r.string(value) {
                Some("off") => AdminSocket::Off,
                Some(path) => AdminSocket::Path(path.strip_prefix("unix:").unwrap_or(path).into()),
                None => AdminSocket::Default,
            }
        }
    });
}

#[cfg(test)]
mod tests;
