//! Files to a program: what `use` brings, services, elements, chains, rules.

mod coverage;
mod links;
mod notes;
mod rules;
mod services;
pub(crate) mod std;

use ::std::cell::Cell;
use ::std::collections::BTreeMap;
use ::std::rc::Rc;

use crate::ast::{self, Ident, Item};
use crate::check::{Checker, Context};
use crate::diag::{Diagnostic, Diagnostics, Severity};
use crate::explain::Protocols;
use crate::hir;
use crate::parse::parse;
use crate::schema::{Protos, Schema};
use crate::source::{SOURCE_BYTES_MAX, Sources, Span};
use crate::{Compiled, Loader, Overrides};
use coverage::Unary;

/// Files one application may use.
const FILES_MAX: usize = 64;

/// Where a file's items may say what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Application,
    /// A file of `every` rules named by `node.toml`.
    Operator,
    Standard,
}

/// A rule as written, with the file's standing.
struct RuleItem {
    rule: ast::Rule,
    owner: Owner,
}

/// Everything named, while a program is being made.
struct World<'a> {
    loader: &'a dyn Loader,
    overrides: &'a Overrides,
    sources: Sources,
    errors: Vec<Diagnostic>,
    services: Vec<(Ident, Vec<(Ident, ast::Expr)>)>,
    names: Vec<String>,
    elements: BTreeMap<String, Rc<hir::Element>>,
    chains: BTreeMap<String, (Ident, Vec<ast::Link>)>,
    rules: Vec<RuleItem>,
    parsed: Vec<(ast::Element, Owner)>,
    /// Files read, each with what its names begin with.
    files: Vec<(String, String)>,
    /// Those that are being read, one used by the other.
    using: Vec<String>,
    /// Names of items that could not be read.
    failed: Vec<String>,
    /// Links looked at for the rule at hand.
    steps: usize,
    protos: Protos,
    schema: Schema,
    /// A proto could not be read: what depends on it is not complained about.
    failed_proto: bool,
    /// What the services say of their methods, by service.
    unary: Vec<Unary>,
    /// Elements that mean something else in each chain, as written.
    written: BTreeMap<String, (ast::Element, bool)>,
    /// Those elements, by the types of their messages and by chain.
    covered: BTreeMap<(String, Vec<String>, coverage::Key), Rc<hir::Element>>,
}

/// The whole way from a text to a program.
pub(crate) fn compile(
    name: &str,
    source: &str,
    loader: &dyn Loader,
    overrides: &Overrides,
) -> Result<Compiled, Diagnostics> {
    let mut world = World {
        loader,
        overrides,
        sources: Sources::default(),
        errors: Vec::new(),
        services: Vec::new(),
        names: Vec::new(),
        elements: BTreeMap::new(),
        chains: BTreeMap::new(),
        rules: Vec::new(),
        parsed: Vec::new(),
        files: Vec::new(),
        using: Vec::new(),
        failed: Vec::new(),
        steps: 0,
        protos: Protos::default(),
        schema: Schema::default(),
        failed_proto: false,
        unary: Vec::new(),
        written: BTreeMap::new(),
        covered: BTreeMap::new(),
    };
    world.file(name, source, Owner::Application, "");
    for file in &overrides.every {
        world.file(&file.name, &file.text, Owner::Operator, "");
    }
    for (element, text) in std::ELEMENTS {
        world.file(&format!("std/{element}.adn"), text, Owner::Standard, "");
    }
    world.finish(name)
}

impl World<'_> {
    fn error(&mut self, error: Diagnostic) {
        self.errors.push(error);
    }

    /// Reads a file, whose chains and elements get names that begin with `scope`.
    fn file(&mut self, name: &str, text: &str, owner: Owner, scope: &str) {
        if text.len() > SOURCE_BYTES_MAX {
            let file = self.sources.add(name, "");
            self.error(
                Diagnostic::error(
                    Span { file, start: 0, end: 0 },
                    format!("this file has {} bytes", text.len()),
                )
                .label(format!("expected at most {SOURCE_BYTES_MAX}")),
            );
            return;
        }
        // Its services and rules are the application's, whatever it is called here.
        let is_known = self.files.iter().any(|(known, _)| known == name);
        self.files.push((name.to_owned(), scope.to_owned()));
        self.using.push(name.to_owned());
        let file = self.sources.add(name, text);
        let parsed = parse(text, file);
        self.errors.extend(parsed.errors);
        self.failed.extend(parsed.failed);
        for item in parsed.items {
            if !is_known || matches!(item, Item::Use { .. } | Item::Chain { .. } | Item::Element(_)) {
                self.item(name, item, owner, scope);
            }
        }
        self.using.pop();
    }

    fn item(&mut self, file: &str, item: Item, owner: Owner, scope: &str) {
        let scoped = |mut links: Vec<ast::Link>| {
            links.iter_mut().for_each(|link| scope.clone_into(&mut link.scope));
            links
        };
        let named = |name: Ident| Ident { text: format!("{scope}{}", name.text), ..name };
        match item {
            Item::Use { path, alias } => self.use_file(file, &path, alias.as_ref(), owner, scope),
            Item::Proto { path } => {
                if let Err(why) = self.protos.add(self.loader, file, &path.text) {
                    let error = Diagnostic::error(path.span, why.message);
                    self.error(match why.label {
                        Some(label) => error.label(label),
                        None => error,
                    });
                    self.failed_proto = true;
                }
            }
            Item::Service { name, entries } => {
                if owner == Owner::Operator {
                    self.error(
                        Diagnostic::error(name.span, "a file of `every` rules declares no services")
                            .label("services belong to the application"),
                    );
                    return;
                }
                if let Some((first, _)) = self.services.iter().find(|(n, _)| n.text == name.text) {
                    let first = first.span;
                    self.error(
                        Diagnostic::error(name.span, format!("the service `{}` stands twice", name.text))
                            .label("the second one")
                            .also(first, "the first one"),
                    );
                    return;
                }
                self.names.push(name.text.clone());
                self.services.push((name, entries));
            }
            Item::Chain { name, links } => {
                let (name, links) = (named(name), scoped(links));
                if let Some((first, _)) = self.chains.get(&name.text) {
                    let first = first.span;
                    self.error(
                        Diagnostic::error(name.span, format!("the chain `{}` stands twice", name.text))
                            .label("the second one")
                            .also(first, "the first one"),
                    );
                    return;
                }
                self.chains.insert(name.text.clone(), (name, links));
            }
            Item::Rule(rule) => {
                let rule = ast::Rule { links: scoped(rule.links), ..rule };
                if owner == Owner::Operator && !rule.every {
                    self.error(
                        Diagnostic::error(rule.span, "a file of `every` rules has no other rules")
                            .label("expected `every` before it"),
                    );
                    return;
                }
                self.rules.push(RuleItem { rule, owner });
            }
            Item::Element(element) => {
                let element = ast::Element { name: named(element.name), ..element };
                self.parsed.push((element, owner));
            }
        }
    }

    fn use_file(&mut self, from: &str, path: &Ident, alias: Option<&Ident>, owner: Owner, scope: &str) {
        let scope = alias.map_or(scope.to_owned(), |alias| format!("{scope}{}.", alias.text));
        match self.loader.read(from, &path.text) {
            Ok(source)
                if self.files.iter().any(|(name, as_what)| *name == source.name && *as_what == scope) => {}
            Ok(source) if alias.is_some() && self.using.contains(&source.name) => self.error(
                Diagnostic::error(path.span, format!("\"{}\" uses itself", path.text))
                    .label("a file under another name cannot use those it is used by"),
            ),
            Ok(source) if self.using.contains(&source.name) => {}
            Ok(_) if self.files.len() >= FILES_MAX => {
                self.error(Diagnostic::error(path.span, format!("more than {FILES_MAX} files")));
            }
            Ok(source) => self.file(&source.name, &source.text, owner, &scope),
            Err(why) => {
                self.error(Diagnostic::error(path.span, format!("cannot use \"{}\"", path.text)).label(why))
            }
        }
    }

    fn finish(mut self, name: &str) -> Result<Compiled, Diagnostics> {
        self.implied_services();
        self.read_schema();
        self.check_elements();
        let services = self.make_services();
        let rules = ::std::mem::take(&mut self.rules);
        let table = self.table(&rules, services);
        let is_error = |d: &Diagnostic| d.severity == Severity::Error;
        if self.errors.iter().any(is_error) {
            self.errors.retain(is_error);
            return Err(Diagnostics::new(self.errors, self.sources));
        }
        let rules::Table { services, routes, images, registry, analysis } = table;
        let program = abi::Program {
            file: name.to_owned(),
            services,
            routes: abi::Routes::new(routes),
            chains: Vec::new(),
            sinks: registry.sinks,
            metrics: registry.metrics,
            keys: registry.keys,
        };
        let notes = Diagnostics::new(self.errors, self.sources);
        let key_spans = registry.key_spans;
        Ok(Compiled { program, images, analysis, notes, protos: Protocols(self.schema.pool), key_spans })
    }

    /// `--set` may name a service that the file only uses.
    fn implied_services(&mut self) {
        for (set, _) in &self.overrides.set {
            if self.names.contains(set) {
                continue;
            }
            let used = self.rules.iter().find_map(|r| {
                r.rule.destination.iter().chain(&r.rule.sources).find(|n| n.text == *set).map(|n| n.span)
            });
            let name = Ident { text: set.clone(), span: used.unwrap_or_default() };
            if used.is_some() {
                self.names.push(set.clone());
                self.services.push((name, Vec::new()));
            } else {
                let error = Diagnostic::error(
                    name.span,
                    format!("--set names the service `{set}`, which is not here"),
                )
                .nearest(set, self.names.iter().map(String::as_str));
                self.errors.push(error);
            }
        }
    }

    fn check_elements(&mut self) {
        let parsed = ::std::mem::take(&mut self.parsed);
        let spans: BTreeMap<String, Span> =
            parsed.iter().rev().map(|(e, _)| (e.name.text.clone(), e.name.span)).collect();
        for (element, owner) in &parsed {
            let name = &element.name;
            let is_std = *owner == Owner::Standard;
            let own = name.text.rsplit('.').next().unwrap_or("");
            if !is_std && std::ELEMENTS.iter().any(|(n, _)| *n == own) {
                self.error(
                    Diagnostic::error(name.span, format!("`{own}` is a standard element"))
                        .label("expected another name"),
                );
                continue;
            }
            match spans.get(&name.text) {
                Some(first) if *first != name.span && !is_std => {
                    self.error(
                        Diagnostic::error(name.span, format!("the element `{}` stands twice", name.text))
                            .label("the second one")
                            .also(*first, "the first one"),
                    );
                    continue;
                }
                _ => {}
            }
            if let Some((chain, _)) = self.chains.get(&name.text) {
                let chain = chain.span;
                self.error(
                    Diagnostic::error(chain, format!("`{}` is an element already", name.text))
                        .label("expected another name for the chain")
                        .also(name.span, "the element"),
                );
            }
            let uses = Cell::new(false);
            let checker = Checker::new(&self.names, &mut self.errors, Context::Constant)
                .with_types(&self.schema.pool)
                .noting(&uses);
            let mut checked = checker.element(element, is_std);
            checked.uses_payload = uses.get();
            if uses.get() {
                self.written.insert(name.text.clone(), (element.clone(), is_std));
            }
            self.elements.insert(name.text.clone(), Rc::new(checked));
        }
    }
}
