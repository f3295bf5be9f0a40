//! Records on their way out, encrypted where they are sent from.
//!
//! The cipher is the one that rustls has agreed on, with its keys. It is not asked through rustls: its own way gives each record memory of
//! its own, and insists on counting from the first record of a key, of which the handshake has sent some.

use std::io::IoSlice;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use rustls::crypto::cipher::{AeadKey, Iv, Nonce, make_tls12_aad, make_tls13_aad};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite};

use super::records::HEADER;
use crate::buffers::Buffer;

/// What a record has beside what it carries, at most: header, nonce (TLS 1.2) or type (TLS 1.3), tag.
pub(super) const OVERHEAD_MAX: usize = HEADER + 8 + TAG;
/// Bytes carried in one record, at most: fewer than there may be (RFC 8446 section 5.1), so that whole records fill a block.
pub(crate) const FRAGMENT_MAX: usize = 16 * 1024 - OVERHEAD_MAX;
/// Length of the tag of every cipher here (RFC 5116 section 5, RFC 8439 section 2.8).
const TAG: usize = 16;

/// One direction of a connection, with one key.
pub(super) struct Sealer {
    key: LessSafeKey,
    iv: Iv,
    nonces: Nonces,
    /// The number of the next record. None is used twice.
    pub(super) sequence: u64,
}

/// How the receiver knows a record's nonce.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nonces {
    /// It counts, and what is carried is followed by its type (RFC 8446 section 5.3).
    Tls13,
    /// It counts (RFC 7905 section 2).
    Counted,
    /// It is told (RFC 5288 section 3).
    Told,
}

impl Sealer {
    /// A sealer whose next record has the number `sequence`.
    pub(super) fn new(suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets, sequence: u64) -> Result<Self, Error> {
        let is_tls13 = suite.tls13().is_some();
        let (algorithm, key, iv, tls12) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv, Nonces::Told),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv, Nonces::Told),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv, Nonces::Counted),
            _ => return Err(Error::General("a cipher that this version does not know".to_owned())),
        };
        let nonces = if is_tls13 { Nonces::Tls13 } else { tls12 };
        Ok(Self { key: bound(algorithm, &key)?, iv, nonces, sequence })
    }

    /// How much one or more records in `room` bytes can carry.
    pub(super) fn fits(room: usize) -> usize {
        let whole = room / (FRAGMENT_MAX + OVERHEAD_MAX);
        let rest = room % (FRAGMENT_MAX + OVERHEAD_MAX);
        whole * FRAGMENT_MAX + rest.saturating_sub(OVERHEAD_MAX)
    }

    /// Seals the next `length` bytes of `from` as one record behind what is in `out`, which has room for it.
    pub(super) fn seal(&mut self, kind: ContentType, from: &mut Pieces<'_>, length: usize, out: &mut Buffer) -> Result<(), Error> {
        let next = self.sequence.checked_add(1).ok_or(Error::EncryptError)?;
        let nonce = Nonce::new(&self.iv, self.sequence);
        let told = if self.nonces == Nonces::Told { &nonce.0[4..] } else { &[] };
        let inner = if self.nonces == Nonces::Tls13 { length + 1 } else { length };
        let payload = told.len() + inner + TAG;
        let record = out.spare().get_mut(..HEADER + payload).ok_or(Error::EncryptError)?;
        let (header, rest) = record.split_at_mut(HEADER);
        let (explicit, rest) = rest.split_at_mut(told.len());
        let (text, tag) = rest.split_at_mut(inner);
        explicit.copy_from_slice(told);
        from.copy_to(&mut text[..length]);
        let outside = if self.nonces == Nonces::Tls13 { ContentType::ApplicationData } else { kind };
        header.copy_from_slice(&make_tls13_aad(payload));
        header[0] = u8::from(outside);
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce.0);
        let sealed = if self.nonces == Nonces::Tls13 {
            text[length] = u8::from(kind);
            self.key.seal_in_place_separate_tag(nonce, Aad::from(make_tls13_aad(payload)), text)
        } else {
            let aad = make_tls12_aad(self.sequence, kind, ProtocolVersion::TLSv1_2, length);
            self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), text)
        };
        tag.copy_from_slice(sealed.map_err(|_unspecified| Error::EncryptError)?.as_ref());
        out.fill(HEADER + payload);
        self.sequence = next;
        Ok(())
    }
}

fn bound(algorithm: &'static Algorithm, key: &AeadKey) -> Result<LessSafeKey, Error> {
    UnboundKey::new(algorithm, key.as_ref()).map(LessSafeKey::new).map_err(|_unspecified| Error::EncryptError)
}

/// Bytes in several places, one after the other.
pub(super) struct Pieces<'a> {
    parts: std::slice::Iter<'a, IoSlice<'a>>,
    current: &'a [u8],
}

impl<'a> Pieces<'a> {
    pub(super) fn new(parts: &'a [IoSlice<'a>]) -> Self {
        Self { parts: parts.iter(), current: &[] }
    }

    /// Fills `into` with what comes next; there is enough.
    fn copy_to(&mut self, mut into: &mut [u8]) {
        while !into.is_empty() {
            if self.current.is_empty() {
                let Some(next) = self.parts.next() else { return };
                self.current = next;
            }
            let count = self.current.len().min(into.len());
            let (now, later) = into.split_at_mut(count);
            now.copy_from_slice(&self.current[..count]);
            self.current = &self.current[count..];
            into = later;
        }
    }
}
