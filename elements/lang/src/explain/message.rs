//! `explain --message`: the request message of an imagined call, from JSON to bytes.

use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};

use super::{Imagined, Report, call};
use crate::suggest::nearest;

/// Fields named in an error.
const FIELDS_MAX: usize = 12;

/// What an application's `proto` lines say.
#[derive(Clone, Debug, Default)]
pub struct Protocols(pub(crate) DescriptorPool);

impl Protocols {
    /// Encodes the request message of a call, which `json` gives as protobuf's JSON mapping has it.
    ///
    /// # Errors
    /// One line: what was expected.
    pub fn encode(&self, report: &Report<'_>, of: &Imagined, json: &str) -> Result<Vec<u8>, String> {
        let method = self.method(report, of)?;
        let path = format!("{}/{}", of.service, of.method);
        if method.is_client_streaming() {
            return Err(format!("{path} streams its requests: --message is not supported yet for it"));
        }
        let kind = method.input();
        let name = kind.full_name().to_owned();
        let wrong = |what: String| format!("--message is no {name}: {what}; expected {}", shape(&kind));
        let mut reader = serde_json::Deserializer::from_str(json);
        let message =
            DynamicMessage::deserialize(kind.clone(), &mut reader).map_err(|e| wrong(e.to_string()))?;
        reader.end().map_err(|e| wrong(e.to_string()))?;
        Ok(message.encode_to_vec())
    }

    fn method(&self, report: &Report<'_>, of: &Imagined) -> Result<MethodDescriptor, String> {
        let path = format!("{}/{}", of.service, of.method);
        let file = &report.program.file;
        let services: Vec<_> = self.0.services().collect();
        if services.is_empty() {
            let rule = call::serving(report, of)
                .map(|r| format!(", which `{}` ({}:{}) serves", r.text, r.file, r.line));
            return Err(format!(
                "{file} has no `proto` line that says what {path} takes{}; expected one, as in proto \"{}.proto\"",
                rule.unwrap_or_default(),
                of.destination
            ));
        }
        let all = || services.iter().flat_map(|s| s.methods().collect::<Vec<_>>());
        let path_of = |m: &MethodDescriptor| format!("{}/{}", m.parent_service().full_name(), m.name());
        all().find(|m| path_of(m) == path).ok_or_else(|| {
            let known: Vec<String> = all().map(|m| path_of(&m)).collect();
            let near = nearest(&path, known.iter().map(String::as_str));
            let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            format!("no proto of {file} knows the method {path}{near}")
        })
    }
}

/// `{ id: string, lines: [shop.Line] }`.
fn shape(kind: &MessageDescriptor) -> String {
    let field = |f: prost_reflect::FieldDescriptor| match (f.is_list(), f.is_map()) {
        (true, _) => format!("{}: [{:?}]", f.json_name(), f.kind()),
        (_, true) => format!("{}: {{…}}", f.json_name()),
        _ => format!("{}: {:?}", f.json_name(), f.kind()),
    };
    let mut fields: Vec<String> = kind.fields().take(FIELDS_MAX).map(field).collect();
    if kind.fields().len() > FIELDS_MAX {
        fields.push("…".to_owned());
    }
    format!("{{ {} }}", fields.join(", "))
}
