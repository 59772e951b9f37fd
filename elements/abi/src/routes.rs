//! The flattened rule table, and finding a call's line of it without looking at every line.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::ops::Deref;

use crate::{MethodMatch, Program, Route, ServiceIdx};

/// Lines of the rule table in order: the first that matches a call serves it. Reads as a slice.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    lines: Vec<Route>,
    by_destination: BTreeMap<Option<ServiceIdx>, Destination>,
}

/// The lines of one destination (or of any), by what they say of the method. Places are in order.
#[derive(Clone, Debug, Default)]
struct Destination {
    any: Vec<u32>,
    services: BTreeMap<String, ServiceLines>,
}

#[derive(Clone, Debug, Default)]
struct ServiceLines {
    any: Vec<u32>,
    methods: BTreeMap<String, Vec<u32>>,
}

impl Routes {
    /// A table of these lines.
    pub fn new(lines: Vec<Route>) -> Self {
        let mut by_destination: BTreeMap<Option<ServiceIdx>, Destination> = BTreeMap::new();
        for (at, line) in (0_u32..).zip(&lines) {
            let destination = by_destination.entry(line.destination).or_default();
            let places = match &line.method {
                MethodMatch::Any => &mut destination.any,
                MethodMatch::Service(service) => {
                    &mut destination.services.entry(service.clone()).or_default().any
                }
                MethodMatch::Method(service, method) => destination
                    .services
                    .entry(service.clone())
                    .or_default()
                    .methods
                    .entry(method.clone())
                    .or_default(),
            };
            places.push(at);
        }
        Self { lines, by_destination }
    }

    /// The line of a call: the first that matches. `service` and `method` are the halves of `:path`.
    pub fn find(
        &self,
        source: Option<ServiceIdx>,
        destination: ServiceIdx,
        service: &str,
        method: &str,
    ) -> Option<&Route> {
        let calls = |at: &&u32| {
            self.lines.get(**at as usize).is_some_and(|line| line.source.is_none() || line.source == source)
        };
        let mut first: Option<u32> = None;
        let mut consider = |places: &[u32]| {
            if let Some(at) = places.iter().find(calls) {
                first = Some(first.map_or(*at, |first| first.min(*at)));
            }
        };
        for table in [Some(destination), None].iter().filter_map(|d| self.by_destination.get(d)) {
            // Health checks and reflection match only lines that name them.
            if !Program::is_reserved(service) {
                consider(&table.any);
            }
            if let Some(lines) = table.services.get(service) {
                consider(&lines.any);
                consider(lines.methods.get(method).map_or(&[], |places| places));
            }
        }
        first.and_then(|at| self.lines.get(at as usize))
    }
}

impl Deref for Routes {
    type Target = [Route];

    fn deref(&self) -> &[Route] {
        &self.lines
    }
}

impl<'a> IntoIterator for &'a Routes {
    type Item = &'a Route;
    type IntoIter = core::slice::Iter<'a, Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.lines.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the table means, line by line.
    fn first_match<'r>(
        routes: &'r Routes,
        source: Option<ServiceIdx>,
        to: ServiceIdx,
        service: &str,
        method: &str,
    ) -> Option<&'r Route> {
        routes.iter().find(|line| {
            (line.source.is_none() || line.source == source)
                && line.destination.is_none_or(|d| d == to)
                && match &line.method {
                    MethodMatch::Any => !Program::is_reserved(service),
                    MethodMatch::Service(s) => s == service,
                    MethodMatch::Method(s, m) => s == service && m == method,
                }
        })
    }

    #[test]
    fn the_index_finds_what_reading_every_line_finds() {
        let mut state = 7_u64;
        let mut below = move |n: u64| -> usize {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((state >> 33) % n).unwrap()
        };
        let names = ["a.B", "a.C", "grpc.health.v1.Health"];
        let methods = ["X", "Y", "Check"];
        let name = |at: usize, of: &[&str; 3]| String::from(of[at]);
        for _ in 0..500 {
            let lines = (0..below(12))
                .map(|line| Route {
                    source: [None, Some(ServiceIdx(0)), Some(ServiceIdx(1))][below(3)],
                    destination: [None, Some(ServiceIdx(2)), Some(ServiceIdx(3))][below(3)],
                    method: match below(3) {
                        0 => MethodMatch::Any,
                        1 => MethodMatch::Service(name(below(3), &names)),
                        _ => MethodMatch::Method(name(below(3), &names), name(below(3), &methods)),
                    },
                    chain: 0,
                    line: u32::try_from(line).unwrap(),
                })
                .collect();
            let routes = Routes::new(lines);
            for _ in 0..40 {
                let source = [None, Some(ServiceIdx(0)), Some(ServiceIdx(1))][below(3)];
                let to = ServiceIdx(u16::try_from(2 + below(3)).unwrap());
                let (service, method) = (name(below(3), &names), name(below(3), &methods));
                let found = routes.find(source, to, &service, &method).map(|r| r.line);
                let meant = first_match(&routes, source, to, &service, &method).map(|r| r.line);
                assert_eq!(found, meant, "{source:?} {to:?} {service}/{method} in {routes:?}");
            }
        }
    }
}
