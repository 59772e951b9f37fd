//! `pktgen packet`: frames by a raw port, on this thread.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use io::Poll;
use io::xdp::{BoundQueue, Port, PortConfig};
use pktgen::packet::{Forward, Forwarded, Generate, Generated, Plan, Stage, Template};
use pktgen::summary::grouped;
use serde_json::{Value, json};
use shard::Device;

use crate::call::stop_flag;
use crate::cli::{PacketArgs, RawArg};

const SEND_FOR: Duration = Duration::from_secs(10);
const EVERYBODY: [u8; 6] = [0xff; 6];

pub(crate) fn run(args: &PacketArgs) -> Result<ExitCode, String> {
    if args.port.len() > 2 {
        return Err("--port at most twice: where frames leave, and where they come back".to_owned());
    }
    if args.forward && args.port.len() > 1 {
        return Err("--forward returns frames by the port they came by: give one --port".to_owned());
    }
    match args.backend {
        RawArg::Xdp => on_xdp(args),
        RawArg::Dpdk => on_dpdk(args),
    }
}

fn on_xdp(args: &PacketArgs) -> Result<ExitCode, String> {
    pin(args)?;
    let mut queues = Vec::new();
    for interface in &args.port {
        // A returner swaps ethernet addresses only: its frames come back to the address they went to.
        let addresses = [args.to_ip.into()];
        let config =
            PortConfig { poll: Poll::Busy, mode: args.mode.into(), ..PortConfig::new(interface, &addresses) };
        let port = Port::open(&config).map_err(|error| error.to_string())?;
        eprintln!("pktgen packet: {}", port.description());
        queues.extend(port.into_queues().into_iter().map(BoundQueue::start));
    }
    drive(args, queues)
}

#[cfg(not(feature = "dpdk"))]
fn on_dpdk(_: &PacketArgs) -> Result<ExitCode, String> {
    Err("this build has no DPDK: apt-get install dpdk libdpdk-dev libclang-dev pkg-config, then cargo build \
         --features dpdk; or use --backend xdp"
        .to_owned())
}

#[cfg(feature = "dpdk")]
fn on_dpdk(args: &PacketArgs) -> Result<ExitCode, String> {
    use io::dpdk::{Config, Memory, Port, start};
    let devices: Vec<&str> = args.port.iter().map(String::as_str).collect();
    start(&devices, Memory::Auto).map_err(|error| error.to_string())?;
    pin(args)?;
    // Frames for others too: a generator sees what comes back, whomever it is for.
    let config = Config { poll: Poll::Busy, promiscuous: true, ..Config::default() };
    let (mut ports, mut queues) = (Vec::new(), Vec::new());
    for device in devices {
        let mut port = Port::open(device, &config).map_err(|error| error.to_string())?;
        let seat = port.seat(0).ok_or_else(|| format!("{device}: it has no queue"))?;
        queues.push(seat.open().map_err(|error| error.to_string())?);
        eprintln!("pktgen packet: {}", port.line());
        ports.push(port);
    }
    drive(args, queues)
}

fn pin(args: &PacketArgs) -> Result<(), String> {
    match args.core {
        Some(core) if !io::pin(core) => {
            Err(format!("core {core} is not ours to use; the affinity mask says which are"))
        }
        _ => Ok(()),
    }
}

/// Sends or returns frames by the first queue; the second, if there is one, is where they come back.
fn drive<D: Device>(args: &PacketArgs, mut queues: Vec<D>) -> Result<ExitCode, String> {
    let stop = stop_flag()?;
    for queue in &mut queues {
        wait_for_link(queue, args.wait, &stop)?;
    }
    let mut queues = queues.into_iter();
    let Some(first) = queues.next() else { return Err("no port".to_owned()) };
    let (text, figures, worked) = if args.forward {
        let done = forward(Forward::new(first), args.run_for, &stop);
        (forwarded_text(&done), forwarded_json(&done), done.0.rx > 0)
    } else {
        let done = generate(args, first, queues.next(), &stop);
        (generated_text(&done), generated_json(&done), done.rx > 0)
    };
    print(&text, &figures, args.json.as_deref())?;
    Ok(if worked { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wait_for_link(queue: &mut impl Device, wait: Duration, stop: &AtomicBool) -> Result<(), String> {
    let end = queue.now().after(wait);
    while !queue.link_up(queue.now()) {
        if queue.now() > end || stop.load(Ordering::Relaxed) {
            return Err("the link is down: is the peer there? (--wait T waits longer)".to_owned());
        }
        queue.wait(Some(queue.now().after(Duration::from_millis(5))));
    }
    Ok(())
}

/// Returns frames until the time is over or the user ends it; for how long, too.
fn forward<D: Device>(
    mut forward: Forward<D>,
    run_for: Option<Duration>,
    stop: &AtomicBool,
) -> (Forwarded, u64) {
    /// The clock and the flag are looked at once in so many turns.
    const TURNS: u32 = 256;
    let mut first = None;
    let mut last = forward.device().now();
    let end = run_for.map(|span| last.after(span));
    while !stop.load(Ordering::Relaxed) && end.is_none_or(|end| last < end) {
        let mut busy = false;
        for _ in 0..TURNS {
            busy |= forward.turn();
        }
        last = forward.device().now();
        if busy {
            first = first.or(Some(last));
        }
    }
    let done = forward.done();
    (done, first.map_or(0, |first| last.since_ns(first)))
}

fn generate<D: Device>(args: &PacketArgs, sender: D, receiver: Option<D>, stop: &AtomicBool) -> Generated {
    let (mac, to_mac) = (sender.info().mac, args.to_mac.unwrap_or(EVERYBODY));
    let size_max = sender.info().mtu + 14;
    let size = usize::try_from(args.size).unwrap_or(size_max).min(size_max);
    let template = Template::new(size, (mac, args.from_ip), (to_mac, args.to_ip), args.flows);
    let plan = Plan { template, rate: args.rate, run_for: args.run_for.unwrap_or(SEND_FOR) };
    Generate::new(sender, receiver, plan).run(|| stop.load(Ordering::Relaxed))
}

fn generated_text(done: &Generated) -> String {
    let line = |count: u64, what: &str| format!("{:>16} {what}\n", grouped(count));
    let mut text = line(done.tx, "frames sent");
    text += &line(done.rx, "frames came back");
    text += &line(done.lost(), "lost");
    for (count, what) in [
        (done.foreign, "frames of others received"),
        (done.reordered, "came out of order"),
        (done.tx_full, "turns in which the port took less than it was given"),
    ] {
        if count > 0 {
            text += &line(count, what);
        }
    }
    let rate = |count| done.per_s(count) / 1e6;
    text + &format!(
        "sent {:.3} M frames/s, received {:.3} M frames/s, {} bytes each",
        rate(done.tx),
        rate(done.rx_meanwhile),
        done.size
    )
}

fn generated_json(done: &Generated) -> Value {
    json!({
        "tx_frames": done.tx,
        "rx_frames": done.rx,
        "lost_frames": done.lost(),
        "foreign_frames": done.foreign,
        "reordered_frames": done.reordered,
        "tx_full_turns": done.tx_full,
        "frame_bytes": done.size,
        "elapsed_ns": done.elapsed_ns,
        "tx_frames_per_s": done.per_s(done.tx),
        "rx_frames_per_s": done.per_s(done.rx_meanwhile),
    })
}

fn forwarded_text((done, elapsed_ns): &(Forwarded, u64)) -> String {
    let line = |count: u64, what: &str| format!("{:>16} {what}\n", grouped(count));
    let mut text = line(done.rx, "frames received");
    text += &line(done.tx, "frames returned");
    text += &line(done.flows as u64, "flows");
    for (count, what) in
        [(done.unparsed, "dropped: no TCP or UDP packet"), (done.flows_full, "dropped: too many flows")]
    {
        if count > 0 {
            text += &line(count, what);
        }
    }
    for (stage, ns) in Stage::ALL.iter().zip(done.stage_ns) {
        text += &format!("{ns:>13.1} ns a frame: {}\n", stage.name());
    }
    text + &format!("returned {:.3} M frames/s", per_s(done.tx, *elapsed_ns) / 1e6)
}

fn forwarded_json((done, elapsed_ns): &(Forwarded, u64)) -> Value {
    let stages: serde_json::Map<String, Value> = Stage::ALL
        .iter()
        .zip(done.stage_ns)
        .map(|(stage, ns)| (stage.name().to_owned(), json!(ns)))
        .collect();
    json!({
        "rx_frames": done.rx,
        "tx_frames": done.tx,
        "bursts": done.bursts,
        "flows": done.flows,
        "unparsed_frames": done.unparsed,
        "flows_full_frames": done.flows_full,
        "elapsed_ns": elapsed_ns,
        "tx_frames_per_s": per_s(done.tx, *elapsed_ns),
        "stage_ns_per_frame": stages,
    })
}

fn per_s(count: u64, elapsed_ns: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure")]
    let rate = count as f64 * 1e9 / elapsed_ns.max(1) as f64;
    rate
}

fn print(text: &str, figures: &Value, to: Option<&Path>) -> Result<(), String> {
    match to {
        Some(path) if path == Path::new("-") => println!("{figures:#}"),
        Some(path) => {
            println!("{text}");
            std::fs::write(path, format!("{figures:#}\n"))
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        None => println!("{text}"),
    }
    Ok(())
}
