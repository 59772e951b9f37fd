//! The `pktgen` binary: `pktgen call` and `pktgen echo` over the kernel's sockets, `pktgen packet` over raw ports.
//!
//! Diagnostics, the ready line and the live line go to standard error; summaries, tables and JSON to
//! standard output. Exit codes: 0, 1 when nothing worked, 2 for a wrong command line.

mod call;
mod cli;
mod echo;
mod packet;
mod port;
mod units;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        cli::Command::Call(args) => call::run(&args),
        cli::Command::Echo(args) => echo::run(&args),
        cli::Command::Packet(args) => packet::run(&args),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("pktgen: {message}");
        ExitCode::FAILURE
    })
}
