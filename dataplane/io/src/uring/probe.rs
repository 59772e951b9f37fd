//! What io_uring can do here, tried on a ring of its own.

use core::mem::MaybeUninit;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode};
use rustix::io::Errno;

use super::buffers::{GROUP, RxRing};
use super::ring;
use crate::Feature;

/// How long one trial may take.
const PATIENCE_NS: u32 = 100_000_000;

/// Each feature, or why no ring of the needed kind can be made.
pub(crate) fn probe() -> Result<Vec<Feature>, Errno> {
    let mut ring =
        ring::build(8, 16, false).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let required = |name, since, works| Feature { name, since, required: true, used: true, works };
    let newer = |name, since, used, works| Feature { name, since, required: false, used, works };
    let buffers = RxRing::register(&ring.submitter(), 4, 4096).ok();
    let recv = buffers.is_some() && multishot_recv(&mut ring).unwrap_or(false);
    let accept = multishot_accept(&mut ring).unwrap_or(false);
    let params = ring.params();
    let (bundles, min_wait) = (params.is_feature_recvsend_bundle(), params.is_feature_min_timeout());
    let no_iowait = params.is_feature_no_iowait();
    // The ring lets go of the buffers before they are unmapped.
    drop(ring);
    let has_buffers = buffers.is_some();
    drop(buffers);
    Ok(vec![
        // Both by having made the ring.
        required("SINGLE_ISSUER", "6.0", true),
        required("DEFER_TASKRUN", "6.1", true),
        required("buffer rings", "5.19", has_buffers),
        required("multishot accept", "5.19", accept),
        required("multishot recv", "6.0", recv),
        newer("no SQ array", "6.6", true, ring::build(1, 2, true).is_ok()),
        newer("no iowait", "6.15", true, no_iowait),
        // Tried and left: nothing of these showed in messages per second, CPU time or round trip here.
        newer("recv bundles", "6.10", false, bundles),
        newer("incremental buffers", "6.12", false, super::buffers::incremental_works()),
        newer("minimum wait", "6.12", false, min_wait),
    ])
}

/// One byte must arrive in a buffer of the ring's choice, and the receive must stay armed.
fn multishot_recv(ring: &mut IoUring) -> std::io::Result<bool> {
    let (ours, mut theirs) = UnixStream::pair()?;
    theirs.write_all(b"x")?;
    let entry = opcode::RecvMulti::new(Fd(ours.as_raw_fd()), GROUP).build();
    let done = one(ring, &entry)?;
    Ok(done.is_some_and(|done| {
        done.result() == 1 && cqueue::more(done.flags()) && cqueue::buffer_select(done.flags()).is_some()
    }))
}

/// A connection must be accepted, and the accept must stay armed.
fn multishot_accept(ring: &mut IoUring) -> std::io::Result<bool> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build();
    let done = one(ring, &entry)?;
    drop(client);
    Ok(done.is_some_and(|done| match super::completions::result(done.result()) {
        Ok(fd) => {
            drop(super::completions::own(fd));
            cqueue::more(done.flags())
        }
        Err(_) => false,
    }))
}

/// Submits an entry without pointers and returns its first completion.
#[expect(unsafe_code, reason = "an entry without pointers")]
fn one(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> std::io::Result<Option<cqueue::Entry>> {
    // SAFETY: accepts and buffer-ring receives carry no pointer; the buffers are registered with the ring.
    unsafe { ring.submission().push(entry) }.map_err(|_| std::io::ErrorKind::WouldBlock)?;
    let time = io_uring::types::Timespec::new().nsec(PATIENCE_NS);
    let args = io_uring::types::SubmitArgs::new().timespec(&time);
    // A timeout shows as no completion.
    drop(ring.submitter().submit_with_args(1, &args));
    let mut space = [MaybeUninit::uninit(); 1];
    Ok(ring.completion().fill(&mut space).first().cloned())
}
