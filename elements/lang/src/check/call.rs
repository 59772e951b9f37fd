//! Fields: of `call`, its parts, endpoints, services, rates.

use abi::{Num, Text};

use crate::ast::{HandlerKind, Ident};
use crate::diag::Diagnostic;
use crate::elsewhere;
use crate::hir::{EndpointField, Func, HExpr, HKind};
use crate::source::Span;
use crate::ty::{HeaderSide, Ty};

use super::{Checker, Context};

/// The fields of `call`.
pub(super) const FIELDS: [&str; 20] = [
    "id",
    "source",
    "destination",
    "service",
    "method",
    "authority",
    "peer",
    "attempt",
    "deadline",
    "endpoint",
    "size",
    "metadata",
    "payload",
    "claims",
    "status",
    "message",
    "flag",
    "latency",
    "trailers",
    "request",
];

const RESPONSE_FIELDS: [&str; 6] = ["status", "message", "flag", "latency", "trailers", "request"];

/// What is known when the last message has come.
const OUTCOME_FIELDS: [&str; 4] = ["status", "message", "flag", "trailers"];

impl Checker<'_> {
    pub(super) fn field(&mut self, of: HExpr, name: &Ident, span: Span) -> HExpr {
        let is_nothing = of.ty.is_nothing() && matches!(of.kind, HKind::Payload(_));
        if is_nothing || matches!(of.ty.bare(), Ty::Message(_) | Ty::AnyMessage | Ty::Payload) {
            return self.payload_field(of, name, false, span);
        }
        let node = |kind, ty| HExpr { kind, ty, span };
        let part = |side| HExpr { kind: HKind::Place, ty: Ty::Headers(side), span };
        match (&of.ty, name.text.as_str()) {
            (Ty::Error, _) => of,
            (Ty::Call, field) => self.call_field(field, name, span),
            (Ty::Peer, "ip") => node(HKind::PeerIp, Ty::Str.opt()),
            (Ty::Peer, "identity") => node(HKind::Text(Text::PeerIdentity), Ty::Str),
            (Ty::Peer, _) => self.no_field(&of.ty, name, &["ip", "identity"]),
            (Ty::CallRequest, "metadata") => part(HeaderSide::KeptRequest),
            (Ty::CallRequest, "payload") => self.payload(true, span),
            (Ty::CallRequest, _) => self.no_field(&of.ty, name, &["metadata", "payload"]),
            (Ty::Service, "endpoints") => {
                if matches!(of.kind, HKind::Destination) {
                    node(HKind::Endpoints, Ty::List(Box::new(Ty::Endpoint)))
                } else {
                    self.wrong(
                        Diagnostic::unsupported(span, "endpoints of another service")
                            .help("`call.destination.endpoints` are those of the call's destination"),
                    )
                }
            }
            (Ty::Service, _) => self.no_field(&of.ty, name, &["endpoints"]),
            (Ty::Endpoint, field) => {
                let (field, ty) = match field {
                    "healthy" => (EndpointField::Healthy, Ty::Bool),
                    "inflight" => (EndpointField::Inflight, Ty::Uint),
                    "latency" => (EndpointField::Latency, Ty::Duration),
                    "weight" => (EndpointField::Weight, Ty::Uint),
                    "zone" => (EndpointField::Zone, Ty::Str),
                    "labels" => {
                        return self.wrong(
                            Diagnostic::error(name.span, "labels are read one by one")
                                .help("`e.labels[\"name\"]`"),
                        );
                    }
                    "report" => {
                        return self.wrong(
                            Diagnostic::error(name.span, "what an endpoint reports is read by name")
                                .help("`e.report[\"name\"]`"),
                        );
                    }
                    _ => {
                        let known = ["healthy", "inflight", "latency", "weight", "zone", "labels", "report"];
                        return self.no_field(&of.ty, name, &known);
                    }
                };
                node(HKind::EndpointField(field, Box::new(of)), ty)
            }
            (Ty::Cell(cell), _) => {
                let cell = *cell;
                self.cell_method(of, cell, name, &[], span)
            }
            (Ty::Rate, "per_second") => node(HKind::Call(Func::PerSecond, vec![of]), Ty::Float),
            (Ty::Opt(_), _) => {
                let error =
                    Diagnostic::error(of.span, format!("`.{}` needs a value, this may be absent", name.text))
                        .label(format!("this is {}", of.ty))
                        .help("use `let … else` or `match`");
                self.wrong(error)
            }
            (ty, _) => {
                let ty = ty.clone();
                self.no_field(&ty, name, &[])
            }
        }
    }

    fn no_field(&mut self, ty: &Ty, name: &Ident, known: &[&str]) -> HExpr {
        let error = Diagnostic::error(name.span, format!("{ty} has no field `{}`", name.text))
            .nearest(&name.text, known.iter().copied());
        let error =
            if known.is_empty() { error } else { error.label(format!("expected {}", known.join(", "))) };
        self.wrong(error)
    }

    fn call_field(&mut self, field: &str, name: &Ident, span: Span) -> HExpr {
        let node = |kind, ty| HExpr { kind, ty, span };
        if RESPONSE_FIELDS.contains(&field) && !self.is_response() {
            let error = Diagnostic::error(name.span, format!("`call.{field}` is known in `response` only"))
                .label("there is no answer yet");
            return self.wrong(error);
        }
        let is_message = self.context == Context::Handler(HandlerKind::ResponseMessage);
        if is_message && OUTCOME_FIELDS.contains(&field) {
            let error = Diagnostic::error(name.span, format!("`call.{field}` is known in `response` only"))
                .label("there may be more messages");
            return self.wrong(error);
        }
        match field {
            "id" => node(HKind::Num(Num::Id), Ty::Uint),
            "attempt" => node(HKind::Num(Num::Attempt), Ty::Uint),
            "latency" => node(HKind::Num(Num::LatencyNs), Ty::Duration),
            "status" => node(HKind::Num(Num::Status), Ty::Status),
            "service" => node(HKind::Text(Text::Service), Ty::Str),
            "method" => node(HKind::Text(Text::Method), Ty::Str),
            "authority" => node(HKind::Text(Text::Authority), Ty::Str),
            "message" => node(HKind::Text(Text::Message), Ty::Str),
            "flag" => node(HKind::Flag, Ty::Str),
            "source" => node(HKind::Source, Ty::Service.opt()),
            "destination" => node(HKind::Destination, Ty::Service),
            "endpoint" => node(HKind::Endpoint, Ty::Endpoint.opt()),
            "deadline" => node(HKind::Deadline, Ty::Instant.opt()),
            "peer" => node(HKind::Place, Ty::Peer),
            "request" => node(HKind::Place, Ty::CallRequest),
            "metadata" => {
                let side = self.own_side();
                node(HKind::Place, Ty::Headers(side))
            }
            "trailers" => node(HKind::Place, Ty::Headers(HeaderSide::Trailers)),
            "size" => self.size(span),
            "payload" => self.payload(false, span),
            "claims" => self.wrong(Diagnostic::unsupported(name.span, &format!("`call.{field}`"))),
            field => match elsewhere::field(field) {
                Some(hint) => {
                    let error = Diagnostic::error(name.span, format!("the call has no field `{field}`"));
                    self.wrong(error.help(hint))
                }
                None => self.no_field(&Ty::Call, name, &FIELDS),
            },
        }
    }
}
