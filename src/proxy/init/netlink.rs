//! Netlink without I/O: builds a batch of nf_tables messages, and reads the kernel's answers to it.
//!
//! Layout: <https://docs.kernel.org/userspace-api/netlink/intro.html>. Headers are in the machine's
//! byte order, numbers inside nf_tables attributes in network byte order.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::InitError;

const HEADER_LEN: usize = 16;
const ALIGNMENT: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLA_F_NESTED: u16 = 0x8000;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFPROTO_UNSPEC: u8 = 0;

/// Sequence number of the message that opens the batch. The kernel answers it only when the batch
/// fails as a whole.
const BEGIN: u32 = 0;

/// A transaction being written: the kernel applies all of its steps, or none.
pub(super) struct Batch {
    bytes: Vec<u8>,
    steps: Vec<String>,
    family: u8,
}

impl Batch {
    /// A batch whose messages are about tables of `family` (`NFPROTO_*`).
    pub(super) fn new(family: u8) -> Self {
        let mut batch = Self { bytes: Vec::new(), steps: vec!["batch".to_owned()], family };
        message(&mut batch.bytes, BEGIN, NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST);
        generic_header(&mut batch.bytes, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES);
        close(&mut batch.bytes, 0);
        batch
    }

    /// Adds the message `kind` (`NFT_MSG_*`) with the attributes that `fill` writes. `step` names it in errors.
    pub(super) fn add(&mut self, step: String, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        let kind = (NFNL_SUBSYS_NFTABLES << 8) | kind;
        message(&mut self.bytes, next_sequence(&self.steps), kind, NLM_F_REQUEST | NLM_F_ACK | flags);
        generic_header(&mut self.bytes, self.family, 0);
        fill(&mut Attributes(&mut self.bytes));
        close(&mut self.bytes, start);
        self.steps.push(step);
    }

    /// Closes the batch.
    pub(super) fn finish(mut self) -> Request {
        let start = self.bytes.len();
        message(&mut self.bytes, next_sequence(&self.steps), NFNL_MSG_BATCH_END, NLM_F_REQUEST);
        generic_header(&mut self.bytes, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES);
        close(&mut self.bytes, start);
        Request { bytes: self.bytes, steps: self.steps }
    }
}

/// A complete batch: what to send, and what its steps are called (the index is the sequence number).
pub(super) struct Request {
    pub(super) bytes: Vec<u8>,
    pub(super) steps: Vec<String>,
}

/// Writes attributes at the end of the message being built.
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |at| at.0.extend_from_slice(value));
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A string, which netlink ends with a zero.
    pub(super) fn string(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |at| {
            at.0.extend_from_slice(value.as_bytes());
            at.0.push(0);
        });
    }

    /// Attributes inside an attribute.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.attribute(kind | NLA_F_NESTED, |at| fill(&mut Attributes(at.0)));
    }

    fn attribute(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.0.len() - start).expect("one rule is far below 64 KiB");
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        pad(self.0);
    }
}

/// Opens a message; [`close`] fills in its length.
fn message(bytes: &mut Vec<u8>, sequence: u32, kind: u16, flags: u16) {
    bytes.extend([0; 4]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]); // sender: the kernel knows
}

fn close(bytes: &mut [u8], start: usize) {
    let len = u32::try_from(bytes.len() - start).expect("one message is far below 4 GiB");
    bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

/// `struct nfgenmsg`: family, version 0, resource.
fn generic_header(bytes: &mut Vec<u8>, family: u8, resource: u16) {
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

fn next_sequence(steps: &[String]) -> u32 {
    u32::try_from(steps.len()).expect("a batch has a few hundred steps")
}

/// Collects the kernel's answers to one [`Request`].
pub(super) struct Answers<'a> {
    steps: &'a [String],
    waiting: BTreeSet<u32>,
    refused: BTreeMap<u32, i32>,
}

impl<'a> Answers<'a> {
    pub(super) fn to(request: &'a Request) -> Self {
        let waiting = (BEGIN + 1..next_sequence(&request.steps)).collect();
        Self { steps: &request.steps, waiting, refused: BTreeMap::new() }
    }

    /// Whether nothing more will come: every step is answered, or the batch failed as a whole.
    pub(super) fn complete(&self) -> bool {
        self.waiting.is_empty() || self.refused.contains_key(&BEGIN)
    }

    /// Reads one datagram, which may hold several answers.
    pub(super) fn take(&mut self, mut datagram: &[u8]) -> Result<(), InitError> {
        while !datagram.is_empty() {
            let len = number_at(datagram, 0)? as usize;
            let answer = datagram.get(..len).ok_or(InitError::Malformed("an answer is longer than what arrived"))?;
            if len < HEADER_LEN {
                return Err(InitError::Malformed("an answer is shorter than its header"));
            }
            self.answer(answer)?;
            datagram = datagram.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        }
        Ok(())
    }

    fn answer(&mut self, answer: &[u8]) -> Result<(), InitError> {
        let [low, high] = [answer[4], answer[5]];
        if u16::from_ne_bytes([low, high]) != NLMSG_ERROR {
            return Ok(()); // not an answer to a step
        }
        let sequence = number_at(answer, 8)?;
        let code = number_at(answer, HEADER_LEN)?.cast_signed();
        if code != 0 {
            self.refused.entry(sequence).or_insert(code.saturating_neg());
        }
        self.waiting.remove(&sequence);
        Ok(())
    }

    /// What became of the batch. The first step that was refused names the error.
    pub(super) fn outcome(self) -> Result<(), InitError> {
        match self.refused.first_key_value() {
            Some((sequence, errno)) => Err(self.error(*sequence, io::Error::from_raw_os_error(*errno))),
            None if self.waiting.is_empty() => Ok(()),
            None => Err(InitError::NoAnswer { unanswered: self.waiting.len() }),
        }
    }

    fn error(&self, sequence: u32, source: io::Error) -> InitError {
        let errno = source.raw_os_error().unwrap_or_default();
        let index = usize::try_from(sequence).unwrap_or(usize::MAX);
        let step = self.steps.get(index).map_or("batch", String::as_str).to_owned();
        match (sequence, errno) {
            (BEGIN, libc::EPERM) => InitError::NotPermitted,
            (BEGIN, libc::EOPNOTSUPP) => InitError::NoNfTables,
            (_, libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENOENT) => InitError::MissingFeature { step, source },
            (_, _) => InitError::Refused { step, source },
        }
    }
}

fn number_at(bytes: &[u8], offset: usize) -> Result<u32, InitError> {
    let four = bytes.get(offset..).and_then(|rest| rest.first_chunk::<4>());
    four.map(|four| u32::from_ne_bytes(*four)).ok_or(InitError::Malformed("an answer ends too early"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INET: u8 = 1;

    fn two_steps() -> Request {
        let mut batch = Batch::new(INET);
        batch.add("table".to_owned(), 0, 0x400, |at| at.string(1, "leno"));
        batch.add("chain".to_owned(), 3, 0, |at| at.nested(4, |hook| hook.number(1, 3)));
        batch.finish()
    }

    /// The kernel's answer to `sequence`: 0 is an ACK, anything else an errno.
    fn answer(sequence: u32, errno: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        message(&mut bytes, sequence, NLMSG_ERROR, 0);
        bytes.extend((-errno).to_ne_bytes());
        bytes.extend([0; HEADER_LEN]); // the header that is answered
        close(&mut bytes, 0);
        bytes
    }

    fn outcome(answers: &[(u32, i32)]) -> Result<(), InitError> {
        let request = two_steps();
        let mut read = Answers::to(&request);
        for (sequence, errno) in answers {
            read.take(&answer(*sequence, *errno))?;
        }
        read.outcome()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_batch_has_the_bytes_the_kernel_documents() {
        let begin = [20, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
        let table = [
            32, 0, 0, 0, 0, 10, 5, 4, 1, 0, 0, 0, 0, 0, 0, 0, // header: NEWTABLE, request + ack + create
            1, 0, 0, 0, // inet
            9, 0, 1, 0, b'l', b'e', b'n', b'o', 0, 0, 0, 0, // name, padded
        ];
        let chain = [
            32, 0, 0, 0, 3, 10, 5, 0, 2, 0, 0, 0, 0, 0, 0, 0, // header: NEWCHAIN
            1, 0, 0, 0, // inet
            12, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0, 3, // nested number in network byte order
        ];
        let end = [20, 0, 0, 0, 0x11, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
        let expected: Vec<u8> = [&begin[..], &table, &chain, &end].concat();
        assert_eq!(two_steps().bytes, expected);
    }

    #[test]
    fn the_batch_succeeds_when_every_step_is_acknowledged() {
        assert!(outcome(&[(1, 0), (2, 0)]).is_ok());
        assert!(matches!(outcome(&[(2, 0)]), Err(InitError::NoAnswer { unanswered: 1 })));
    }

    #[test]
    fn answers_may_share_a_datagram() {
        let request = two_steps();
        let mut read = Answers::to(&request);
        read.take(&[answer(1, 0), answer(2, 0)].concat()).unwrap();
        assert!(read.complete());
    }

    #[test]
    fn a_batch_that_fails_as_a_whole_is_complete_at_once() {
        let request = two_steps();
        let mut read = Answers::to(&request);
        read.take(&answer(BEGIN, libc::EPERM)).unwrap();
        assert!(read.complete());
    }

    #[test]
    fn errors_say_what_to_do() {
        let cases: [(&[(u32, i32)], &str); 5] = [
            (&[(0, libc::EPERM)], "needs NET_ADMIN: run the init container as root"),
            (&[(0, libc::EOPNOTSUPP)], "no nf_tables: load the kernel modules"),
            (&[(1, 0), (2, libc::ENOENT)], "cannot add the chain: Linux 5.2 or newer"),
            (&[(1, libc::EBUSY), (2, libc::ENOENT)], "refused the table of the redirect rules"),
            (&[(1, libc::EPERM), (2, 0)], "refused the table of the redirect rules"),
        ];
        for (answers, words) in cases {
            let message = outcome(answers).unwrap_err().to_string();
            assert!(message.contains(words), "{answers:?}: {message}");
        }
    }

    #[test]
    fn a_truncated_answer_is_an_error_at_every_length() {
        let whole = answer(1, 0);
        for len in 1..whole.len() {
            let request = two_steps();
            let result = Answers::to(&request).take(&whole[..len]);
            assert!(matches!(result, Err(InitError::Malformed(_))), "length {len}");
        }
        let request = two_steps();
        assert!(matches!(Answers::to(&request).take(&[0; 32]), Err(InitError::Malformed(_))), "length field of 0");
    }
}
