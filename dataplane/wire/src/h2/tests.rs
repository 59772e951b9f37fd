//! Tests of the connection: a client and a server in memory, and hostile scripts.

mod flow;
mod honest;
mod hostile;
mod lifecycle;
mod memo;
mod memory;
mod pair;
mod random;
mod unary;
