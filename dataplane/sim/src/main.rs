//! Runs seeds: `towpath-sim [--scenario S] [--seed N [--trace] | --from N --seeds N] [--keep-going]`.

use std::io::Write;
use std::process::ExitCode;

use sim::{Scenario, run};

struct Options {
    scenarios: Vec<Scenario>,
    from: u64,
    seeds: u64,
    traces: bool,
    keeps_going: bool,
}

fn options() -> Result<Options, String> {
    let mut out =
        Options { scenarios: Scenario::ALL.to_vec(), from: 0, seeds: 100, traces: false, keeps_going: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text}: expected a number"));
        match arg.as_str() {
            "--scenario" => {
                let name = value()?;
                let known = Scenario::ALL.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ");
                let one = Scenario::from_name(&name).ok_or(format!("no scenario {name} (known: {known})"))?;
                out.scenarios = vec![one];
            }
            "--seed" => (out.from, out.seeds) = (number(value()?)?, 1),
            "--from" => out.from = number(value()?)?,
            "--seeds" => out.seeds = number(value()?)?,
            "--trace" => out.traces = true,
            "--keep-going" => out.keeps_going = true,
            _ => return Err(format!("unknown option {arg}")),
        }
    }
    Ok(out)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}\n[--scenario S] [--seed N [--trace] | --from N --seeds N] [--keep-going]");
            return ExitCode::FAILURE;
        }
    };
    // Whoever reads may stop early.
    let mut out = std::io::stdout().lock();
    let mut failures = 0_u64;
    for scenario in &options.scenarios {
        let (mut runs, mut turns, mut events, mut items) = (0_u64, 0, 0, 0);
        for seed in options.from..options.from.saturating_add(options.seeds) {
            match run(*scenario, seed, options.traces) {
                Ok(outcome) => {
                    runs += 1;
                    turns += outcome.turns;
                    events += outcome.events;
                    items += outcome.items;
                    if options.seeds == 1 {
                        let _ = writeln!(out, "hash {:016x}", outcome.hash);
                    }
                }
                Err(failure) => {
                    failures += 1;
                    let _ = writeln!(out, "{failure}");
                    if !options.keeps_going {
                        return ExitCode::FAILURE;
                    }
                }
            }
        }
        let _ = writeln!(
            out,
            "{}: {runs} runs clean, {items} items, {turns} turns, {events} events",
            scenario.name()
        );
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
