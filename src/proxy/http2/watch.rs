//! What a peer makes this proxy do for nothing: frames that carry no request, counted against those that do.
//!
//! `h2` bounds what it keeps (header lists, streams, continuations, small data frames that wait). It does not bound how often a
//! peer may have it answer pings and settings, note priorities and windows, or begin streams only to reset them
//! (CVE-2023-44487), nor how long a header block may take. That is judged here, from the frames' heads as they pass.
//!
//! Every frame that says nothing costs; work, time and what is sent to the peer earn. Who has nothing left is told
//! `ENHANCE_YOUR_CALM`. A peer that downloads sends windows and one that measures its path sends pings, each for data: they earn
//! more than they spend.
//!
//! Nothing here reads a clock or a socket. Reading order: [`Watch`], [`Frames`], [`Budget`].

use std::time::{Duration, Instant};

use h2::Reason;

/// What can be spent at once.
const BURST: u32 = 10_000;
/// What a second earns.
const PER_SECOND: u32 = 1_000;
/// What a frame earns that brings a request or content, either way.
const EARNED: u32 = 4;
/// What a frame costs that says nothing and takes little to handle.
const LIGHT: u32 = 1;
/// What a frame costs that has to be answered, applied to every stream, or that nobody has a reason to send.
const HEAVY: u32 = 10;
/// What a stream costs that is reset as soon as it is begun: it may have been sent on to an app by then.
const HASTY: u32 = 25;
/// A stream younger than this, at most twice this, is reset in haste.
const YOUNG: Duration = Duration::from_millis(10);
/// Bytes before a client's first frame.
const PREFACE: usize = 24;
/// Bytes of a frame's head.
const HEAD: usize = 9;

/// What is wrong with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abuse {
    /// It sends frames without end that say nothing.
    Flood,
    /// It begins streams and resets them.
    RapidReset,
    /// It does not end its header block.
    SlowHead,
    /// Its first frame is not the settings that belong to its preface (RFC 9113 section 3.4); `h2` takes any.
    NoSettings,
}

impl Abuse {
    /// Metric label and log field.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Flood => "http2-flood",
            Self::RapidReset => "http2-rapid-reset",
            Self::SlowHead => "head-too-slow",
            Self::NoSettings => "http2-protocol-error",
        }
    }

    /// What the peer is told.
    pub(super) fn code(self) -> Reason {
        match self {
            Self::Flood | Self::RapidReset | Self::SlowHead => Reason::ENHANCE_YOUR_CALM,
            Self::NoSettings => Reason::PROTOCOL_ERROR,
        }
    }
}

/// Watches the frames of one connection, both ways.
pub(super) struct Watch {
    received: Frames,
    sent: Frames,
    budget: Budget,
    opened: Opened,
    block_since: Option<Instant>,
    has_settings: bool,
}

impl Watch {
    /// For a connection that a client has opened; its preface is still to come.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            received: Frames { left: PREFACE, ..Frames::default() },
            sent: Frames::default(),
            budget: Budget { left: BURST, since: now },
            opened: Opened { newest: 0, young_from: u32::MAX, older_from: u32::MAX, since: now },
            block_since: None,
            has_settings: false,
        }
    }

    /// Takes note of bytes the peer has sent. `now` is asked only where time matters.
    pub(super) fn received(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Abuse> {
        let Self { received, budget, opened, block_since, has_settings, .. } = self;
        received.walk(bytes, |frame| {
            if !*has_settings {
                *has_settings = frame.kind == SETTINGS && !frame.is_last();
                return if *has_settings { Ok(()) } else { Err(Abuse::NoSettings) };
            }
            let cost = match frame.kind {
                DATA if frame.length == 0 && !frame.is_last() => HEAVY,
                DATA => {
                    budget.earn(EARNED);
                    return Ok(());
                }
                HEADERS => {
                    let now = now();
                    opened.note(frame.stream, now);
                    *block_since = if frame.ends_headers() { None } else { Some(block_since.unwrap_or(now)) };
                    budget.earn(EARNED);
                    return Ok(());
                }
                CONTINUATION => {
                    *block_since = block_since.filter(|_| !frame.ends_headers());
                    LIGHT
                }
                RST_STREAM => {
                    let now = now();
                    let cost = if opened.was_young(frame.stream, now) { HASTY } else { LIGHT };
                    return budget.spend(cost, || now).ok_or(Abuse::RapidReset);
                }
                SETTINGS if !frame.is_last() => HEAVY,
                _ => LIGHT,
            };
            budget.spend(cost, &now).ok_or(Abuse::Flood)
        })
    }

    /// Takes note of bytes that were sent to the peer.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let Self { sent, budget, .. } = self;
        let noted: Result<(), Abuse> = sent.walk(bytes, |frame| {
            if matches!(frame.kind, DATA | HEADERS) {
                budget.earn(EARNED);
            }
            Ok(())
        });
        debug_assert!(noted.is_ok(), "what is sent is not judged");
    }

    /// Since when a header block has not come to its end.
    pub(super) fn block_since(&self) -> Option<Instant> {
        self.block_since
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    length: usize,
}

impl Frame {
    fn read(head: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = head;
        Self {
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
        }
    }

    /// `END_STREAM` of data and headers; `ACK` of settings and pings.
    fn is_last(self) -> bool {
        self.flags & 1 != 0
    }

    fn ends_headers(self) -> bool {
        self.flags & 4 != 0
    }
}

/// Finds the heads of frames in bytes that come in any pieces.
#[derive(Default)]
struct Frames {
    head: [u8; HEAD],
    filled: usize,
    /// Bytes up to the next head.
    left: usize,
}

impl Frames {
    fn walk<E>(&mut self, mut bytes: &[u8], mut see: impl FnMut(Frame) -> Result<(), E>) -> Result<(), E> {
        loop {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEAD - self.filled);
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < HEAD {
                return Ok(());
            }
            let frame = Frame::read(self.head);
            (self.filled, self.left) = (0, frame.length);
            see(frame)?;
        }
    }
}

/// What may still be spent.
struct Budget {
    left: u32,
    /// Up to when time was paid for.
    since: Instant,
}

impl Budget {
    fn earn(&mut self, amount: u32) {
        self.left = (self.left + amount).min(BURST);
    }

    /// `None`: there is not so much left.
    fn spend(&mut self, cost: u32, now: impl Fn() -> Instant) -> Option<()> {
        if self.left < cost {
            let now = now();
            let earned = now.saturating_duration_since(self.since).as_millis() * u128::from(PER_SECOND) / 1000;
            self.since = now;
            self.earn(u32::try_from(earned).unwrap_or(BURST).min(BURST));
        }
        self.left = self.left.checked_sub(cost)?;
        Some(())
    }
}

/// Which streams were opened just now. Numbers only grow, so two marks tell.
struct Opened {
    newest: u32,
    /// The first one since `since`.
    young_from: u32,
    /// The first one of the time before.
    older_from: u32,
    since: Instant,
}

impl Opened {
    fn note(&mut self, stream: u32, now: Instant) {
        if stream <= self.newest {
            return;
        }
        self.newest = stream;
        let age = now.saturating_duration_since(self.since);
        if self.young_from == u32::MAX || age >= YOUNG {
            self.older_from = if age < YOUNG * 2 { self.young_from.min(stream) } else { stream };
            (self.young_from, self.since) = (stream, now);
        }
    }

    fn was_young(&self, stream: u32, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.since);
        if age < YOUNG { stream >= self.older_from } else { age < YOUNG * 2 && stream >= self.young_from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    const PRIORITY: u8 = 2;

    fn frame(kind: u8, flags: u8, stream: u32, length: u32) -> Vec<u8> {
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.resize(HEAD + length as usize, 0);
        bytes
    }

    fn begun(now: Instant) -> Watch {
        let mut watch = Watch::new(now);
        watch.received(&[vec![0; PREFACE], frame(SETTINGS, 0, 0, 0)].concat(), || now).unwrap();
        watch
    }

    /// How many of `frames` in a row are let pass, up to `most`, with `apart` between them.
    fn passed(frames: impl Fn(u32) -> Vec<u8>, most: u32, apart: Duration) -> Result<u32, (u32, Abuse)> {
        let start = Instant::now();
        let mut watch = begun(start);
        for number in 0..most {
            let now = start + apart * number;
            watch.received(&frames(number), || now).map_err(|abuse| (number, abuse))?;
        }
        Ok(most)
    }

    #[test]
    fn frames_that_say_nothing_are_cut_off_and_each_kind_of_them() {
        let cases = [
            ("pings", frame(PING, 0, 0, 8), BURST),
            ("answers to pings", frame(PING, 1, 0, 8), BURST),
            ("settings", frame(SETTINGS, 0, 0, 6), BURST / HEAVY),
            ("windows", frame(WINDOW_UPDATE, 0, 0, 4), BURST),
            ("priorities", frame(PRIORITY, 0, 3, 5), BURST),
            ("unknown ones", frame(0xbe, 0, 0, 0), BURST),
            ("empty data", frame(DATA, 0, 1, 0), BURST / HEAVY),
            ("continuations", frame(CONTINUATION, 0, 1, 0), BURST),
        ];
        for (name, bytes, want) in cases {
            assert_eq!(passed(|_| bytes.clone(), BURST * 2, Duration::ZERO), Err((want, Abuse::Flood)), "{name}");
        }
    }

    #[test]
    fn the_same_frames_at_a_bearable_pace_or_for_content_pass() {
        assert_eq!(passed(|_| frame(PING, 0, 0, 8), 50_000, Duration::from_millis(1)), Ok(50_000), "a ping each millisecond");
        let upload = |_| [frame(DATA, 0, 1, 100), frame(PING, 0, 0, 8), frame(WINDOW_UPDATE, 0, 0, 4)].concat();
        assert_eq!(passed(upload, 50_000, Duration::ZERO), Ok(50_000), "pings that measure a path while data is sent");
        let now = Instant::now();
        let mut watch = begun(now);
        for _ in 0..50_000 {
            watch.sent(&frame(DATA, 0, 1, 20));
            watch.received(&[frame(WINDOW_UPDATE, 0, 0, 4), frame(WINDOW_UPDATE, 0, 1, 4)].concat(), || now).unwrap();
        }
    }

    #[test]
    fn streams_that_are_reset_at_once_are_cut_off_and_those_given_up_later_are_not() {
        let number = |turn: u32| 2 * turn + 1;
        let hasty = |turn| [frame(HEADERS, 5, number(turn), 10), frame(RST_STREAM, 0, number(turn), 4)].concat();
        let cut = passed(hasty, 5000, Duration::ZERO);
        assert!(matches!(cut, Err((400..=500, Abuse::RapidReset))), "{cut:?}");
        assert!(matches!(passed(hasty, 5000, Duration::from_millis(2)), Err((_, Abuse::RapidReset))), "500 a second");
        // Deadlines of 100 ms, all of which pass: 1000 a second.
        let late = |turn: u32| {
            let open = frame(HEADERS, 5, number(turn), 10);
            if turn < 100 { open } else { [open, frame(RST_STREAM, 0, number(turn - 100), 4)].concat() }
        };
        assert_eq!(passed(late, 20_000, Duration::from_millis(1)), Ok(20_000));
        // A hundred begun at once, then all of them reset.
        let batch = |turn: u32| {
            let streams = (0..100).map(|index| number(turn * 100 + index));
            let opened = streams.clone().flat_map(|stream| frame(HEADERS, 5, stream, 10));
            opened.chain(streams.flat_map(|stream| frame(RST_STREAM, 0, stream, 4))).collect()
        };
        assert!(matches!(passed(batch, 100, Duration::ZERO), Err((4..=5, Abuse::RapidReset))));
    }

    #[test]
    fn a_header_block_is_open_until_its_last_frame() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut watch = begun(start);
        watch.received(&frame(HEADERS, 0, 1, 10), || start).unwrap();
        watch.received(&frame(CONTINUATION, 0, 1, 10), || later).unwrap();
        assert_eq!(watch.block_since(), Some(start));
        watch.received(&frame(CONTINUATION, 4, 1, 10), || later).unwrap();
        assert_eq!(watch.block_since(), None);
        watch.received(&frame(HEADERS, 4, 3, 10), || later).unwrap();
        assert_eq!(watch.block_since(), None);
    }

    #[test]
    fn the_first_frame_is_settings() {
        let now = Instant::now();
        for (first, want) in [
            (frame(SETTINGS, 0, 0, 6), Ok(())),
            (frame(SETTINGS, 1, 0, 0), Err(Abuse::NoSettings)),
            (frame(HEADERS, 5, 1, 3), Err(Abuse::NoSettings)),
        ] {
            assert_eq!(Watch::new(now).received(&[vec![0; PREFACE], first].concat(), || now), want);
        }
    }

    proptest! {
        #[test]
        fn frames_are_found_wherever_the_bytes_are_split(lengths in prop::collection::vec(0u32..40, 1..20), step in 1usize..50) {
            let bytes: Vec<u8> = lengths.iter().zip(1..).flat_map(|(length, stream)| frame(PING, 0, stream, *length)).collect();
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for part in bytes.chunks(step) {
                frames.walk(part, |frame| { seen.push((frame.stream, frame.length)); Ok::<(), ()>(()) }).unwrap();
            }
            let want: Vec<_> = lengths.iter().zip(1..).map(|(length, stream)| (stream, *length as usize)).collect();
            prop_assert_eq!(seen, want);
        }
    }
}
