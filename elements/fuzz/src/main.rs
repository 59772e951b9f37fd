//! `towpath-langfuzz`: seeds until the time is up.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use towpath_langfuzz::compare::{self, Outcome};
use towpath_langfuzz::program;
use towpath_langfuzz::rng::Rng;

/// Random programs of the element language, run by the interpreter and as machine code.
#[derive(Parser)]
struct Args {
    /// How long.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this seed; prints its program.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        println!("{}", program::program(&mut Rng::new(seed)));
        let outcome = compare::seed(seed);
        println!("{outcome:?}");
        return if matches!(outcome, Outcome::Differs(_)) { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    #[expect(clippy::disallowed_methods, reason = "a tool at a desk, not a data core")]
    let begun = std::time::Instant::now();
    let until = Duration::from_secs_f64(args.minutes * 60.0);
    let (mut agreed, mut refused, mut ops) = (0_u64, 0_u64, 0_usize);
    let mut seed = args.from;
    while begun.elapsed() < until {
        match compare::seed(seed) {
            Outcome::Agreed(n) => {
                agreed += 1;
                ops += n;
            }
            Outcome::Refused(_) => refused += 1,
            Outcome::Differs(how) => {
                println!("seed {seed} differs: {how}\n\n    cargo run -p towpath-langfuzz -- --seed {seed}");
                return ExitCode::FAILURE;
            }
        }
        seed += 1;
    }
    println!(
        "seeds {}..{seed}: {agreed} programs agree ({ops} instructions), {refused} were refused by the compiler",
        args.from
    );
    ExitCode::SUCCESS
}
