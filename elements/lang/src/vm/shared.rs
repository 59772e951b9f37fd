//! What stands beside the instructions: constants and tables that all entries of a chain share, and the sites
//! that instructions name.
#![allow(missing_docs, reason = "fields are documented where their name does not say it all")]

use std::sync::{Arc, OnceLock};

use super::code::{CellSite, Fmt, MapSite, Op, Reg};
use super::maglev::Table;
use super::message::Reading;
use super::pattern::Pattern;
use super::rewrite::{Target, Write};

/// What a `log` writes.
#[derive(Clone, Debug)]
pub struct LogSite {
    pub level: abi::Level,
    pub element: u16,
    pub fields: Vec<LogField>,
}

/// One value of a `log`.
#[derive(Clone, Debug)]
pub struct LogField {
    pub name: String,
    pub reg: Reg,
    /// `reg` is a `T?`.
    pub optional: bool,
    pub fmt: Fmt,
}

/// Where a `reject` stands.
#[derive(Clone, Debug)]
pub struct RejectSite {
    pub element: u16,
    pub line: u32,
    /// None: as the status says.
    pub flag: Option<abi::Flag>,
    /// What a dry run says.
    pub text: String,
}

/// Where a suspended handler goes on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Segment {
    pub pc: u32,
    /// Registers below this one are alive.
    pub live: u16,
    pub element: u16,
}

/// The code of one entry.
#[derive(Clone, Debug, Default)]
pub struct Code {
    pub ops: Vec<Op>,
    pub segments: Vec<Segment>,
    /// Registers it uses.
    pub regs: u16,
    /// It touches texts or lists.
    pub scratch: bool,
}

/// A service as texts see it.
#[derive(Clone, Debug)]
pub struct ServiceText {
    pub name: String,
    pub endpoints: Vec<EndpointText>,
    /// Of `maglev`, if a chain of the program chooses by it and there is a choice.
    pub maglev: OnceLock<Table>,
}

/// An endpoint as texts see it.
#[derive(Clone, Debug)]
pub struct EndpointText {
    pub addr: String,
    pub zone: String,
    pub labels: Vec<(String, String)>,
}

/// What all entries of a chain share.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    pub consts: Vec<u64>,
    /// Every constant text.
    pub texts: Vec<Box<str>>,
    /// Some constant text holds what bytes that are no UTF-8 read as.
    pub has_replaced: bool,
    /// The items of every constant list.
    pub lists: Vec<Box<[u64]>>,
    /// Weights of `weighted`, summed up.
    pub tables: Vec<Vec<u64>>,
    pub cells: Vec<CellSite>,
    pub maps: Vec<MapSite>,
    /// What `matches` looks for.
    pub patterns: Vec<Pattern>,
    pub rejects: Vec<RejectSite>,
    pub logs: Vec<LogSite>,
    pub flags: Vec<abi::Flag>,
    /// The program's services: one list for all its chains.
    pub services: Arc<[ServiceText]>,
    /// How messages are read.
    pub readings: Vec<Reading>,
    /// How messages are written.
    pub writes: Vec<Write>,
    /// Fields of messages that are made: of a map two each, its keys and its values.
    pub fields: Vec<Target>,
    /// Enumerations of the protos: their numbers and names.
    pub enums: Vec<Vec<(u64, String)>>,
    /// Word 0 of the call says how many bytes of scratch stay.
    pub keeps: bool,
}

impl Shared {
    /// The constant text at a place; empty past the end.
    #[inline]
    pub fn text(&self, at: usize) -> &str {
        // Rather than `get`: its `None` costs a test more.
        if at < self.texts.len() { &self.texts[at] } else { "" }
    }

    /// The constant list at a place; empty past the end.
    #[inline]
    pub fn list(&self, at: usize) -> &[u64] {
        if at < self.lists.len() { &self.lists[at] } else { &[] }
    }
}
