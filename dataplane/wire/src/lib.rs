//! HTTP/2 (RFC 9113), HPACK (RFC 7541), gRPC framing for both roles, and the protobuf wire format, without I/O.
//!
//! Invariant: no clock, no socket, no unsafe; input of any shape ends in an event or a typed error.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::cast_possible_truncation, reason = "tests know their numbers"))]

extern crate alloc;

pub mod grpc;
pub mod h2;
mod headers;
pub mod hpack;
pub mod proto;
mod time;

pub use headers::{Field, Headers, Token, decimal};
pub use time::Instant;
