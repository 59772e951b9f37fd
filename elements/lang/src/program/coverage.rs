//! Which methods a chain covers, and its links as they are for those.

use ::std::cell::Cell;
use ::std::rc::Rc;

use abi::{MethodMatch, ServiceIdx};

use crate::ast;
use crate::check::{Checker, Context};
use crate::diag::Diagnostic;
use crate::hir;
use crate::lower::Link;
use crate::schema::{Coverage, Schema};
use crate::source::Span;
use crate::suggest::nearest;
use crate::ty::Ty;

use super::World;

/// What tells coverages apart.
pub(super) type Key = (Vec<String>, bool, bool);

/// `unary:` of a service.
#[derive(Clone, Debug, Default)]
pub(super) enum Unary {
    /// Nothing is said.
    #[default]
    Unsaid,
    /// Every method.
    All,
    /// These, `pkg.Service/Method`.
    Methods(Vec<String>),
}

impl World<'_> {
    /// What the `proto` lines say, all together.
    pub(super) fn read_schema(&mut self) {
        match ::std::mem::take(&mut self.protos).finish() {
            Ok(pool) => self.schema = Schema::new(pool),
            // Each line has been tried by itself before: two of them do not agree.
            Err(why) => {
                self.failed_proto = true;
                self.error(Diagnostic::error(Span::default(), why.message));
            }
        }
    }

    /// The methods that calls of a route may have. `taken` says which of them go to routes before it.
    pub(super) fn coverage(
        &self,
        method: &MethodMatch,
        destination: Option<ServiceIdx>,
        taken: &dyn Fn(&str, &str) -> bool,
    ) -> Coverage {
        let mut methods = self.schema.matching(method);
        methods.retain(|m| !taken(&m.service, &m.name));
        let named = match method {
            MethodMatch::Any => "every method".to_owned(),
            MethodMatch::Service(service) => format!("{service}/*"),
            MethodMatch::Method(service, method) => format!("{service}/{method}"),
        };
        let unary = destination.and_then(|d| self.unary.get(usize::from(d.0)));
        let is_unary = match unary {
            Some(Unary::All) => true,
            Some(Unary::Methods(names)) => names.contains(&named),
            _ => false,
        };
        let near = match method {
            MethodMatch::Any => None,
            MethodMatch::Service(service) => {
                let known: Vec<String> = self
                    .schema
                    .paths()
                    .filter_map(|p| p.split_once('/').map(|(s, _)| s.to_owned()))
                    .collect();
                nearest(service, known.iter().map(String::as_str)).map(str::to_owned)
            }
            MethodMatch::Method(..) => {
                let known: Vec<String> = self.schema.paths().collect();
                nearest(&named, known.iter().map(String::as_str)).map(str::to_owned)
            }
        };
        let is_exact = matches!(method, MethodMatch::Method(..)) && methods.len() == 1;
        Coverage { methods, named, near, is_unary, is_exact }
    }

    /// The types of a link's arguments, if one of its parameters is any message.
    fn given(&mut self, written: &ast::Link, link: &Link, coverage: &Coverage) -> Option<Vec<Ty>> {
        let is_any = |p: &hir::Param| *p.ty.bare() == Ty::AnyMessage;
        let Some((element, is_std)) = self.written.get(&link.element.name) else { return Some(Vec::new()) };
        if !link.element.params.iter().any(is_any) {
            return Some(Vec::new());
        }
        // For its defaults; what is wrong with it is told when the types are known.
        let mut later = Vec::new();
        let checker = Checker::new(&self.names, &mut later, Context::Constant)
            .with_types(&self.schema.pool)
            .covering(Some(coverage));
        let element = checker.element(element, *is_std);
        let (args, _) = self.link_parts(written, &element, Some(coverage), &Cell::new(true))?;
        Some(args.into_iter().map(|arg| arg.ty).collect())
    }

    /// The links of a chain as they are for the methods it covers; None if one of them is wrong.
    pub(super) fn covering(&mut self, links: &[Link], coverage: &Coverage) -> Option<Vec<Link>> {
        if self.failed_proto {
            return None;
        }
        let mut out = Vec::new();
        let mut is_right = true;
        for link in links {
            let Some(written) = link.written.clone() else {
                out.push(link.clone());
                continue;
            };
            let before = self.errors.len();
            let mut link = link.clone();
            let Some(given) = self.given(&written, &link, coverage) else {
                is_right = false;
                continue;
            };
            if let Some((element, is_std)) = self.written.get(&link.element.name) {
                let types = given.iter().map(Ty::to_string).collect();
                let key = (link.element.name.clone(), types, coverage.key());
                link.element = match self.covered.get(&key) {
                    Some(known) => known.clone(),
                    None => {
                        let checker = Checker::new(&self.names, &mut self.errors, Context::Constant)
                            .with_types(&self.schema.pool)
                            .covering(Some(coverage))
                            .given(&given);
                        let checked = Rc::new(checker.element(element, *is_std));
                        self.covered.insert(key, checked.clone());
                        checked
                    }
                };
            }
            let uses = Cell::new(true);
            let parts = self.link_parts(&written, &link.element.clone(), Some(coverage), &uses);
            for error in self.errors.iter_mut().skip(before) {
                if error.span.file != link.span.file
                    || error.span.start < link.span.start
                    || error.span.end > link.span.end
                {
                    error.related.push((link.span, format!("in the chain of {}", coverage.named)));
                }
            }
            match parts {
                Some((args, when)) if self.errors.len() == before && !link.element.broken => {
                    (link.args, link.when) = (args, when);
                    out.push(link);
                }
                _ => is_right = false,
            }
        }
        is_right.then_some(out)
    }
}
