//! Records of a connection whose handshake is done, decrypted where they lie.
//!
//! Handshake and keys are rustls', and so is the cipher. What stands here is what its own buffers would do at the price of copies (it takes in
//! 4 KiB of a record at a time, and hands on a copy of what it has decrypted): telling where a record ends, counting records, and
//! heeding what TLS says to itself: tickets, new keys and alerts (RFC 8446 sections 4.6, 5 and 6; RFC 5246 section 6.2 with servers outside
//! the mesh). How records go out stands in `seal`.
//!
//! Values only: bytes come in; bytes and what they mean go out.
//!
//! Reading order: [`length`], [`Records::open`], [`Records::seal`].

use std::io::IoSlice;
use std::ops::Range;

use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{InboundOpaqueMessage, MessageDecrypter};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, HandshakeType, InvalidMessage, PeerMisbehaved,
    ProtocolVersion, SupportedCipherSuite,
};

use super::seal::{FRAGMENT_MAX, OVERHEAD_MAX, Pieces, Sealer};
use crate::buffers::Buffer;

/// Bytes before the payload of a record: its type, its version, its length.
pub(super) const HEADER: usize = 5;
/// Most bytes of a record's payload: what is carried, and what ciphers of TLS 1.2 may add (RFC 5246 section 6.2.3; less in RFC 8446
/// section 5.2, which the cipher sees to).
const PAYLOAD_MAX: usize = 16 * 1024 + 2048;
/// Type and length of a handshake message (RFC 8446 section 4).
const MESSAGE_HEADER: usize = 4;
/// Longest message of TLS to itself: a ticket fits, with its extensions.
const MESSAGE_MAX: usize = 64 * 1024;
/// Warnings that a connection may bring, and new keys without bytes between them: as many as other implementations take.
const WARNINGS_MAX: u8 = 4;
const KEY_UPDATES_MAX: u8 = 32;
/// Levels of an alert (RFC 8446 section 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// What makes the keys of a connection, by which end of it this is.
pub(super) enum Keys {
    /// The end that has dialled.
    Client(KernelConnection<ClientConnectionData>),
    /// The other.
    Server(KernelConnection<ServerConnectionData>),
}

/// What a record has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// Bytes: where they are in the record, decrypted. There may be none.
    Data(Range<usize>),
    /// Something that TLS said to itself.
    Heeded,
    /// The peer will send nothing more.
    End,
}

/// Both directions of a connection.
pub(super) struct Records {
    keys: Keys,
    reads: Reads,
    writes: Sealer,
    /// Of a handshake message that is not whole yet.
    partial: Vec<u8>,
    /// The peer waits for new keys of this end.
    owes_keys: bool,
    /// A renegotiation was asked for, which is not done (RFC 5246 section 7.2.2); once is forgiven.
    was_asked_again: bool,
    /// What may still come.
    warnings: u8,
    key_updates: u8,
    /// Why nothing more is read.
    failed: Option<Error>,
}

struct Reads {
    cipher: Box<dyn MessageDecrypter>,
    sequence: u64,
}

/// How many bytes the record at the front of `bytes` has with its header, once that is there.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    if !(u8::from(ContentType::ChangeCipherSpec)..=u8::from(ContentType::ApplicationData)).contains(&kind) {
        return Err(InvalidMessage::InvalidContentType.into());
    }
    if major != 3 {
        return Err(InvalidMessage::UnknownProtocolVersion.into());
    }
    let payload = usize::from(u16::from_be_bytes([high, low]));
    if payload > PAYLOAD_MAX {
        return Err(InvalidMessage::MessageTooLarge.into());
    }
    Ok(Some(HEADER + payload))
}

impl Records {
    /// Those of a connection with these secrets.
    pub(super) fn new(keys: Keys, secrets: ExtractedSecrets) -> Result<Self, Error> {
        let ((sent, write), (received, read)) = (secrets.tx, secrets.rx);
        let suite = keys.suite();
        Ok(Self {
            keys,
            reads: Reads { cipher: decrypter(suite, read)?, sequence: received },
            writes: Sealer::new(suite, write, sent)?,
            partial: Vec::new(),
            owes_keys: false,
            was_asked_again: false,
            warnings: WARNINGS_MAX,
            key_updates: KEY_UPDATES_MAX,
            failed: None,
        })
    }

    /// Decrypts a whole record where it lies. What fails once fails from then on; [`Records::alert`] says what the peer is told.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, Error> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let opened = self.try_open(record);
        if let Err(error) = &opened {
            self.failed = Some(error.clone());
        }
        opened
    }

    fn try_open(&mut self, record: &mut [u8]) -> Result<Opened, Error> {
        let (header, payload) = record.split_first_chunk_mut::<HEADER>().ok_or(InvalidMessage::MessageTooShort)?;
        let [kind, major, minor, ..] = *header;
        let kind = ContentType::from(kind);
        if self.keys.is_tls13() && kind != ContentType::ApplicationData {
            return Err(inappropriate(kind));
        }
        let begin = payload.as_ptr().addr();
        let message = InboundOpaqueMessage::new(kind, ProtocolVersion::from(u16::from_be_bytes([major, minor])), payload);
        let message = self.reads.cipher.decrypt(message, self.reads.sequence)?;
        self.reads.sequence = self.reads.sequence.checked_add(1).ok_or(Error::DecryptError)?;
        // A message is not interrupted by anything else (RFC 8446 section 5.1).
        if !self.partial.is_empty() && message.typ != ContentType::Handshake {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        match message.typ {
            ContentType::ApplicationData => {
                self.key_updates = KEY_UPDATES_MAX;
                let start = HEADER + message.payload.as_ptr().addr() - begin;
                Ok(Opened::Data(start..start + message.payload.len()))
            }
            ContentType::Alert => self.hear(message.payload),
            ContentType::Handshake => self.heed(message.payload).map(|()| Opened::Heeded),
            other @ (ContentType::ChangeCipherSpec | ContentType::Heartbeat | ContentType::Unknown(_) | _) => Err(inappropriate(other)),
        }
    }

    /// Takes in an alert.
    fn hear(&mut self, alert: &[u8]) -> Result<Opened, Error> {
        let &[level, description] = alert else { return Err(InvalidMessage::MissingData("alert").into()) };
        let description = AlertDescription::from(description);
        if description == AlertDescription::CloseNotify {
            return Ok(Opened::End);
        }
        let is_warning = level == WARNING && (!self.keys.is_tls13() || description == AlertDescription::UserCanceled);
        if !is_warning {
            return Err(Error::AlertReceived(description));
        }
        self.warnings = self.warnings.checked_sub(1).ok_or(PeerMisbehaved::TooManyWarningAlertsReceived)?;
        Ok(Opened::Heeded)
    }

    /// Takes in handshake messages, of which the first may have begun and the last may not have ended.
    fn heed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.partial.extend_from_slice(bytes);
        let whole = std::mem::take(&mut self.partial);
        let mut rest = &*whole;
        while let Some((&[kind, a, b, c], behind)) = rest.split_first_chunk::<MESSAGE_HEADER>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > MESSAGE_MAX {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some((body, behind)) = behind.split_at_checked(length) else { break };
            self.message(HandshakeType::from(kind), body, behind.is_empty())?;
            rest = behind;
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    /// Takes in one handshake message.
    fn message(&mut self, kind: HandshakeType, body: &[u8], is_last: bool) -> Result<(), Error> {
        match (&mut self.keys, kind, body) {
            (Keys::Client(keys), HandshakeType::NewSessionTicket, _) => keys.handle_new_session_ticket(body),
            (keys, HandshakeType::KeyUpdate, &[asks @ (0 | 1)]) if keys.is_tls13() => {
                // What follows would be encrypted with the new keys already.
                if !is_last {
                    return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                }
                self.key_updates = self.key_updates.checked_sub(1).ok_or(PeerMisbehaved::TooManyKeyUpdateRequests)?;
                let (sequence, secrets) = keys.next_read()?;
                self.reads = Reads { cipher: decrypter(keys.suite(), secrets)?, sequence };
                self.owes_keys |= asks == 1;
                Ok(())
            }
            (_, HandshakeType::KeyUpdate, _) => Err(InvalidMessage::InvalidKeyUpdate.into()),
            (keys @ Keys::Client(_), HandshakeType::HelloRequest, []) if !keys.is_tls13() && !self.was_asked_again => {
                self.was_asked_again = true;
                Ok(())
            }
            (_, kind, _) => Err(Error::InappropriateHandshakeMessage { expect_types: Vec::new(), got_type: kind }),
        }
    }

    /// Encrypts `from`, or as much of it as `out` has room for, behind what is in `out`. Gives how much it was.
    pub(super) fn seal(&mut self, from: &[IoSlice<'_>], out: &mut Buffer) -> Result<usize, Error> {
        self.renew_if_due(out)?;
        let all = from.iter().map(|part| part.len()).sum();
        let taken = Sealer::fits(out.room()).min(all);
        let (mut pieces, mut left) = (Pieces::new(from), taken);
        while left > 0 {
            let fragment = left.min(FRAGMENT_MAX);
            self.writes.seal(ContentType::ApplicationData, &mut pieces, fragment, out)?;
            left -= fragment;
        }
        Ok(taken)
    }

    /// New keys of this end, where the peer has asked for them or the old ones have encrypted as much as they may (RFC 8446 section 5.5).
    fn renew_if_due(&mut self, out: &mut Buffer) -> Result<(), Error> {
        if !self.owes_keys && self.writes.sequence < self.keys.confidentiality_limit() {
            return Ok(());
        }
        if !self.keys.is_tls13() {
            return Err(Error::EncryptError);
        }
        self.say(ContentType::Handshake, &[u8::from(HandshakeType::KeyUpdate), 0, 0, 1, 0], out)?;
        let (sequence, secrets) = self.keys.next_write()?;
        self.writes = Sealer::new(self.keys.suite(), secrets, sequence)?;
        self.owes_keys = false;
        Ok(())
    }

    /// Says that nothing more will be written.
    pub(super) fn close(&mut self, out: &mut Buffer) -> Result<(), Error> {
        self.say(ContentType::Alert, &[WARNING, u8::from(AlertDescription::CloseNotify)], out)
    }

    /// Tells the peer of an error that it has made.
    pub(super) fn alert(&mut self, error: &Error, out: &mut Buffer) -> Result<(), Error> {
        match about(error) {
            Some(description) => self.say(ContentType::Alert, &[FATAL, u8::from(description)], out),
            None => Ok(()),
        }
    }

    /// One record of TLS to itself.
    fn say(&mut self, kind: ContentType, bytes: &[u8], out: &mut Buffer) -> Result<(), Error> {
        out.reserve(OVERHEAD_MAX + bytes.len());
        self.writes.seal(kind, &mut Pieces::new(&[IoSlice::new(bytes)]), bytes.len(), out)
    }
}

impl Keys {
    pub(super) fn suite(&self) -> SupportedCipherSuite {
        match self {
            Self::Client(keys) => keys.negotiated_cipher_suite(),
            Self::Server(keys) => keys.negotiated_cipher_suite(),
        }
    }

    fn is_tls13(&self) -> bool {
        matches!(self.suite(), SupportedCipherSuite::Tls13(_))
    }

    /// How many records one key may encrypt.
    fn confidentiality_limit(&self) -> u64 {
        match self.suite() {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        }
    }

    fn next_read(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(keys) => keys.update_rx_secret(),
            Self::Server(keys) => keys.update_rx_secret(),
        }
    }

    fn next_write(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(keys) => keys.update_tx_secret(),
            Self::Server(keys) => keys.update_tx_secret(),
        }
    }
}

fn decrypter(suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets) -> Result<Box<dyn MessageDecrypter>, Error> {
    let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
    else {
        return Err(Error::General("a cipher that this version does not know".to_owned()));
    };
    match suite {
        SupportedCipherSuite::Tls13(suite) => Ok(suite.aead_alg.decrypter(key, iv)),
        SupportedCipherSuite::Tls12(suite) => {
            // The rest of the nonce comes with each record, or is counted.
            let fixed = iv.as_ref().get(..suite.aead_alg.key_block_shape().fixed_iv_len).ok_or(Error::DecryptError)?;
            Ok(suite.aead_alg.decrypter(key, fixed))
        }
    }
}

fn inappropriate(got_type: ContentType) -> Error {
    Error::InappropriateMessage { expect_types: vec![ContentType::ApplicationData], got_type }
}

/// How an error is told to who has made it (RFC 8446 section 6.2); `None` for what it has said itself.
fn about(error: &Error) -> Option<AlertDescription> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls' errors are many, and open")]
    match error {
        Error::AlertReceived(_) => None,
        Error::DecryptError => Some(AlertDescription::BadRecordMac),
        Error::PeerSentOversizedRecord => Some(AlertDescription::RecordOverflow),
        Error::InvalidMessage(error) => Some((*error).into()),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } | Error::PeerMisbehaved(_) => {
            Some(AlertDescription::UnexpectedMessage)
        }
        _ => Some(AlertDescription::InternalError),
    }
}

#[cfg(test)]
mod tests;
