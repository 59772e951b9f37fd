//! Services: their keys and endpoints.

use ::std::net::{IpAddr, SocketAddr};

use abi::{Addr, Endpoint, Service, Source};

use crate::ast::{Expr, ExprKind, Ident};
use crate::diag::Diagnostic;
use crate::source::Span;

use super::World;
use super::coverage::Unary;

const KEYS: [&str; 5] = ["endpoints", "hosts", "from", "unary", "via"];
const LATER: [&str; 3] = ["health", "load", "tls"];
/// Endpoints one service may have.
const ENDPOINTS_MAX: usize = 1024;

impl World<'_> {
    pub(super) fn make_services(&mut self) -> Vec<Service> {
        let declared = ::std::mem::take(&mut self.services);
        let mut services = Vec::new();
        for (name, entries) in &declared {
            services.push(self.service(name, entries));
        }
        self.unique_hosts(&services, &declared);
        self.unique_callers(&services, &declared);
        for (set, addrs) in &self.overrides.set {
            if let Some(service) = services.iter_mut().find(|s| s.name == *set) {
                service.endpoints = addrs.iter().map(|a| plain(a.clone())).collect();
            }
        }
        if services.len() > usize::from(u16::MAX) {
            self.error(Diagnostic::error(Span::default(), "too many services"));
        }
        self.services = declared;
        services
    }

    fn service(&mut self, name: &Ident, entries: &[(Ident, Expr)]) -> Service {
        let mut service = Service {
            name: name.text.clone(),
            hosts: vec![name.text.to_lowercase()],
            from: Vec::new(),
            endpoints: Vec::new(),
            via: None,
            is_destination: false,
        };
        let mut unary = Unary::Unsaid;
        let mut seen: Vec<&Ident> = Vec::new();
        for (key, value) in entries {
            if let Some(first) = seen.iter().find(|k| k.text == key.text) {
                self.error(
                    Diagnostic::error(key.span, format!("`{}` stands twice", key.text))
                        .also(first.span, "the first one"),
                );
                continue;
            }
            seen.push(key);
            match key.text.as_str() {
                "endpoints" => service.endpoints = self.endpoints(value),
                "hosts" => {
                    for (host, _) in self.strings(value, "a host, as in \"catalog.internal\"") {
                        let host = host.to_lowercase();
                        if !service.hosts.contains(&host) {
                            service.hosts.push(host);
                        }
                    }
                }
                "from" => {
                    for (from, span) in
                        self.strings(value, "a caller, as in \"listen:pods\" or \"10.0.0.0/8\"")
                    {
                        service.from.extend(self.source(&from, span));
                    }
                }
                "via" => service.via = self.string(value, "the name of a port"),
                "unary" => {
                    unary = match &*value.kind {
                        ExprKind::Bool(true) => Unary::All,
                        ExprKind::Bool(false) => Unary::Unsaid,
                        _ => {
                            let names = self.strings(value, "true, or methods, as in \"shop.Catalog/Get\"");
                            Unary::Methods(names.into_iter().map(|(name, _)| name).collect())
                        }
                    };
                }
                later if LATER.contains(&later) => {
                    self.error(Diagnostic::unsupported(key.span, &format!("`{later}:` of a service")));
                }
                other => {
                    let error = Diagnostic::error(key.span, format!("a service has no key `{other}`"))
                        .label(format!("expected {}", KEYS.join(", ")))
                        .nearest(other, KEYS.into_iter());
                    self.error(error);
                }
            }
        }
        self.unary.push(unary);
        service
    }

    fn string(&mut self, value: &Expr, what: &str) -> Option<String> {
        if let ExprKind::Str(text) = &*value.kind {
            return Some(text.clone());
        }
        self.error(Diagnostic::error(value.span, "this must be a string").label(format!("expected {what}")));
        None
    }

    /// A string, or a list of them.
    fn strings(&mut self, value: &Expr, what: &str) -> Vec<(String, Span)> {
        let items = match &*value.kind {
            ExprKind::List(items) => items.as_slice(),
            _ => ::std::slice::from_ref(value),
        };
        items.iter().filter_map(|i| Some((self.string(i, what)?, i.span))).collect()
    }

    fn endpoints(&mut self, value: &Expr) -> Vec<Endpoint> {
        let items = match &*value.kind {
            ExprKind::List(items) => items.as_slice(),
            _ => ::std::slice::from_ref(value),
        };
        let mut out: Vec<Endpoint> = Vec::new();
        for item in items {
            for endpoint in self.endpoint(item) {
                if out.iter().any(|e| e.addr == endpoint.addr) {
                    self.error(Diagnostic::error(
                        item.span,
                        format!("the endpoint {} stands twice", endpoint.addr),
                    ));
                } else if out.len() == ENDPOINTS_MAX {
                    self.error(Diagnostic::error(item.span, format!("more than {ENDPOINTS_MAX} endpoints")));
                    return out;
                } else {
                    out.push(endpoint);
                }
            }
        }
        out
    }

    fn endpoint(&mut self, item: &Expr) -> Vec<Endpoint> {
        match &*item.kind {
            ExprKind::Str(text) => self.address(text, item.span).map(plain).into_iter().collect(),
            ExprKind::Map(entries) => self.endpoint_map(entries, item.span).into_iter().collect(),
            ExprKind::Call { of, args } => {
                let name = of.as_name().unwrap_or("");
                let argument = match args.as_slice() {
                    [arg] if arg.name.is_none() => Some(&arg.value),
                    _ => None,
                };
                match (name, argument) {
                    ("dns", Some(value)) => self.dns(value),
                    ("file", Some(value)) => self.endpoint_file(value),
                    ("dns" | "file", None) => {
                        self.error(Diagnostic::error(item.span, format!("`{name}` takes one string")));
                        Vec::new()
                    }
                    _ => {
                        let error = Diagnostic::error(of.span, "this gives no endpoints")
                            .label("expected dns(\"host:port\") or file(\"path\")")
                            .nearest(name, ["dns", "file"].into_iter());
                        self.error(error);
                        Vec::new()
                    }
                }
            }
            ExprKind::Broken => Vec::new(),
            _ => {
                self.error(Diagnostic::error(item.span, "this is no endpoint").label(
                    "expected \"ip:port\", \"unix:/path\", { address: …, weight: … }, dns(…) or file(…)",
                ));
                Vec::new()
            }
        }
    }

    fn dns(&mut self, value: &Expr) -> Vec<Endpoint> {
        let Some(name) = self.string(value, "\"host:port\"") else { return Vec::new() };
        let port = name.rsplit_once(':').map(|(host, port)| (!host.is_empty(), port.parse::<u16>()));
        if !matches!(port, Some((true, Ok(_)))) {
            self.error(Diagnostic::error(value.span, "this has no port").label("expected \"host:port\""));
            return Vec::new();
        }
        match self.loader.resolve(&name) {
            Ok(addrs) => addrs.into_iter().map(|a| plain(Addr::Ip(a))).collect(),
            Err(why) => {
                self.error(Diagnostic::error(value.span, format!("cannot resolve {name}")).label(why));
                Vec::new()
            }
        }
    }

    /// One endpoint a line: its address, then `weight=N` and `zone=Z` if wanted. `#` begins a comment.
    fn endpoint_file(&mut self, value: &Expr) -> Vec<Endpoint> {
        let Some(path) = self.string(value, "a path") else { return Vec::new() };
        let from = self.sources.file(value.span.file).map_or(String::new(), |f| f.name.clone());
        let source = match self.loader.read(&from, &path) {
            Ok(source) => source,
            Err(why) => {
                self.error(Diagnostic::error(value.span, format!("cannot read \"{path}\"")).label(why));
                return Vec::new();
            }
        };
        let mut out = Vec::new();
        for (number, line) in source.text.lines().enumerate().take(ENDPOINTS_MAX * 4) {
            let line = line.split('#').next().unwrap_or("");
            let mut words = line.split_whitespace();
            let Some(address) = words.next() else { continue };
            let Ok(addr) = parse_address(address) else {
                self.error(
                    Diagnostic::error(
                        value.span,
                        format!("{}:{}: `{address}` is no address", source.name, number + 1),
                    )
                    .label("expected \"ip:port\" or \"unix:/path\" on each line"),
                );
                continue;
            };
            let mut endpoint = plain(addr);
            for word in words {
                match word.split_once('=') {
                    Some(("weight", n)) if n.parse::<u32>().is_ok() => {
                        endpoint.weight = n.parse().unwrap_or(1)
                    }
                    Some(("zone", zone)) => zone.clone_into(&mut endpoint.zone),
                    _ => self.error(
                        Diagnostic::error(
                            value.span,
                            format!("{}:{}: `{word}` means nothing", source.name, number + 1),
                        )
                        .label("expected weight=N or zone=Z after the address"),
                    ),
                }
            }
            out.push(endpoint);
        }
        out
    }

    fn endpoint_map(&mut self, entries: &[(Expr, Expr)], span: Span) -> Option<Endpoint> {
        let mut addr = None;
        let (mut weight, mut zone, mut labels) = (1, String::new(), Vec::new());
        for (key, value) in entries {
            match key.as_name().unwrap_or("") {
                "address" => {
                    let text = self.string(value, "\"ip:port\" or \"unix:/path\"")?;
                    addr = Some(self.address(&text, value.span)?);
                }
                "weight" => match &*value.kind {
                    ExprKind::Int(n) if u32::try_from(*n).is_ok() => weight = u32::try_from(*n).unwrap_or(1),
                    _ => self.error(
                        Diagnostic::error(value.span, "this is no weight").label("expected a whole number"),
                    ),
                },
                "zone" => zone = self.string(value, "a zone's name")?,
                "labels" => match &*value.kind {
                    ExprKind::Map(items) => {
                        for (name, value) in items {
                            let name = match &*name.kind {
                                ExprKind::Name(n) | ExprKind::Str(n) => n.clone(),
                                _ => continue,
                            };
                            labels.push((name, self.string(value, "a label's text")?));
                        }
                    }
                    _ => self.error(
                        Diagnostic::error(value.span, "these are no labels")
                            .label("expected { name: \"text\" }"),
                    ),
                },
                other => {
                    let known = ["address", "weight", "zone", "labels"];
                    let error = Diagnostic::error(key.span, format!("an endpoint has no key `{other}`"))
                        .label(format!("expected {}", known.join(", ")))
                        .nearest(other, known.into_iter());
                    self.error(error);
                }
            }
        }
        if addr.is_none() {
            self.error(
                Diagnostic::error(span, "this endpoint has no address")
                    .label("expected `address: \"ip:port\"`"),
            );
        }
        Some(Endpoint { addr: addr?, weight, zone, labels })
    }

    fn address(&mut self, text: &str, span: Span) -> Option<Addr> {
        match parse_address(text) {
            Ok(addr) => Some(addr),
            Err(why) => {
                let error = Diagnostic::error(span, format!("\"{text}\" is no address"))
                    .label("expected \"ip:port\" or \"unix:/path\"");
                self.error(match why {
                    Some(help) => error.help(help),
                    None => error,
                });
                None
            }
        }
    }

    fn source(&mut self, text: &str, span: Span) -> Option<Source> {
        let range = || {
            let (ip, bits) = text.split_once('/').unwrap_or((text, ""));
            let ip: IpAddr = ip.parse().ok()?;
            let most = if ip.is_ipv4() { 32 } else { 128 };
            let bits = if bits.is_empty() { most } else { bits.parse::<u8>().ok()? };
            (bits <= most).then_some(Source::Cidr(ip, bits))
        };
        match text.split_once(':') {
            Some(("listen", name)) if !name.is_empty() => return Some(Source::Listener(name.to_owned())),
            Some(("unix", path)) if !path.is_empty() => return Some(Source::Unix(path.to_owned())),
            Some(("uid", n)) if n.parse::<u32>().is_ok() => return n.parse().ok().map(Source::Uid),
            Some(("spiffe", _)) => {
                self.error(Diagnostic::unsupported(span, "`spiffe://` identities"));
                return None;
            }
            _ => {}
        }
        let source = range();
        if source.is_none() {
            self.error(
                Diagnostic::error(span, format!("\"{text}\" says not who calls"))
                    .label("expected \"listen:NAME\", \"unix:PATH\", \"uid:N\" or an address range"),
            );
        }
        source
    }

    fn unique_hosts(&mut self, services: &[Service], declared: &[(Ident, Vec<(Ident, Expr)>)]) {
        for (at, service) in services.iter().enumerate() {
            for (other, first) in services.iter().take(at).enumerate() {
                let Some(host) = service.hosts.iter().find(|h| first.hosts.contains(h)) else { continue };
                let span = |at: usize| declared.get(at).map_or(Span::default(), |(n, _)| n.span);
                self.error(
                    Diagnostic::error(span(at), format!("the authority \"{host}\" means two services"))
                        .label("here")
                        .also(span(other), "and here"),
                );
            }
        }
    }

    /// A caller is one service: what tells one may not tell another.
    fn unique_callers(&mut self, services: &[Service], declared: &[(Ident, Vec<(Ident, Expr)>)]) {
        for (at, (service, (name, _))) in services.iter().zip(declared).enumerate() {
            let is_same = |(first, _): &(&Service, _)| first.from.iter().any(|f| service.from.contains(f));
            if let Some((first, (other, _))) = services.iter().zip(declared).take(at).find(is_same) {
                let what = format!("`{}` and `{}` call from the same place", first.name, service.name);
                self.error(
                    Diagnostic::error(name.span, what)
                        .label("a caller could be either")
                        .also(other.span, "the first one")
                        .help("each `from:` means one service"),
                );
            }
        }
    }
}

fn plain(addr: Addr) -> Endpoint {
    Endpoint { addr, weight: 1, zone: String::new(), labels: Vec::new() }
}

/// An address, or what to do about what is none.
fn parse_address(text: &str) -> Result<Addr, Option<String>> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() { Err(None) } else { Ok(Addr::Unix(path.to_owned())) };
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return if addr.port() == 0 { Err(Some("port 0 is no port".to_owned())) } else { Ok(Addr::Ip(addr)) };
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(Some(format!("a port is missing: \"{text}:50051\"")));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.contains(':') && !host.is_empty() => {
            Err(Some(format!("for a name write endpoints: dns(\"{text}\")")))
        }
        _ => Err(None),
    }
}
