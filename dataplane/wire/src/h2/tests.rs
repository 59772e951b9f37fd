//! Tests of the connection: a client and a server in memory.

mod pair;
mod unary;
