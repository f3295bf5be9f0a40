//! The handshake of one connection, to its last byte. It is rustls'; here are only the bytes that it reads and writes.

use std::io::{self, IoSlice};
use std::rc::Rc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CommonState, Error, HandshakeKind, ProtocolVersion};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;

use super::Agreed;
use super::records::{Keys, Records};
use crate::buffers::{Buffer, Buffers};
use crate::io::{receive, send};

/// Either end of a handshake.
pub(super) enum Session {
    /// The end that has dialled.
    Client(UnbufferedClientConnection),
    /// The other.
    Server(UnbufferedServerConnection),
}

/// What a handshake has come to.
pub(super) struct Shaken {
    /// Both directions from now on.
    pub(super) records: Records,
    /// What the peer has shown, its own certificate first; empty if nothing.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The name of what is carried inside (RFC 7301).
    pub(super) alpn: Option<Vec<u8>>,
    /// What was agreed on.
    pub(super) agreed: Agreed,
    /// What has come after the handshake already, of which the first so many bytes are decrypted.
    pub(super) behind: Option<(Buffer, usize)>,
    /// What is still to be sent, with what is sent next.
    pub(super) owed: Vec<u8>,
}

/// What the handshake waits for.
enum Step {
    /// Nothing: it goes on.
    Go,
    /// More of what the peer sends.
    More,
}

/// Shakes hands; `first` is what was read of the connection before.
pub(super) async fn shake(tcp: &TcpStream, mut session: Session, first: Option<Buffer>, buffers: &Rc<Buffers>) -> io::Result<Shaken> {
    let mut incoming = first.unwrap_or_else(|| buffers.take());
    let (mut outgoing, mut early) = (Vec::new(), Vec::new());
    loop {
        let (taken, step) = session.step(incoming.filled_mut(), &mut outgoing, &mut early);
        incoming.consume(taken);
        let step = match step {
            Ok(step) => step,
            Err(error) => {
                // The peer is told why, if it can be told at once.
                while session.common().wants_write() && session.step(&mut [], &mut outgoing, &mut early).1.is_ok() {}
                if let Err(error) = send(tcp, &[IoSlice::new(&outgoing)]) {
                    tracing::debug!(%error, "the peer cannot be told what was wrong");
                }
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        // At once: what rustls would read from now on, it would keep.
        if session.is_done() {
            // The peer waits for this end's last word, unless that was a ticket, which goes along with what is sent next.
            if !session.owes_tickets_only() {
                write_out(tcp, &mut outgoing).await?;
            }
            return session.shaken(incoming, &early, outgoing, buffers).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if matches!(step, Step::More) {
            write_out(tcp, &mut outgoing).await?;
            if read_more(tcp, &mut incoming).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

async fn read_more(tcp: &TcpStream, incoming: &mut Buffer) -> io::Result<usize> {
    loop {
        match receive(tcp, incoming.spare()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tcp.readable().await?,
            read => return read.inspect(|&read| incoming.fill(read)),
        }
    }
}

async fn write_out(tcp: &TcpStream, outgoing: &mut Vec<u8>) -> io::Result<()> {
    let mut sent = 0;
    while sent < outgoing.len() {
        match send(tcp, &[IoSlice::new(&outgoing[sent..])]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tcp.writable().await?,
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            count => sent += count?,
        }
    }
    outgoing.clear();
    Ok(())
}

impl Session {
    fn step(&mut self, incoming: &mut [u8], outgoing: &mut Vec<u8>, early: &mut Vec<u8>) -> (usize, Result<Step, Error>) {
        match self {
            Self::Client(session) => take_step(session.process_tls_records(incoming), outgoing, early),
            Self::Server(session) => take_step(session.process_tls_records(incoming), outgoing, early),
        }
    }

    fn common(&self) -> &CommonState {
        match self {
            Self::Client(session) => session,
            Self::Server(session) => session,
        }
    }

    /// Whether both ends are satisfied, and all that is to be said of it is.
    fn is_done(&self) -> bool {
        !self.common().is_handshaking() && !self.common().wants_write()
    }

    /// Whether what is still to be sent is of no use to the peer's handshake: a server of TLS 1.3 ends after its client (RFC 8446 section 2).
    fn owes_tickets_only(&self) -> bool {
        matches!(self, Self::Server(session) if session.protocol_version() == Some(ProtocolVersion::TLSv1_3))
    }

    fn shaken(self, incoming: Buffer, early: &[u8], owed: Vec<u8>, buffers: &Rc<Buffers>) -> Result<Shaken, Error> {
        let agreed = agreement(self.common()).ok_or(Error::HandshakeNotComplete)?;
        let alpn = self.common().alpn_protocol().map(<[u8]>::to_vec);
        let chain = self.common().peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let (secrets, keys) = match self {
            Self::Client(session) => session.dangerous_into_kernel_connection().map(|(secrets, keys)| (secrets, Keys::Client(keys))),
            Self::Server(session) => session.dangerous_into_kernel_connection().map(|(secrets, keys)| (secrets, Keys::Server(keys))),
        }?;
        let behind = if early.is_empty() {
            Some((incoming, 0)).filter(|(incoming, _)| !incoming.is_empty())
        } else {
            let mut behind = buffers.take_large();
            behind.append(early);
            behind.append(incoming.filled());
            Some((behind, early.len()))
        };
        Ok(Shaken { records: Records::new(keys, secrets)?, chain, alpn, agreed, behind, owed })
    }
}

/// Does what rustls asks for, and gives how many bytes it has taken.
fn take_step<Side>(status: UnbufferedStatus<'_, '_, Side>, outgoing: &mut Vec<u8>, early: &mut Vec<u8>) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing),
        // It is sent when the handshake waits, or has ended.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Go)
        }
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut read = Ok(Step::Go);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        early.extend_from_slice(record.payload);
                    }
                    Err(error) => read = Err(error),
                }
            }
            read
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(Step::More),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed | ConnectionState::ReadEarlyData(_) | _) => {
            Err(Error::HandshakeNotComplete)
        }
        Err(error) => Err(error),
    };
    (discard, step)
}

fn encode<Side>(mut data: EncodeTlsData<'_, Side>, outgoing: &mut Vec<u8>) -> Result<Step, Error> {
    let before = outgoing.len();
    // Asked with no room, it says how much it needs.
    let needed = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return Ok(Step::Go),
    };
    outgoing.resize(before + needed, 0);
    match data.encode(&mut outgoing[before..]) {
        Ok(written) => outgoing.truncate(before + written),
        Err(error) => return Err(Error::General(error.to_string())),
    }
    Ok(Step::Go)
}

fn agreement(session: &CommonState) -> Option<Agreed> {
    Some(Agreed {
        version: session.protocol_version()?,
        cipher: session.negotiated_cipher_suite()?.suite(),
        group: session.negotiated_key_exchange_group()?.name(),
        is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    })
}

#[cfg(test)]
mod tests;
