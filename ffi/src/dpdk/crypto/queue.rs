//! A queue pair of a cryptodev: its sessions, and jobs in one of two ways.

use core::ffi::c_void;
use core::fmt;
use core::mem;
use core::ptr::NonNull;
use std::sync::Arc;

use super::super::accel::Refusal;
use super::super::segments::Reach;
use super::super::{Eal, Error};
use super::ops::Ops;
use super::prompt::Prompt;
use super::{AAD_MAX, Bound, Device, SealJob, Sealed, SessionId, TAG_LEN, Ways};

/// One queue pair of a device, for one thread. Keeps the device open.
pub struct CryptoQueue<T: Bound> {
    way: Way<T>,
    sessions: Vec<Option<Session>>,
    device: Arc<Device>,
}

/// How jobs are done.
enum Way<T: Bound> {
    /// At once, where they are.
    Prompt(Prompt<T>),
    /// By operations, some time later.
    Ops(Ops<T>),
}

#[derive(Clone, Copy)]
pub(super) struct Session {
    pub(super) raw: NonNull<c_void>,
    pub(super) seals: bool,
    pub(super) aad_len: usize,
}

// SAFETY: a session belongs to the queue pair, and whoever has that is the one thread that uses it.
unsafe impl Send for Session {}

impl<T: Bound> CryptoQueue<T> {
    pub(super) fn new(
        eal: Eal,
        device: Arc<Device>,
        pair: (u16, u16),
        reach: Reach,
        ways: Ways,
    ) -> Result<Self, Error> {
        let way = if ways.prompt && reach == Reach::Pointed {
            Way::Prompt(Prompt::new(device.id, usize::from(pair.1)))
        } else {
            Way::Ops(Ops::new(eal, (&device.name, device.id), pair, reach, ways)?)
        };
        Ok(Self { way, sessions: Vec::new(), device })
    }

    /// A key of 16 or 32 bytes to encrypt (`seals`) or decrypt with `aad_len` bytes of associated data.
    pub fn session(&mut self, key: &[u8], seals: bool, aad_len: usize) -> Result<SessionId, Error> {
        let doing = "make a session";
        if !matches!(key.len(), 16 | 32) || aad_len > AAD_MAX {
            let what = format!("a key of 16 or 32 bytes, at most {AAD_MAX} of associated data");
            return Err(Error::new(&self.device.name, doing, libc::EINVAL, what));
        }
        let raw = self.device.session(key, seals, aad_len).ok_or_else(|| {
            Error::last(&self.device.name, doing).with_hint("end sessions that are not used any more")
        })?;
        let session = Session { raw, seals, aad_len };
        let free = self.sessions.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() - 1
        });
        self.sessions[at] = Some(session);
        Ok(SessionId(u32::try_from(at).unwrap_or(u32::MAX)))
    }

    /// Forgets a key. False, and no effect, while jobs with it are under way.
    pub fn end_session(&mut self, id: SessionId) -> bool {
        let is_used = match &self.way {
            Way::Prompt(prompt) => prompt.uses(id),
            Way::Ops(ops) => ops.uses(id),
        };
        let Some(session) = self.sessions.get_mut(id.0 as usize) else { return false };
        if session.is_none() || is_used {
            return false;
        }
        if let Some(session) = session.take() {
            // SAFETY: no job uses it, and it cannot be named any more.
            unsafe { self.device.end(session.raw) };
        }
        true
    }

    /// Takes a job, to be handed over by [`Self::flush`]; or gives it back with its input as it was.
    ///
    /// # Errors
    /// [`Refusal::Unfit`] if it can never be done: no such session, another length of associated data, no text or tag
    /// in the input, more than the device takes.
    #[inline]
    pub fn stage(&mut self, job: SealJob<T>) -> Result<(), (Refusal, T)> {
        let SealJob { session: id, start, mut with } = job;
        let session = self.sessions.get(id.0 as usize).and_then(Option::as_ref);
        let Some(session) = session.filter(|session| session.aad_len == with.aad_len()) else {
            return Err((Refusal::Unfit, with));
        };
        let tag_len = if session.seals { 0 } else { TAG_LEN };
        let len = with.buffers().0.len();
        let Some(text_len) = len.checked_sub(start).and_then(|len| len.checked_sub(tag_len)) else {
            return Err((Refusal::Unfit, with));
        };
        match &mut self.way {
            Way::Prompt(prompt) => prompt.stage((id, session), (start, text_len), with),
            Way::Ops(ops) => ops.stage((id, session), (start, text_len), with),
        }
    }

    /// Hands over what is staged, in bursts of at most [`BURST_MAX`](super::super::accel::BURST_MAX). What the device has
    /// no room for stays staged. How many it took: none where [`Self::poll`] does the work.
    #[inline]
    pub fn flush(&mut self) -> usize {
        match &mut self.way {
            Way::Prompt(_) => 0,
            Way::Ops(ops) => ops.flush(),
        }
    }

    /// Gives what is done to `each`, at most [`BURST_MAX`](super::super::accel::BURST_MAX) jobs. How many came back from
    /// the device. Where this does the work, it is at most 64 KiB, or one job.
    #[inline]
    pub fn poll(&mut self, mut each: impl FnMut(Sealed<T>)) -> usize {
        match &mut self.way {
            Way::Prompt(prompt) => prompt.poll(each),
            Way::Ops(ops) => ops.poll(&mut each),
        }
    }

    /// Gives every job up, whatever the device may still do with it; the jobs have their inputs, or copies of them. Then
    /// no job is under way for the caller.
    pub fn abandon(&mut self, each: impl FnMut(Sealed<T>)) {
        match &mut self.way {
            Way::Prompt(prompt) => prompt.abandon(each),
            Way::Ops(ops) => ops.abandon(each),
        }
    }

    /// True if [`Self::poll`] does the work.
    pub fn works_in_poll(&self) -> bool {
        matches!(self.way, Way::Prompt(_))
    }

    /// Jobs taken and not given back.
    pub fn jobs(&self) -> usize {
        match &self.way {
            Way::Prompt(prompt) => prompt.jobs(),
            Way::Ops(ops) => ops.jobs(),
        }
    }
}

impl<T: Bound> Drop for CryptoQueue<T> {
    fn drop(&mut self) {
        let is_idle = match &mut self.way {
            Way::Prompt(_) => true,
            Way::Ops(ops) => ops.close(),
        };
        if !is_idle {
            mem::forget(Arc::clone(&self.device));
            return;
        }
        for session in self.sessions.drain(..).flatten() {
            // SAFETY: no job uses it any more.
            unsafe { self.device.end(session.raw) };
        }
    }
}

impl<T: Bound> fmt::Debug for CryptoQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CryptoQueue(of {}, {} under way)", self.device.name, self.jobs())
    }
}
