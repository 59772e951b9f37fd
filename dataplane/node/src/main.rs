//! The `towpath` binary: command line, settings, pinned shards, control thread, admin, metrics, demo.
//!
//! `main` parses the command line and prints what a command ends with; everything else is a module by what
//! it does. The datapath is not here: a shard thread ([`thread`]) turns a `shard::Shard` over `io::Sockets`.
#![forbid(unsafe_code)]

mod admin;
mod cli;
mod config;
mod failure;
mod figures;
mod log;
mod metrics;
mod value;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Outcome;

fn main() -> ExitCode {
    let outcome: Outcome<()> = match Cli::parse().command {
        Command::Demo(_)
        | Command::Run(_)
        | Command::Check(_)
        | Command::Doctor
        | Command::Status(_)
        | Command::Reload(_) => Ok(()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::FAILURE
        }
    }
}
