//! Reads values of a spanned TOML tree; whatever does not fit is noted at its place, and reading goes on.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::failure::Problem;
use crate::value::nearest;

/// Collects what is wrong.
#[derive(Default)]
pub(super) struct Reader {
    /// So far.
    pub(super) problems: Vec<Problem>,
}

impl Reader {
    /// Something is wrong here.
    pub(super) fn problem(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) {
        self.problems.push(Problem { message: message.into(), span, label: label.into(), help: None });
    }

    /// Calls `read` for each known key of a table.
    pub(super) fn each<'t, 'i>(
        &mut self,
        table: &'t DeTable<'i>,
        title: &str,
        known: &[&str],
        mut read: impl FnMut(&mut Self, &str, &'t Spanned<DeValue<'i>>),
    ) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                read(self, name, value);
                continue;
            }
            self.problems.push(Problem {
                message: format!("unknown key `{name}` in {title}"),
                span: key.span(),
                label: format!("expected one of: {}", known.join(", ")),
                help: nearest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?")),
            });
        }
    }

    /// The same for a value that must be a table.
    pub(super) fn table<'t, 'i>(
        &mut self,
        value: &'t Spanned<DeValue<'i>>,
        title: &str,
        known: &[&str],
        read: impl FnMut(&mut Self, &str, &'t Spanned<DeValue<'i>>),
    ) {
        match value.get_ref() {
            DeValue::Table(table) => self.each(table, title, known, read),
            other => {
                let found = format!("found {}", other.type_str());
                self.problem(value.span(), format!("{title} is a table; {found}"), "expected a table");
            }
        }
    }

    fn expected<T>(&mut self, value: &Spanned<DeValue<'_>>, what: &str) -> Option<T> {
        let found = value.get_ref().type_str();
        self.problem(value.span(), format!("expected {what}, found {found}"), format!("expected {what}"));
        None
    }

    /// A text.
    pub(super) fn string<'t>(&mut self, value: &'t Spanned<DeValue<'_>>) -> Option<&'t str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            _ => self.expected(value, "a text in quotes"),
        }
    }

    /// A list of texts.
    pub(super) fn strings(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
        match value.get_ref() {
            DeValue::Array(list) => {
                Some(list.iter().filter_map(|one| self.string(one).map(str::to_owned)).collect())
            }
            _ => self.expected(value, "a list of texts"),
        }
    }

    /// A truth value.
    pub(super) fn boolean(&mut self, value: &Spanned<DeValue<'_>>) -> Option<bool> {
        match value.get_ref() {
            DeValue::Boolean(is) => Some(*is),
            _ => self.expected(value, "true or false"),
        }
    }

    /// A number that is not negative.
    pub(super) fn integer(&mut self, value: &Spanned<DeValue<'_>>) -> Option<u64> {
        match value.get_ref() {
            DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Some(number),
                Err(_) => self.expected(value, "a whole number that is not negative"),
            },
            _ => self.expected(value, "a whole number"),
        }
    }

    /// A text that `parse` understands.
    pub(super) fn parsed<T>(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.string(value)?) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                self.problem(value.span(), why, "not understood");
                None
            }
        }
    }

    /// One of these words.
    pub(super) fn one_of<T: Copy>(&mut self, value: &Spanned<DeValue<'_>>, known: &[(&str, T)]) -> Option<T> {
        let text = self.string(value)?;
        if let Some((_, found)) = known.iter().find(|(word, _)| *word == text) {
            return Some(*found);
        }
        let words: Vec<String> = known.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.problems.push(Problem {
            message: format!("unknown value \"{text}\""),
            span: value.span(),
            label: format!("expected one of: {}", words.join(", ")),
            help: nearest(text, known.iter().map(|(w, _)| *w))
                .map(|near| format!("did you mean \"{near}\"?")),
        });
        None
    }
}
