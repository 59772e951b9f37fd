//! `towpath capture`: writes what a raw port of the running node receives and sends into a pcapng file.
//!
//! The node copies and counts (`admin::capture`); this follows its stream block by block, so that the file ends
//! with a whole block however the capture ends.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use ::io::tap::pcapng::{Block, first_block};
use ::io::tap::{Filter, SNAPLEN_MAX};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::admin::{self, CaptureRequest};
use crate::cli::Capture;
use crate::failure::{Failure, Outcome, Problem, draw};

/// Runs until the node ends it or a signal does.
///
/// # Errors
/// A filter that cannot be read, what the node said, or a file that cannot be written.
pub(crate) fn capture(args: &Capture) -> Outcome<()> {
    Filter::parse(&args.filter).map_err(|error| {
        let label = format!("expected {}", error.expected);
        let problem = Problem { message: "not a filter".into(), span: error.at..error.at, label, help: None };
        Failure::drawn(draw("--filter", &args.filter, &[problem]))
    })?;
    let request = CaptureRequest {
        port: args.port.clone(),
        filter: args.filter.clone(),
        snaplen: args.snaplen.unwrap_or(SNAPLEN_MAX),
        count: args.count,
        time: args.duration,
    };
    let begun = admin::begin(args.ask.admin.as_deref(), "POST", &request.path()).map_err(Failure::line)?;
    let (stream, first) = begun.map_err(|answer| Failure::drawn(answer.body))?;
    let failed = |e: io::Error| Failure::line(format!("{}: {e}", args.file.display()));
    end_on_signal(&stream).map_err(failed)?;
    let mut to: Box<dyn Write> = match args.file.to_str() {
        Some("-") => Box::new(io::stdout().lock()),
        _ => Box::new(File::create(&args.file).map_err(failed)?),
    };
    let summary = follow(stream, first, &mut to).map_err(failed)?;
    let what = format!("{} frames in {}", summary.frames, args.file.display());
    match summary.missed {
        Some(missed) => {
            eprintln!("towpath: {what}, {missed} missed");
            Ok(())
        }
        None => Err(Failure::line(format!("the node ended before the capture; {what}"))),
    }
}

/// The first signal asks the node for a proper end; a second one ends this process.
fn end_on_signal(stream: &UnixStream) -> io::Result<()> {
    let (stream, mut signals) = (stream.try_clone()?, Signals::new([SIGINT, SIGTERM])?);
    let run = move || {
        for (_, at) in signals.forever().zip(0..) {
            if at > 0 {
                std::process::exit(130);
            }
            // A node that went away has ended it already.
            let _ = stream.shutdown(Shutdown::Write);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(run).map(drop)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Summary {
    frames: u64,
    /// Known if the capture came to its end.
    missed: Option<u64>,
}

/// Copies whole blocks as they come.
fn follow(mut from: impl Read, first: Vec<u8>, to: &mut impl Write) -> io::Result<Summary> {
    let (mut bytes, mut summary) = (first, Summary::default());
    let mut chunk = vec![0; 64 << 10];
    loop {
        let mut whole = 0;
        let invalid = |_| io::Error::new(ErrorKind::InvalidData, "the node sent no pcapng");
        while let Some((block, len)) = first_block(bytes.get(whole..).unwrap_or_default()).map_err(invalid)? {
            whole += len;
            match block {
                Block::Frame => summary.frames += 1,
                Block::End { missed } => summary.missed = Some(missed),
                Block::Other => {}
            }
        }
        if whole > 0 {
            to.write_all(bytes.get(..whole).unwrap_or_default())?;
            to.flush()?;
            bytes.drain(..whole);
        }
        match from.read(&mut chunk) {
            Ok(0) => return Ok(summary),
            Ok(count) => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            // A quiet port: the node has nothing to say for longer than a read waits.
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(summary),
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::io::tap::pcapng::Writer;

    /// Gives its bytes a few at a time.
    struct Trickle(Vec<u8>, usize);

    impl Read for Trickle {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(self.1).min(to.len());
            to[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    #[test]
    fn a_capture_cut_short_is_a_file_of_whole_blocks() {
        let mut bytes = Vec::new();
        let writer = Writer::begin(&mut bytes, "fabric", "", 64, 0);
        let begun = bytes.len();
        writer.end(&mut bytes, 1, 5, 2);
        for cut in 0..=bytes.len() {
            let mut file = Vec::new();
            let summary = follow(Trickle(bytes[..cut].to_vec(), 7), Vec::new(), &mut file).unwrap();
            let expected = if cut == bytes.len() { Some(2) } else { None };
            assert_eq!((summary.missed, summary.frames), (expected, 0));
            assert!(bytes.starts_with(&file) && (file.len() >= begun) == (cut >= begun));
        }
        assert!(follow(&b"HTTP/1.1 200 OK"[..], Vec::new(), &mut Vec::new()).is_err());
    }
}
