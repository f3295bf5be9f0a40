use std::rc::Rc;

use proptest::prelude::*;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::version::{TLS12, TLS13};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::buffers::{BLOCK, Buffers, LARGE_BLOCK};
use crate::tls::handshake::{Session, shake};
use crate::tls::testing::{NAME, Pki, suites};

/// Both ends of a connection, of which nothing was read after the handshake.
async fn pair(version: &'static rustls::SupportedProtocolVersion, suite: Option<SupportedCipherSuite>) -> (Records, Records) {
    let (pki, buffers) = (Pki::new(), Rc::new(Buffers::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    let client = UnbufferedClientConnection::new(pki.client(), NAME.try_into().unwrap()).unwrap();
    let server = UnbufferedServerConnection::new(pki.server(version, suite)).unwrap();
    let shaken = tokio::join!(shake(&near, Session::Client(client), None, &buffers), shake(&far, Session::Server(server), None, &buffers));
    let (mut client, server) = (shaken.0.unwrap().records, shaken.1.unwrap());
    // Tickets are records as well.
    let mut owed = server.owed;
    while let Some(length) = length(&owed).unwrap() {
        assert_eq!(client.open(&mut owed[..length]), Ok(Opened::Heeded));
        owed.drain(..length);
    }
    (client, server.records)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn buffer() -> Buffer {
    Rc::new(Buffers::default()).take_large()
}

/// Takes the records apart that were sealed into `out`.
fn records(out: &Buffer) -> Vec<Vec<u8>> {
    let (mut rest, mut records) = (out.filled(), Vec::new());
    while let Some(length) = length(rest).unwrap() {
        records.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    assert!(rest.is_empty());
    records
}

/// What `parts` are when they were sealed by one end and opened by the other.
fn carried(from: &mut Records, to: &mut Records, parts: &[&[u8]]) -> Vec<u8> {
    let mut opened = Vec::new();
    let all = parts.concat();
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    while opened.len() < all.len() {
        let mut out = buffer();
        let taken = from.seal(&slices, &mut out).unwrap();
        assert!(taken > 0 && out.block().len() == LARGE_BLOCK, "the block has not grown");
        let before = opened.len();
        for mut record in records(&out) {
            match to.open(&mut record).unwrap() {
                Opened::Data(place) => {
                    assert!((1..=FRAGMENT_MAX).contains(&place.len()));
                    opened.extend_from_slice(&record[place]);
                }
                Opened::Heeded => {}
                Opened::End => panic!("it has not ended"),
            }
        }
        assert_eq!(opened.len(), before + taken);
        slices = vec![IoSlice::new(&all[opened.len()..])];
    }
    opened
}

/// One record of any type.
fn sealed(from: &mut Records, kind: ContentType, bytes: &[u8]) -> Vec<u8> {
    let mut out = buffer();
    from.say(kind, bytes, &mut out).unwrap();
    out.filled().to_vec()
}

/// New keys that `from` has not been asked for.
fn renew(from: &mut Records) {
    let (sequence, secrets) = from.keys.next_write().unwrap();
    from.writes = Sealer::new(from.keys.suite(), secrets, sequence).unwrap();
}

#[test]
fn with_every_cipher_what_one_end_seals_the_other_opens() {
    let long = vec![7; 3 * FRAGMENT_MAX + 1];
    for (version, suite) in suites() {
        let (mut client, mut server) = wait(pair(version, Some(suite)));
        for bytes in [&b"x"[..], &long[..FRAGMENT_MAX], &long] {
            assert_eq!(carried(&mut client, &mut server, &[bytes]), bytes, "{suite:?}");
            assert_eq!(carried(&mut server, &mut client, &[bytes]), bytes, "{suite:?}");
        }
        let mut out = buffer();
        client.close(&mut out).unwrap();
        assert_eq!(server.open(&mut records(&out)[0]), Ok(Opened::End));
    }
}

#[test]
fn as_much_is_sealed_as_there_is_room_for_and_long_bytes_fill_a_block() {
    let (mut client, _) = wait(pair(&TLS13, None));
    let mut out = Rc::new(Buffers::default()).take();
    out.fill(BLOCK - OVERHEAD_MAX - 3);
    assert_eq!(client.seal(&[IoSlice::new(b"ab"), IoSlice::new(b"cdef")], &mut out), Ok(3));
    assert_eq!(out.block().len(), BLOCK);
    let mut out = buffer();
    assert_eq!(client.seal(&[IoSlice::new(&vec![0; 2 * LARGE_BLOCK])], &mut out), Ok(4 * FRAGMENT_MAX));
    assert_eq!(records(&out).len(), 4);
}

#[test]
fn whoever_asks_for_new_keys_gets_them_before_the_next_bytes() {
    let (mut client, mut server) = wait(pair(&TLS13, None));
    for _ in 0..2 * KEY_UPDATES_MAX {
        let mut ask = sealed(&mut client, ContentType::Handshake, &[24, 0, 0, 1, 1]);
        renew(&mut client);
        assert_eq!(server.open(&mut ask), Ok(Opened::Heeded));
        let mut out = buffer();
        server.seal(&[IoSlice::new(b"new")], &mut out).unwrap();
        let mut sent = records(&out);
        assert_eq!(sent.len(), 2, "the new keys, and the bytes");
        assert_eq!(client.open(&mut sent[0]), Ok(Opened::Heeded));
        assert_eq!(client.open(&mut sent[1]), Ok(Opened::Data(HEADER..HEADER + 3)));
        assert_eq!(carried(&mut server, &mut client, &[b"answer"]), b"answer");
        assert_eq!(carried(&mut client, &mut server, &[b"question"]), b"question");
    }
}

#[test]
fn keys_that_have_encrypted_enough_are_replaced_and_where_they_cannot_be_nothing_more_is_sealed() {
    let (mut client, mut server) = wait(pair(&TLS13, None));
    let limit = client.keys.confidentiality_limit();
    (client.writes.sequence, server.reads.sequence) = (limit - 1, limit - 1);
    assert_eq!(carried(&mut client, &mut server, &[b"last"]), b"last");
    assert_eq!(carried(&mut client, &mut server, &[b"first"]), b"first");
    assert_eq!((client.writes.sequence, server.reads.sequence), (1, 1));

    let (mut client, _) = wait(pair(&TLS12, None));
    client.writes.sequence = client.keys.confidentiality_limit();
    assert_eq!(client.seal(&[IoSlice::new(b"more")], &mut buffer()), Err(Error::EncryptError));
}

#[test]
fn alerts_end_a_connection_unless_they_are_warnings_of_which_a_few_are_taken() {
    let (mut client, mut server) = wait(pair(&TLS13, None));
    for _ in 0..WARNINGS_MAX {
        let mut warning = sealed(&mut client, ContentType::Alert, &[1, 90]);
        assert_eq!(server.open(&mut warning), Ok(Opened::Heeded), "user_canceled");
    }
    let mut warning = sealed(&mut client, ContentType::Alert, &[1, 90]);
    assert_eq!(server.open(&mut warning), Err(PeerMisbehaved::TooManyWarningAlertsReceived.into()));
    let mut refusal = sealed(&mut server, ContentType::Alert, &[2, 49]);
    let refused = client.open(&mut refusal).unwrap_err();
    let mut out = buffer();
    client.alert(&refused, &mut out).unwrap();
    assert_eq!((&refused, out.len()), (&Error::AlertReceived(AlertDescription::AccessDenied), 0), "who says it needs not be told");
    let mut late = sealed(&mut server, ContentType::ApplicationData, b"late");
    assert_eq!(client.open(&mut late), Err(refused), "what has failed stays so");
}

#[test]
fn new_keys_without_bytes_between_them_end_a_connection() {
    let (mut client, mut server) = wait(pair(&TLS13, None));
    let mut opened = Ok(Opened::Heeded);
    let mut updates = 0;
    while opened.is_ok() {
        let mut update = sealed(&mut client, ContentType::Handshake, &[24, 0, 0, 1, 0]);
        renew(&mut client);
        opened = server.open(&mut update);
        updates += 1;
    }
    assert_eq!((opened, updates), (Err(PeerMisbehaved::TooManyKeyUpdateRequests.into()), u32::from(KEY_UPDATES_MAX) + 1));
}

#[test]
fn messages_of_the_handshake_may_come_in_pieces_but_nothing_between_them() {
    let ticket = [&[4, 0, 0, 17][..], &[0, 0, 0, 9], &[0; 4], &[1, 5], &[0, 2, 8, 8], &[0, 0], &[9]].concat();
    let (mut client, mut server) = wait(pair(&TLS13, None));
    for piece in ticket[..ticket.len() - 1].chunks(3) {
        let mut record = sealed(&mut server, ContentType::Handshake, piece);
        assert_eq!(client.open(&mut record), Ok(Opened::Heeded));
    }
    assert!(!client.partial.is_empty());
    let mut data = sealed(&mut server, ContentType::ApplicationData, b"between");
    assert_eq!(client.open(&mut data), Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into()));
}

#[test]
fn a_server_outside_that_asks_to_begin_anew_is_ignored_once() {
    let (mut client, mut server) = wait(pair(&TLS12, None));
    let mut ask = || sealed(&mut server, ContentType::Handshake, &[0, 0, 0, 0]);
    assert_eq!(client.open(&mut ask()), Ok(Opened::Heeded));
    assert!(matches!(client.open(&mut ask()), Err(Error::InappropriateHandshakeMessage { .. })));
}

#[test]
fn in_tls_13_nothing_comes_in_the_clear() {
    for kind in [20, 21, 22] {
        let (mut client, _) = wait(pair(&TLS13, None));
        let mut record = [kind, 3, 3, 0, 2, 1, 0];
        let error = client.open(&mut record).unwrap_err();
        assert!(matches!(error, Error::InappropriateMessage { .. }), "{error:?}");
        let mut out = buffer();
        client.alert(&error, &mut out).unwrap();
        assert!(!out.is_empty(), "the peer is told");
    }
}

proptest! {
    #[test]
    fn bytes_in_any_pieces_come_as_they_were(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20_000), 0..12)) {
        let (mut client, mut server) = wait(pair(&TLS13, None));
        let pieces: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
        prop_assert_eq!(carried(&mut client, &mut server, &pieces), parts.concat());
    }

    #[test]
    fn a_record_that_was_changed_anywhere_is_refused(bytes in prop::collection::vec(any::<u8>(), 1..100), at in any::<prop::sample::Index>(), by in 1u8..) {
        for version in [&TLS13, &TLS12] {
            let (mut client, mut server) = wait(pair(version, None));
            let mut record = sealed(&mut client, ContentType::ApplicationData, &bytes);
            let at = at.index(record.len());
            record[at] ^= by;
            // TLS 1.3 does not protect the version (RFC 8446 section 5.2): 3.x is what it was.
            let is_same = version.version == ProtocolVersion::TLSv1_3 && at == 2;
            match length(&record) {
                Ok(Some(whole)) if whole == record.len() => prop_assert_eq!(server.open(&mut record).is_err(), !is_same),
                Ok(Some(other)) => prop_assert!(other != record.len(), "it waits for more, or takes less, which fails"),
                Ok(None) => prop_assert!(false, "the header is there"),
                Err(_) => {}
            }
        }
    }

    #[test]
    fn whatever_a_proven_peer_says_of_the_handshake_is_taken_or_refused(
        messages in prop::collection::vec((prop::sample::select(vec![0u8, 1, 4, 8, 13, 24, 99]), prop::collection::vec(any::<u8>(), 0..40)), 1..4),
        cut in 1usize..50,
        is_honest in any::<bool>(),
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|(kind, body)| {
            let length = u8::try_from(body.len()).unwrap();
            [vec![*kind, 0, if is_honest { 0 } else { length }, length], body.clone()].concat()
        }).collect();
        for version in [&TLS13, &TLS12] {
            let (mut client, mut server) = wait(pair(version, None));
            for piece in bytes.chunks(cut) {
                let mut to_client = sealed(&mut server, ContentType::Handshake, piece);
                let mut to_server = sealed(&mut client, ContentType::Handshake, piece);
                // Keys that one end has changed make the other's records unreadable, which is an error and no panic.
                let (_, _) = (client.open(&mut to_client), server.open(&mut to_server));
            }
            prop_assert!(client.partial.len() <= MESSAGE_MAX && server.partial.len() <= MESSAGE_MAX);
        }
    }

    #[test]
    fn any_bytes_have_a_length_or_are_no_record(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(Some(length)) = length(&bytes) {
            prop_assert!((HEADER..=HEADER + PAYLOAD_MAX).contains(&length));
        }
    }
}
