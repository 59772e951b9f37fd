//! Tests of the connection: a client and a server in memory, and hostile scripts.

mod hostile;
mod pair;
mod unary;
