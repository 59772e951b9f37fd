//! The `towpath` binary: command line, settings, pinned shards, control thread, admin, metrics, demo.
//!
//! `main` parses the command line and prints what a command ends with; everything else is a module by what
//! it does. The datapath is not here: a shard's thread (`seat`) turns a `shard::Shard` over `io::Sockets`.
#![forbid(unsafe_code)]

mod admin;
mod app;
mod backend;
mod capture;
mod cli;
mod clock;
mod config;
mod demo;
mod doctor;
mod failure;
mod faults;
mod figures;
mod format;
mod jobs;
mod log;
mod machine;
mod metrics;
mod node;
mod notify;
mod privileges;
mod reload;
mod run;
mod seat;
mod status;
mod table;
mod value;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use cli::{Ask, Cli, Command};
use failure::{Failure, Outcome};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::demo(&args),
        Command::Doctor(args) => {
            doctor::doctor(args.json);
            Ok(())
        }
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check(&args),
        Command::Elements(args) => app::elements(&args),
        Command::Fmt(args) => format::fmt(&args),
        Command::Explain(args) => app::explain(&args),
        Command::Top(_) => later("top", "; see `towpath status`"),
        Command::Trace(_) => later("trace", "; the access log names the element and line that decided"),
        Command::Capture(args) => capture::capture(&args),
        Command::Status(args) => ask(&args.ask, "GET", if args.json { "/status?json" } else { "/status" }),
        Command::Reload(args) => ask(&args, "POST", "/reload"),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn later(command: &str, instead: &str) -> Outcome<()> {
    Err(Failure::line(format!("{command} is not supported yet{instead}")))
}

fn check(args: &cli::Check) -> Outcome<()> {
    let config = app::config(args.config.as_deref())?;
    let app = app::App::new(&args.app, &args.set, &config);
    app::check(&app, args.config.is_some().then_some(&config))
}

/// Asks the running node and prints what it says.
fn ask(args: &Ask, method: &str, path: &str) -> Outcome<()> {
    let answer = admin::ask(args.admin.as_deref(), method, path).map_err(Failure::line)?;
    match answer.code {
        200 => {
            failure::print(&answer.body);
            Ok(())
        }
        _ => Err(Failure::drawn(answer.body)),
    }
}
