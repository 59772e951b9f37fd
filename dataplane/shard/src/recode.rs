//! Messages read and written anew on their way: decompressed for a reader that cannot, compressed for one
//! that can. One message at a time and direction; bytes that come meanwhile wait.

use alloc::vec::Vec;

use abi::{Encoding, Unreadable};
use wire::grpc::{PREFIX_LEN, Prefix};

use crate::{JobError, Work};

/// What the owner has to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing until more bytes come or the job is done.
    Wait,
    /// Submit this; hand the result to [`Recoder::finish_job`].
    Job(Work, Vec<u8>),
}

#[derive(Debug)]
enum State {
    /// Gathers prefix and body in `input`.
    Gathering,
    /// A job has the message.
    Working { is_compressing: bool },
}

#[derive(Debug)]
pub(crate) struct Recoder {
    /// How messages with flag 1 come.
    decode: Option<Encoding>,
    /// How messages leave.
    encode: Option<Encoding>,
    min_bytes: usize,
    message_bytes_max: usize,
    state: State,
    /// Bytes that came; the message at hand begins at `at`.
    input: Vec<u8>,
    at: usize,
    pub(crate) stats: RecodeStats,
}

/// What a recoder has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RecodeStats {
    pub(crate) compressed: u64,
    pub(crate) decompressed: u64,
    pub(crate) in_bytes: u64,
    pub(crate) out_bytes: u64,
}

impl Recoder {
    pub(crate) fn new(
        decode: Option<Encoding>,
        encode: Option<Encoding>,
        min_bytes: u32,
        message_bytes_max: u32,
    ) -> Self {
        Self {
            decode,
            encode,
            min_bytes: min_bytes as usize,
            message_bytes_max: message_bytes_max as usize,
            state: State::Gathering,
            input: Vec::new(),
            at: 0,
            stats: RecodeStats::default(),
        }
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.input.len() - self.at
    }

    /// The whole length, prefix included, of the message at hand, when it is known.
    pub(crate) fn message_len(&self) -> Option<usize> {
        let head = self.input.get(self.at..self.at + PREFIX_LEN)?;
        let prefix = Prefix::parse(head.try_into().ok()?)?;
        Some(PREFIX_LEN + prefix.len as usize)
    }

    /// True if the sender may end here.
    pub(crate) fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Gathering) && self.held() == 0
    }

    /// True if the bytes at hand are part of a message and no job is out.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(self.state, State::Gathering) && self.held() > 0
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Works on until a job is needed or bytes are, or `out` is longer than `room`: whole messages are
    /// appended to it. `spare` serves
    /// a job as its input.
    pub(crate) fn step(
        &mut self,
        spare: &mut Vec<u8>,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Step, Unreadable> {
        loop {
            if matches!(self.state, State::Working { .. }) || out.len() > room {
                return Ok(Step::Wait);
            }
            let Some(head) = self.input.get(self.at..self.at + PREFIX_LEN) else {
                self.compact();
                return Ok(Step::Wait);
            };
            let head: [u8; PREFIX_LEN] = head.try_into().unwrap_or_default();
            let prefix = Prefix::parse(head).ok_or(Unreadable::Malformed)?;
            let len = prefix.len as usize;
            if len > self.message_bytes_max {
                return Err(Unreadable::TooLarge);
            }
            let start = self.at + PREFIX_LEN;
            let Some(body) = self.input.get(start..start + len) else {
                self.compact();
                return Ok(Step::Wait);
            };
            if prefix.is_compressed {
                let encoding = self.decode.ok_or(Unreadable::UnknownEncoding)?;
                let mut input = core::mem::take(spare);
                input.extend_from_slice(body);
                self.at = start + len;
                self.state = State::Working { is_compressing: false };
                return Ok(Step::Job(Work::Decompress(encoding, self.message_bytes_max), input));
            }
            if let Some(encoding) = self.encode
                && len >= self.min_bytes
            {
                let mut input = core::mem::take(spare);
                input.extend_from_slice(body);
                self.at = start + len;
                self.state = State::Working { is_compressing: true };
                return Ok(Step::Job(Work::Compress(encoding), input));
            }
            out.extend_from_slice(&prefix.emit());
            out.extend_from_slice(body);
            self.at = start + len;
        }
    }

    /// A job is done: appends its message to `out`, or asks for the next job on the same message. `input`
    /// and `output` are the job's; the caller keeps their memory.
    pub(crate) fn finish_job(
        &mut self,
        result: Result<(), JobError>,
        input: &[u8],
        output: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Step, Unreadable> {
        let State::Working { is_compressing } = self.state else { return Ok(Step::Wait) };
        result.map_err(|e| match e {
            JobError::Corrupt => Unreadable::Malformed,
            JobError::TooLarge => Unreadable::TooLarge,
        })?;
        self.state = State::Gathering;
        if is_compressing {
            let shrank = output.len() < input.len();
            let body: &[u8] = if shrank { output } else { input };
            if shrank {
                self.stats.compressed += 1;
                self.stats.in_bytes += input.len() as u64;
                self.stats.out_bytes += output.len() as u64;
            }
            emit(shrank, body, out);
            return Ok(Step::Wait);
        }
        self.stats.decompressed += 1;
        if let Some(encoding) = self.encode
            && output.len() >= self.min_bytes
        {
            self.state = State::Working { is_compressing: true };
            return Ok(Step::Job(Work::Compress(encoding), core::mem::take(output)));
        }
        emit(false, output, out);
        Ok(Step::Wait)
    }

    fn compact(&mut self) {
        if self.at == self.input.len() {
            self.input.clear();
        } else {
            self.input.drain(..self.at);
        }
        self.at = 0;
    }
}

fn emit(is_compressed: bool, body: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&Prefix { is_compressed, len }.emit());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(flag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = alloc::vec![flag];
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn small_messages_pass_in_any_chunking() {
        let mut stream = frame(0, b"hello");
        stream.extend(frame(0, b""));
        stream.extend(frame(0, b"world!"));
        for chunk in 1..stream.len() {
            let mut recoder = Recoder::new(None, Some(Encoding::Gzip), 1024, 1 << 20);
            let (mut out, mut spare) = (Vec::new(), Vec::new());
            for part in stream.chunks(chunk) {
                recoder.push(part);
                assert!(matches!(recoder.step(&mut spare, &mut out, usize::MAX), Ok(Step::Wait)));
            }
            assert_eq!(out, stream);
            assert!(recoder.is_between_messages());
        }
    }

    #[test]
    fn a_message_that_does_not_shrink_goes_plain_and_order_is_kept() {
        let mut recoder = Recoder::new(None, Some(Encoding::Gzip), 4, 1 << 20);
        let (mut out, mut spare) = (Vec::new(), Vec::new());
        recoder.push(&frame(0, b"abcdef"));
        recoder.push(&frame(0, b"xy"));
        let Ok(Step::Job(Work::Compress(Encoding::Gzip), input)) =
            recoder.step(&mut spare, &mut out, usize::MAX)
        else {
            unreachable!()
        };
        assert!(matches!(recoder.step(&mut spare, &mut out, usize::MAX), Ok(Step::Wait)));
        assert!(out.is_empty(), "the second message waits for the first");
        let mut output = b"longer than that".to_vec();
        assert!(matches!(recoder.finish_job(Ok(()), &input, &mut output, &mut out), Ok(Step::Wait)));
        assert!(matches!(recoder.step(&mut spare, &mut out, usize::MAX), Ok(Step::Wait)));
        let mut expected = frame(0, b"abcdef");
        expected.extend(frame(0, b"xy"));
        assert_eq!(out, expected);
        assert_eq!(recoder.stats.compressed, 0);
    }

    #[test]
    fn a_wrong_flag_a_long_message_and_an_unnamed_encoding_are_told_apart() {
        let step = |bytes: &[u8]| {
            let mut recoder = Recoder::new(None, None, 0, 100);
            recoder.push(bytes);
            recoder.step(&mut Vec::new(), &mut Vec::new(), usize::MAX).map(|_| ())
        };
        assert_eq!(step(&frame(255, b"a")), Err(Unreadable::Malformed));
        assert_eq!(step(&[0, 0, 0, 1, 0]), Err(Unreadable::TooLarge));
        assert_eq!(step(&frame(1, b"a")), Err(Unreadable::UnknownEncoding));
    }
}
