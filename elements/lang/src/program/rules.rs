//! Rules to routes: the most specific rule decides, every matching `every` rule stands to its left.
//!
//! A rule's key says which calls it covers: methods, destination, source. Keys either lie within one
//! another, are disjoint, or meet in a key. For each rule the table holds its own key and every key in
//! which it meets `every` rules, narrowest first, so that the first match carries exactly the `every`
//! rules of its calls.

use ::std::collections::BTreeMap;
use ::std::sync::Arc;

use abi::{MethodMatch, Route, Service, ServiceIdx};

use crate::ast::{Ident, Rule};
use crate::diag::Diagnostic;
use crate::explain::facts::{Analysis, ChainFacts, ElementFacts, LinkFacts, RuleFacts};
use crate::lower::{self, Link, Registry};
use crate::schema::Coverage;
use crate::source::Span;
use crate::vm::Image;

use super::links::links_span;
use super::{Owner, RuleItem, World, notes};

/// Routes of one program.
const ROUTES_MAX: usize = 32_768;

/// Which calls a rule covers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    method: MethodMatch,
    destination: Option<ServiceIdx>,
    source: Option<ServiceIdx>,
}

fn method_rank(method: &MethodMatch) -> u8 {
    match method {
        MethodMatch::Any => 0,
        MethodMatch::Service(_) => 1,
        MethodMatch::Method(..) => 2,
    }
}

impl Key {
    /// Compared by method, destination, source.
    fn rank(&self) -> (u8, bool, bool) {
        (method_rank(&self.method), self.destination.is_some(), self.source.is_some())
    }

    /// How much it says: a key within another says more.
    fn weight(&self) -> u8 {
        method_rank(&self.method) + u8::from(self.destination.is_some()) + u8::from(self.source.is_some())
    }

    /// The calls of both.
    fn meet(&self, other: &Self) -> Option<Self> {
        let side = |a: Option<ServiceIdx>, b: Option<ServiceIdx>| match (a, b) {
            (Some(a), Some(b)) if a != b => None,
            (a, b) => Some(a.or(b)),
        };
        Some(Self {
            method: meet_methods(&self.method, &other.method)?,
            destination: side(self.destination, other.destination)?,
            source: side(self.source, other.source)?,
        })
    }
}

fn meet_methods(a: &MethodMatch, b: &MethodMatch) -> Option<MethodMatch> {
    // Health checks and reflection match only rules that name them.
    let is_reserved = |m: &MethodMatch| match m {
        MethodMatch::Any => false,
        MethodMatch::Service(s) | MethodMatch::Method(s, _) => {
            s.starts_with("grpc.health.v1") || s.starts_with("grpc.reflection.")
        }
    };
    match (a, b) {
        (MethodMatch::Any, other) | (other, MethodMatch::Any) => (!is_reserved(other)).then(|| other.clone()),
        (MethodMatch::Service(s), MethodMatch::Service(t)) => (s == t).then(|| a.clone()),
        (MethodMatch::Service(s), MethodMatch::Method(t, _)) => (s == t).then(|| b.clone()),
        (MethodMatch::Method(s, _), MethodMatch::Service(t)) => (s == t).then(|| a.clone()),
        (MethodMatch::Method(..), MethodMatch::Method(..)) => (a == b).then(|| a.clone()),
    }
}

/// A rule, resolved.
struct Resolved {
    keys: Vec<Key>,
    links: Vec<Link>,
    /// What stands before its links, and who says it.
    head: String,
    /// Where the links begin.
    links_at: u32,
    span: Span,
    line: u32,
    every: bool,
    owner: Owner,
    used: bool,
}

/// The finished table.
pub(super) struct Table {
    pub(super) services: Vec<Service>,
    pub(super) routes: Vec<Route>,
    pub(super) images: Vec<Arc<Image>>,
    pub(super) registry: Registry,
    pub(super) analysis: Analysis,
}

impl World<'_> {
    pub(super) fn table(&mut self, rules: &[RuleItem], mut services: Vec<Service>) -> Table {
        let rules = match rules.get(ROUTES_MAX) {
            Some(first) => {
                self.errors.push(
                    Diagnostic::error(first.rule.span, format!("more than {ROUTES_MAX} rules"))
                        .label("the first that is too many"),
                );
                &[]
            }
            None => rules,
        };
        let mut resolved: Vec<Resolved> =
            rules.iter().filter_map(|item| self.resolve(&item.rule, item.owner, &mut services)).collect();
        name_homes(&mut resolved);
        self.check_sources(rules, &services);
        let mut flat = self.flatten(&mut resolved);
        // The most specific rule first; within one rule the narrowest key.
        flat.sort_by_key(|f| ::std::cmp::Reverse((f.rank, f.key.weight())));
        let registry = Registry { services: lower::service_texts(&services), ..Registry::default() };
        let analysis =
            Analysis { rules: resolved.iter().map(|r| self.rule_facts(r)).collect(), ..Analysis::default() };
        let mut table = Table { services, routes: Vec::new(), images: Vec::new(), registry, analysis };
        let mut facts = BTreeMap::new();
        let mut known: BTreeMap<ChainKey, u32> = BTreeMap::new();
        for route in flat {
            let links = || route.rules.iter().filter_map(|at| resolved.get(*at)).flat_map(|r| &r.links);
            // What a chain means may depend on its methods; if not, one chain serves all routes of its rules.
            let coverage = links().any(|l| l.written.is_some()).then(|| {
                self.coverage(&route.key.method, route.key.destination, &is_taken(&route.key, &table.routes))
            });
            let key = (route.rules.clone(), coverage.as_ref().map(Coverage::key));
            let chain = match known.get(&key) {
                Some(chain) => *chain,
                None => {
                    let links: Vec<Link> = links().cloned().collect();
                    let rules: Vec<u32> = route
                        .rules
                        .iter()
                        .filter_map(|at| Some((u32::try_from(*at).ok()?, resolved.get(*at)?.links.len())))
                        .flat_map(|(at, links)| ::std::iter::repeat_n(at, links))
                        .collect();
                    let at = self.chain(&links, &rules, coverage.unwrap_or_default(), &mut table, &mut facts);
                    known.insert(key, at);
                    at
                }
            };
            let Key { method, destination, source } = route.key;
            let rule = route.rules.last().and_then(|at| u32::try_from(*at).ok()).unwrap_or(u32::MAX);
            table.analysis.routes.push(rule);
            table.routes.push(Route { source, destination, method, chain, line: route.line });
        }
        for rule in resolved.iter().filter(|r| r.every && !r.used) {
            self.errors.push(
                Diagnostic::note(rule.span, "this `every` rule meets no other rule").label("it does nothing"),
            );
        }
        if table.routes.is_empty() && rules.is_empty() && self.errors.is_empty() {
            let end = u32::try_from(self.sources.file(0).map_or(0, |f| f.text.len())).unwrap_or(0);
            self.errors.push(
                Diagnostic::error(Span { file: 0, start: end, end }, "this file has no rule")
                    .label("expected a rule, as in `frontend -> catalog: LoadBalancing`"),
            );
        }
        table
    }

    /// A chain stays within the operator's bound, so that one call cannot hold up a turn.
    fn check_cost(&mut self, links: &[Link], image: &Image, services: &[Service]) {
        let endpoints = services.iter().map(|s| s.endpoints.len()).max().unwrap_or(0);
        let cost = |code| (lower::worst_case(&image.shared, code, endpoints), code);
        let dearest = image.entries().map(|(_, code)| cost(code)).max_by_key(|(cost, _)| *cost);
        let max = self.overrides.chain_cost_max.unwrap_or(crate::CHAIN_COST_MAX);
        let Some((cost, code)) = dearest.filter(|(cost, _)| *cost > max) else { return };
        let link = links.get(lower::dearest_element(&image.shared, code, endpoints));
        if let Some(link) = link.or(links.first()) {
            let what = format!("this chain may take {cost} operations for one call; chain_cost_max is {max}");
            let error = Diagnostic::error(link.span, what)
                .label(format!("most of them in `{}`", link.element.name))
                .help(
                    "loops within loops, and lists of many endpoints, make it long; `towpath explain` counts",
                );
            self.error(error);
        }
    }

    /// Compiles the chain of a route; its place among the images. `rules` says of each link whose it is.
    fn chain(
        &mut self,
        links: &[Link],
        rules: &[u32],
        coverage: Coverage,
        table: &mut Table,
        facts: &mut KnownFacts,
    ) -> u32 {
        notes::chain(links, &mut self.errors);
        let at = u32::try_from(table.images.len()).unwrap_or(u32::MAX);
        let covering;
        let is_typed = links.iter().any(|l| l.written.is_some());
        let links = if is_typed {
            covering = self.covering(links, &coverage).unwrap_or_default();
            notes::nowhere(&covering, &coverage.named, &mut self.errors);
            &covering
        } else {
            links
        };
        let image = lower::chain(
            links,
            &coverage,
            &table.services,
            &mut table.registry,
            &self.sources,
            &mut self.errors,
        );
        self.check_cost(links, &image, &table.services);
        lower::tables(&image, &table.services);
        table.images.push(Arc::new(image));
        let mut chain = ChainFacts::default();
        for (link, rule) in links.iter().zip(rules) {
            // Links that say the same, of methods that are the same, share their facts.
            let when = link.when.as_ref().map_or("", |w| self.sources.text(w.span));
            let key = (link.text.clone(), when.to_owned(), link.dry, is_typed.then(|| coverage.key()));
            let element = facts
                .entry(key)
                .or_insert_with(|| Arc::new(lower::analyse(link, &coverage, &table.services, &self.sources)))
                .clone();
            notes::passes(link, &element.handlers, &mut self.errors);
            chain.links.push(LinkFacts {
                element,
                rule: *rule,
                file: self.file_name(link.span),
                line: link.line,
            });
        }
        table.analysis.chains.push(chain);
        at
    }

    fn rule_facts(&self, rule: &Resolved) -> RuleFacts {
        let until = rule.links_at.max(rule.span.start);
        let text = self.sources.text(Span { end: until, ..rule.span }).trim_end();
        let first = rule.keys.first();
        RuleFacts {
            text: text.trim_end_matches(':').split_whitespace().collect::<Vec<_>>().join(" "),
            file: self.file_name(rule.span),
            line: rule.line,
            every: rule.every,
            operator: rule.owner == Owner::Operator,
            sources: rule.keys.iter().map(|k| k.source).collect(),
            destination: first.and_then(|k| k.destination),
            method: first.map_or(MethodMatch::Any, |k| k.method.clone()),
        }
    }

    fn file_name(&self, span: Span) -> Arc<str> {
        self.sources.file(span.file).map_or_else(|| Arc::from(""), |f| Arc::from(f.name.as_str()))
    }

    fn resolve(&mut self, rule: &Rule, owner: Owner, services: &mut [Service]) -> Option<Resolved> {
        let mut sources = Vec::new();
        let mut is_right = true;
        if rule.sources.is_empty() {
            sources.push(None);
        }
        for name in &rule.sources {
            match self.service_named(name) {
                Some(at) => sources.push(Some(at)),
                None => is_right = false,
            }
        }
        let destination = match &rule.destination {
            None => None,
            Some(name) => {
                let at = self.service_named(name);
                is_right &= at.is_some();
                if let (Some(at), false) = (at, rule.every) {
                    self.destination(name, at, services);
                }
                at
            }
        };
        let method = match &rule.rpc {
            None => MethodMatch::Any,
            Some(rpc) => match &rpc.method {
                None => MethodMatch::Service(rpc.service.clone()),
                Some(method) => MethodMatch::Method(rpc.service.clone(), method.clone()),
            },
        };
        self.note_unknown(&method, destination, rule);
        let links = self.links(&rule.links);
        let keys =
            sources.into_iter().map(|source| Key { method: method.clone(), destination, source }).collect();
        let line = self.sources.place(rule.span).0;
        if !is_right {
            return None;
        }
        let links_at = links_span(&rule.links).start;
        let span = rule.span.to(links_span(&rule.links));
        let head = head(rule, owner);
        Some(Resolved {
            keys,
            links: links?,
            head,
            links_at,
            span,
            line,
            every: rule.every,
            owner,
            used: false,
        })
    }

    /// Notes a method that looks like one of a proto and is none: the rule meets no call.
    fn note_unknown(&mut self, method: &MethodMatch, destination: Option<ServiceIdx>, rule: &Rule) {
        let service = match method {
            MethodMatch::Any => return,
            MethodMatch::Service(service) | MethodMatch::Method(service, _) => service.clone(),
        };
        let coverage = self.coverage(method, destination, &|_, _| false);
        let is_of_proto = !self.schema.matching(&MethodMatch::Service(service)).is_empty();
        if self.failed_proto || !coverage.methods.is_empty() || (coverage.near.is_none() && !is_of_proto) {
            return;
        }
        let span = Span { end: links_span(&rule.links).start.max(rule.span.start), ..rule.span };
        let note = Diagnostic::note(span, format!("no proto has {}", coverage.named))
            .label("calls of this name alone come here");
        self.errors.push(match coverage.near {
            Some(near) => note.help(format!("did you mean `{near}`?")),
            None => note,
        });
    }

    fn service_named(&mut self, name: &Ident) -> Option<ServiceIdx> {
        if let Some(at) = self.names.iter().position(|n| *n == name.text) {
            return u16::try_from(at).ok().map(ServiceIdx);
        }
        if self.failed.contains(&name.text) {
            return None;
        }
        let error = Diagnostic::error(name.span, format!("unknown service `{}`", name.text));
        let near = crate::suggest::nearest(&name.text, self.names.iter().map(String::as_str));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("declare it: `service {}`", name.text),
        };
        self.error(error.label("no service of this name").help(help));
        None
    }

    fn destination(&mut self, name: &Ident, at: ServiceIdx, services: &mut [Service]) {
        let Some(service) = services.get_mut(usize::from(at.0)) else { return };
        service.is_destination = true;
        // Endpoints that could not be read have been complained about already.
        let is_declared = self.services.get(usize::from(at.0)).is_some_and(|(_, entries)| {
            entries.iter().any(|(k, v)| k.text == "endpoints" && !is_empty_list(v))
        });
        if service.endpoints.is_empty() && !is_declared {
            let place = self.services.get(usize::from(at.0)).map(|(n, _)| n.span);
            let mut error = Diagnostic::error(name.span, format!("`{}` is called and has no endpoints", name.text))
                .label("where do its calls go?")
                .help(format!(
                    "write `service {0} {{ endpoints: [\"ip:port\"] }}`, or run with --set service.{0}.endpoints=ip:port",
                    name.text
                ));
            if let Some(place) = place.filter(|p| *p != name.span) {
                error = error.also(place, "declared here");
            }
            self.error(error);
        }
    }

    /// With two or more callers, each must be told apart.
    fn check_sources(&mut self, rules: &[RuleItem], services: &[Service]) {
        let mut callers: Vec<(&Ident, &Service)> = Vec::new();
        for name in rules.iter().filter(|r| r.owner == Owner::Application).flat_map(|r| &r.rule.sources) {
            if let Some(service) = services.iter().find(|s| s.name == name.text)
                && !callers.iter().any(|(n, _)| n.text == name.text)
            {
                callers.push((name, service));
            }
        }
        let many = callers.len() > 1;
        for (name, service) in callers {
            let place =
                self.services.iter().find(|(n, _)| n.text == name.text).map_or(name.span, |(n, _)| n.span);
            if many && service.from.is_empty() {
                self.errors.push(
                    Diagnostic::error(place, format!("nothing says who `{}` is", name.text))
                        .label("with two or more callers each needs `from:`")
                        .help(format!("as in `service {} {{ from: [\"listen:pods\"] }}`", name.text)),
                );
            } else if !service.from.iter().all(is_authenticated) || service.from.is_empty() {
                let why = if service.from.is_empty() {
                    "every caller counts as it"
                } else {
                    "a listener or an address is no proof of who calls"
                };
                self.errors
                    .push(Diagnostic::note(place, format!("{} is not authenticated", name.text)).label(why));
            }
        }
    }

    /// Every rule's keys, and those in which it meets `every` rules.
    fn flatten(&mut self, rules: &mut [Resolved]) -> Vec<Flat> {
        // Broadest first, the operator's before the application's.
        let mut every: Vec<(usize, Key)> = rules
            .iter()
            .enumerate()
            .filter(|(_, r)| r.every)
            .flat_map(|(at, r)| r.keys.iter().map(move |k| (at, k.clone())))
            .collect();
        let standing = |at: usize| rules.get(at).map_or(1, |r| u8::from(r.owner != Owner::Operator));
        every.sort_by_key(|(at, key)| (standing(*at), key.rank(), *at));

        let mut flat: Vec<Flat> = Vec::new();
        let mut first: BTreeMap<Key, Span> = BTreeMap::new();
        let mut used = Vec::new();
        for (at, rule) in rules.iter().enumerate().filter(|(_, r)| !r.every) {
            for own in &rule.keys {
                if let Some(other) = first.get(own) {
                    self.errors.push(
                        Diagnostic::error(rule.span, "two rules say the same calls")
                            .label("this one, and neither is more specific")
                            .also(*other, "and this one"),
                    );
                    continue;
                }
                first.insert(own.clone(), rule.span);
                let mut keys = vec![own.clone()];
                for (_, limit) in &every {
                    for at in 0..keys.len() {
                        if let Some(met) = keys.get(at).and_then(|k| k.meet(limit))
                            && !keys.contains(&met)
                        {
                            keys.push(met);
                        }
                    }
                    if flat.len() + keys.len() > ROUTES_MAX {
                        self.errors.push(
                            Diagnostic::error(
                                rule.span,
                                format!("the rules make more than {ROUTES_MAX} routes"),
                            )
                            .help("use fewer narrow `every` rules"),
                        );
                        return flat;
                    }
                }
                for key in keys {
                    // An `every` rule covers a key if their meeting is the key itself.
                    let mut chain: Vec<usize> = Vec::new();
                    for (at, limit) in &every {
                        if key.meet(limit).as_ref() == Some(&key) && !chain.contains(at) {
                            chain.push(*at);
                        }
                    }
                    used.extend_from_slice(&chain);
                    chain.push(at);
                    flat.push(Flat { rank: own.rank(), key, rules: chain, line: rule.line });
                }
            }
        }
        for at in used {
            if let Some(rule) = rules.get_mut(at) {
                rule.used = true;
            }
        }
        flat
    }
}

/// Facts of links by what tells them apart: text, condition, `dry`, and the methods if those matter.
type KnownFacts = BTreeMap<(String, String, bool, Option<super::coverage::Key>), Arc<ElementFacts>>;

/// What tells chains apart: the rules, and what their methods are if that matters.
type ChainKey = (Vec<usize>, Option<super::coverage::Key>);

/// Whether a method of these calls goes to one of the routes before.
fn is_taken<'a>(key: &'a Key, before: &'a [Route]) -> impl Fn(&str, &str) -> bool + 'a {
    let is_one = matches!(key.method, MethodMatch::Method(..));
    move |service, method| {
        !is_one
            && before.iter().any(|route| {
                (route.source.is_none() || route.source == key.source)
                    && (route.destination.is_none() || route.destination == key.destination)
                    && match &route.method {
                        MethodMatch::Any => true,
                        MethodMatch::Service(s) => s == service,
                        MethodMatch::Method(s, m) => s == service && m == method,
                    }
            })
    }
}

/// A rule's head in its shortest form: what its state is known by, over reloads.
fn head(rule: &Rule, owner: Owner) -> String {
    let sources: Vec<&str> = rule.sources.iter().map(|n| n.text.as_str()).collect();
    let sources = if sources.is_empty() { "*".to_owned() } else { sources.join(", ") };
    let destination = rule.destination.as_ref().map_or("*", |n| n.text.as_str());
    let method = rule
        .rpc
        .as_ref()
        .map_or(String::new(), |rpc| format!(".{}/{}", rpc.service, rpc.method.as_deref().unwrap_or("*")));
    let owner = if owner == Owner::Operator { "operator: " } else { "" };
    let every = if rule.every { "every " } else { "" };
    format!("{owner}{every}{sources} -> {destination}{method}")
}

/// Names each link by rule, element and, from the second of that name on, its number.
fn name_homes(rules: &mut [Resolved]) {
    let mut heads: BTreeMap<String, usize> = BTreeMap::new();
    for rule in rules {
        // Only `every` rules may have one head in common.
        let nth = heads.entry(rule.head.clone()).or_default();
        *nth += 1;
        let again = if *nth > 1 { format!(" ({nth})") } else { String::new() };
        let mut elements: BTreeMap<String, usize> = BTreeMap::new();
        for link in &mut rule.links {
            let nth = elements.entry(link.element.name.clone()).or_default();
            *nth += 1;
            let which = if *nth > 1 { format!("#{nth}") } else { String::new() };
            link.home = format!("{}{again}: {}{which}", rule.head, link.element.name).into();
        }
    }
}

/// One route before its chain is made.
struct Flat {
    rank: (u8, bool, bool),
    key: Key,
    /// The rules whose links it is made of, from left to right.
    rules: Vec<usize>,
    line: u32,
}

fn is_empty_list(value: &crate::ast::Expr) -> bool {
    matches!(&*value.kind, crate::ast::ExprKind::List(items) if items.is_empty())
}

fn is_authenticated(source: &abi::Source) -> bool {
    // The kernel vouches for a socket's path and for the uid of its peer.
    matches!(source, abi::Source::Unix(_) | abi::Source::Uid(_))
}
