//! An application from its `.adn` file: reading, compiling, and what `check` says.

use std::cell::RefCell;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use abi::Addr;
use lang::{Compiled, Loader, Overrides, SourceText};

use crate::cli::Explain;
use crate::config::Config;
use crate::failure::{Failure, Outcome, is_coloured, print};
use crate::jobs::Jobs;

/// No source file is larger.
const SOURCE_BYTES_MAX: u64 = lang::SOURCE_BYTES_MAX as u64;
/// Bytes of the largest descriptor set.
const DESCRIPTOR_BYTES_MAX: u64 = 16 << 20;

/// What to compile, kept for reloads.
#[derive(Clone, Debug)]
pub(crate) struct App {
    /// The file.
    pub(crate) path: PathBuf,
    /// `--set`.
    pub(crate) set: Vec<(String, Vec<Addr>)>,
    /// The operator's files of `every` rules.
    pub(crate) every: Vec<String>,
    /// `[chains] cost_max`.
    pub(crate) chain_cost_max: u64,
}

impl App {
    /// A file, as the command line and `node.toml` have it.
    pub(crate) fn new(path: &Path, set: &[(String, Vec<Addr>)], config: &Config) -> Self {
        Self {
            path: path.to_owned(),
            set: set.to_vec(),
            every: config.every.clone(),
            chain_cost_max: config.chain_cost_max,
        }
    }

    /// Reads and compiles it.
    ///
    /// # Errors
    /// One line when a file cannot be read; the drawn diagnostics when something is wrong with the text.
    pub(crate) fn compile(&self) -> Outcome<Compiled> {
        self.compile_and_list().0
    }

    /// The same, and the files it is made of: those it names, too, as far as it came.
    pub(crate) fn compile_and_list(&self) -> (Outcome<Compiled>, Vec<PathBuf>) {
        let files = Files::default();
        let compiled = self.compile_with(&files);
        let mut list = vec![self.path.clone()];
        list.extend(self.every.iter().map(PathBuf::from));
        list.extend(files.read.take());
        (compiled, list)
    }

    fn compile_with(&self, files: &Files) -> Outcome<Compiled> {
        let name = self.path.display().to_string();
        let source = read(&self.path).map_err(Failure::line)?;
        let mut every = Vec::new();
        for path in &self.every {
            let text =
                read(Path::new(path)).map_err(|e| Failure::line(format!("every = [\"{path}\"]: {e}")))?;
            every.push(SourceText { name: path.clone(), text });
        }
        let overrides = Overrides { chain_cost_max: Some(self.chain_cost_max), set: self.set.clone(), every };
        lang::compile(&name, &source, files, &overrides).map_err(|e| Failure::drawn(e.render(is_coloured())))
    }
}

/// Compiles a text; the files it names are found beside it.
///
/// # Errors
/// The drawn diagnostics.
pub(crate) fn compile(name: &str, source: &str, overrides: Overrides) -> Outcome<Compiled> {
    lang::compile(name, source, &Files::default(), &overrides)
        .map_err(|e| Failure::drawn(e.render(is_coloured())))
}

/// `towpath check`: one line on standard output, notes on standard error.
///
/// # Errors
/// What is wrong with the application, or with a listener's destination.
pub(crate) fn check(app: &App, config: Option<&Config>) -> Outcome<()> {
    let compiled = app.compile()?;
    if let Some(config) = config {
        crate::node::check_listeners(&config.listen, &compiled.program)?;
        crate::backend::check_via(&compiled.program, &config.ports)?;
        config.offload.check_keys(&compiled)?;
        crate::backend::place(&config.listen, &mut config.ports.clone(), config.backend)?;
    }
    if !compiled.notes.is_empty() {
        eprint!("{}", compiled.notes.render(is_coloured()));
    }
    if config.is_none() {
        eprint!("{}", compiled.keys_missing(None).render(is_coloured()));
    }
    print(&format!("{}\n", summary(&compiled)));
    Ok(())
}

/// `towpath explain`: what was decided of the application, or of one call to it; and which jobs go to the devices
/// that the settings name.
///
/// # Errors
/// What is wrong with the application, with the call, or with a device.
pub(crate) fn explain(args: &Explain) -> Outcome<()> {
    let config = config(args.config.as_deref())?;
    let app = App::new(&args.app, &args.set, &config);
    let call = args.call.as_deref().map(lang::explain::parse_call).transpose().map_err(Failure::line)?;
    let compiled = app.compile()?;
    let report = lang::explain::Report::of(&compiled);
    let Some(call) = call else {
        let has_devices = config.offload.devices().iter().any(Option::is_some);
        let placement = || Jobs::measured(&config.offload, config.dpdk_memory);
        match (args.json, has_devices) {
            (false, false) => print(&report.text()),
            (false, true) => print(&format!("{}\n{}", report.text(), placement()?.text())),
            (true, false) => print(&format!("{}\n", report.json())),
            (true, true) => {
                let (json, placement) = (report.json(), placement()?.json());
                print(&format!("{},\"offload\":{placement}}}\n", json.strip_suffix('}').unwrap_or(&json)));
            }
        }
        return Ok(());
    };
    let message = args.message.as_deref().map(|json| compiled.protos.encode(&report, &call, json));
    let call = lang::explain::Imagined {
        headers: args.headers.clone(),
        message: message.transpose().map_err(Failure::line)?,
        peer: args.peer,
        seed: args.seed,
        status: args.status,
        ..call
    };
    print(&report.call(&call).map_err(Failure::line)?);
    Ok(())
}

/// `towpath elements`: the standard elements by their own files.
///
/// # Errors
/// One line, when there is none of this name.
pub(crate) fn elements(args: &crate::cli::Elements) -> Outcome<()> {
    let all: Vec<_> = lang::standard_elements().collect();
    let Some(name) = &args.name else {
        let entries = all.iter().map(|e| format!("{}\n    {}\n", e.signature, e.summary));
        print(&entries.collect::<String>());
        return Ok(());
    };
    if let Some(element) = all.iter().find(|e| e.name == name) {
        print(element.text);
        return Ok(());
    }
    let near = crate::value::nearest(name, all.iter().map(|e| e.name));
    let hint = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
    Err(Failure::line(format!("no standard element {name}{hint}; `towpath elements` lists them")))
}

/// `shop.adn: ok: 2 services, 3 endpoints, 1 rule, 4 elements`.
pub(crate) fn summary(compiled: &Compiled) -> String {
    let program = &compiled.program;
    let endpoints: usize = program.services.iter().map(|s| s.endpoints.len()).sum();
    let elements: usize = compiled.images.iter().map(|i| i.plan.elements.len()).sum();
    let counted = [
        (program.services.len(), "service"),
        (endpoints, "endpoint"),
        (program.routes.len(), "rule"),
        (elements, "element"),
        (compiled.notes.len(), "note"),
    ];
    let parts: Vec<String> = counted
        .iter()
        .filter(|(count, what)| *count > 0 || *what != "note")
        .map(|(count, what)| format!("{count} {what}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    format!("{}: ok: {}", program.file, parts.join(", "))
}

/// A source file; the error is one line.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    String::from_utf8(read_bytes(path, SOURCE_BYTES_MAX)?)
        .map_err(|_| format!("{} is not UTF-8 text", path.display()))
}

fn read_bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let meta = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("{shown}: no such file"),
        _ => format!("{shown}: {e}"),
    })?;
    if meta.is_dir() {
        return Err(format!("{shown} is a folder; name the .adn file in it"));
    }
    if meta.len() > bytes_max {
        return Err(format!("{shown} is larger than {} MiB", bytes_max >> 20));
    }
    fs::read(path).map_err(|e| format!("{shown}: {e}"))
}

/// Reads a `node.toml`, or takes the defaults.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn config(path: Option<&Path>) -> Outcome<Config> {
    match path {
        Some(path) => crate::config::parse(&path.display().to_string(), &read(path).map_err(Failure::line)?),
        None => Ok(Config::default()),
    }
}

/// Files beside the file that names them; names by the system's resolver.
#[derive(Default)]
struct Files {
    /// Those that were asked for.
    read: RefCell<Vec<PathBuf>>,
}

impl Loader for Files {
    fn read(&self, from: &str, path: &str) -> Result<SourceText, String> {
        let found = Path::new(from).parent().unwrap_or(Path::new("")).join(path);
        self.read.borrow_mut().push(found.clone());
        Ok(SourceText { text: read(&found)?, name: found.display().to_string() })
    }

    fn read_bytes(&self, from: &str, path: &str) -> Result<(String, Vec<u8>), String> {
        let found = Path::new(from).parent().unwrap_or(Path::new("")).join(path);
        let bytes = read_bytes(&found, DESCRIPTOR_BYTES_MAX)?;
        Ok((found.display().to_string(), bytes))
    }

    fn resolve(&self, host_port: &str) -> Result<Vec<SocketAddr>, String> {
        let mut found: Vec<SocketAddr> =
            host_port.to_socket_addrs().map_err(|e| format!("{host_port}: {e}"))?.collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() { Err(format!("{host_port} has no address")) } else { Ok(found) }
    }
}
