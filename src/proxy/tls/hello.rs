//! The first message of a TLS client: whether another proxy of the mesh speaks to this one, or an app to an app.
//!
//! In: the first bytes of a connection. Out: [`Hello`]. A proxy of the mesh offers an application protocol (ALPN, RFC 7301)
//! that begins with `leno/`; nobody else does. Nothing is decrypted or verified here, so a wrong guess costs no more than
//! a failed handshake. TLS allows the message to be cut into records at any byte (RFC 8446 section 5.1).

/// How the application protocols of the mesh begin.
const PREFIX: &[u8] = b"leno/";
/// Longest hello that is looked at: with a post-quantum key and a session ticket one has some 4 KiB.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;
/// Longest beginning of a connection that is looked at: each record may hold as little as one byte of it.
pub const BYTES_MAX: usize = 2 * HELLO_BYTES_MAX;

const RECORD_HEADER: usize = 5;
const RECORD_BYTES_MAX: usize = 16 * 1024;
const MESSAGE_HEADER: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// Not enough to say.
    NeedMore,
    /// A proxy of the mesh begins a handshake.
    Ours,
    /// Anything else: plain bytes, or an app's own TLS.
    Other,
}

/// Says what `bytes`, the first of a connection, are. Once it says other than [`Hello::NeedMore`], more bytes do not change
/// it; it does by [`BYTES_MAX`] bytes.
pub fn peek(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Message::NeedMore if bytes.len() < BYTES_MAX => Hello::NeedMore,
        Message::NeedMore | Message::No => Hello::Other,
        Message::Whole(message) => {
            if offers(&message) == Some(true) {
                Hello::Ours
            } else {
                Hello::Other
            }
        }
    }
}

/// The server that a TLS client names (SNI, RFC 6066 section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sni {
    /// Not enough to say.
    NeedMore,
    /// This one.
    Name(String),
    /// TLS that names none.
    Missing,
    /// No TLS.
    NoTls,
}

/// Says whom the TLS client names whose first bytes these are.
pub fn server_name(bytes: &[u8]) -> Sni {
    match message(bytes) {
        Message::NeedMore if bytes.len() < BYTES_MAX => Sni::NeedMore,
        Message::NeedMore | Message::No => Sni::NoTls,
        Message::Whole(message) => named(&message).map_or(Sni::Missing, Sni::Name),
    }
}

/// Whether `bytes`, the first of a connection, begin TLS, as far as they tell.
pub fn begins_tls(bytes: &[u8]) -> bool {
    bytes.len() >= RECORD_HEADER && !matches!(record(bytes), Record::No)
}

fn named(hello: &[u8]) -> Option<String> {
    let (mut names, _) = vector16(extension(hello, EXTENSION_SERVER_NAME)??)?;
    while let Some((kind, rest)) = names.split_first() {
        let (name, rest) = vector16(rest)?;
        if *kind == HOST_NAME {
            return std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).map(str::to_owned);
        }
        names = rest;
    }
    None
}

enum Message<'b> {
    NeedMore,
    No,
    /// The body of a ClientHello.
    Whole(std::borrow::Cow<'b, [u8]>),
}

/// The ClientHello that the records hold; gathered where it is cut into several.
fn message(bytes: &[u8]) -> Message<'_> {
    let mut gathered: Vec<u8> = Vec::new();
    let mut rest = bytes;
    loop {
        let fragment = match record(rest) {
            Record::No => return Message::No,
            Record::Partial(fragment) | Record::Whole(fragment, _) => fragment,
        };
        if gathered.is_empty() && fragment.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Message::No;
        }
        if gathered.is_empty()
            && let Some(message) = body(fragment)
        {
            return message.map_or(Message::No, |body| Message::Whole(body.into()));
        }
        gathered.extend_from_slice(fragment);
        match body(&gathered) {
            Some(Some(found)) => return Message::Whole(found.to_vec().into()),
            Some(None) => return Message::No,
            None => {}
        }
        match record(rest) {
            Record::Whole(_, after) => rest = after,
            Record::Partial(_) | Record::No => return Message::NeedMore,
        }
    }
}

enum Record<'b> {
    No,
    /// What there is of its content.
    Partial(&'b [u8]),
    /// Its content, and what follows.
    Whole(&'b [u8], &'b [u8]),
}

/// The first record of `bytes`, if it is one of a handshake.
fn record(bytes: &[u8]) -> Record<'_> {
    let begins = [HANDSHAKE, 3];
    let seen = bytes.len().min(begins.len());
    if bytes[..seen] != begins[..seen] {
        return Record::No;
    }
    let Some((header, content)) = bytes.split_at_checked(RECORD_HEADER) else { return Record::Partial(&[]) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length == 0 || length > RECORD_BYTES_MAX {
        return Record::No;
    }
    match content.split_at_checked(length) {
        Some((content, after)) => Record::Whole(content, after),
        None => Record::Partial(content),
    }
}

/// The body of the message that begins `bytes`; the inner `None` where it is longer than is looked at, the outer where it
/// is not all there.
fn body(bytes: &[u8]) -> Option<Option<&[u8]>> {
    let header = bytes.first_chunk::<MESSAGE_HEADER>()?;
    let length = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
    if length > HELLO_BYTES_MAX {
        return Some(None);
    }
    bytes.get(MESSAGE_HEADER..MESSAGE_HEADER + length).map(Some)
}

/// Whether the hello offers a protocol of the mesh; `None` where it is malformed.
fn offers(hello: &[u8]) -> Option<bool> {
    let Some(content) = extension(hello, EXTENSION_ALPN)? else { return Some(false) };
    let (mut names, _) = vector16(content)?;
    while !names.is_empty() {
        let (name, rest) = vector8(names)?;
        if name.starts_with(PREFIX) {
            return Some(true);
        }
        names = rest;
    }
    Some(false)
}

/// The hello's extension `wanted`, if it has it; the outer `None` where it is malformed (RFC 8446 section 4.1.2).
fn extension(hello: &[u8], wanted: u16) -> Option<Option<&[u8]>> {
    let rest = hello.get(2 + 32..)?;
    let (_session, rest) = vector8(rest)?;
    let (_suites, rest) = vector16(rest)?;
    let (_compressions, rest) = vector8(rest)?;
    let (mut extensions, _) = vector16(rest)?;
    while let Some((kind, rest)) = extensions.split_first_chunk::<2>() {
        let (content, rest) = vector16(rest)?;
        if u16::from_be_bytes(*kind) == wanted {
            return Some(Some(content));
        }
        extensions = rest;
    }
    Some(None)
}

/// A vector whose length is one byte, and what follows it.
fn vector8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// A vector whose length is two bytes, and what follows it.
fn vector16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What rustls sends first when it offers these protocols.
    fn hello(protocols: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut client = ClientConnection::new(Arc::new(config), "payment".try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same hello in records of at most `length` bytes.
    fn cut(hello: &[u8], length: usize) -> Vec<u8> {
        let records = hello[RECORD_HEADER..].chunks(length);
        records.flat_map(|part| [&[22, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat()).collect()
    }

    #[test]
    fn a_hello_that_offers_a_protocol_of_the_mesh_is_ours_and_anything_else_is_not() {
        let post_quantum = hello(&["leno/http"]);
        assert!(post_quantum.len() > 1200, "it has a post-quantum key: {}", post_quantum.len());
        let cases: [(&str, Vec<u8>, Hello); 12] = [
            ("ours", post_quantum.clone(), Hello::Ours),
            ("a later one of ours beside others", hello(&["h2", "leno/v2"]), Hello::Ours),
            ("an app's", hello(&["h2", "http/1.1"]), Hello::Other),
            ("an app's that only looks alike", hello(&["leno", "xleno/http"]), Hello::Other),
            ("without protocols", hello(&[]), Hello::Other),
            ("in records of one byte", cut(&post_quantum, 1), Hello::Ours),
            ("in records of 100 bytes", cut(&post_quantum, 100), Hello::Ours),
            ("HTTP", b"GET / HTTP/1.1\r\n".to_vec(), Hello::Other),
            ("nothing", Vec::new(), Hello::NeedMore),
            ("an alert", vec![21, 3, 1, 0, 2], Hello::Other),
            ("another message", vec![22, 3, 1, 0, 4, 2, 0, 0, 0], Hello::Other),
            ("a hello longer than any", vec![22, 3, 1, 0, 4, 1, 0xff, 0, 0], Hello::Other),
        ];
        for (case, bytes, want) in cases {
            assert_eq!(peek(&bytes), want, "{case}");
        }
    }

    #[test]
    fn the_server_that_a_client_names_is_found() {
        let named = Sni::Name("payment".to_owned());
        let whole = hello(&["h2"]);
        let cases = [
            (whole.clone(), named.clone()),
            (cut(&whole, 7), named),
            (whole[..40].to_vec(), Sni::NeedMore),
            (b"GET / HTTP/1.1\r\n".to_vec(), Sni::NoTls),
        ];
        for (bytes, want) in cases {
            assert_eq!(server_name(&bytes), want);
        }
        assert!(begins_tls(&whole) && !begins_tls(b"GET / HTTP/1.1") && !begins_tls(b""));
    }

    #[test]
    fn records_without_an_end_are_looked_at_only_so_far() {
        let endless = cut(&[&[22, 3, 1, 0, 0, 1, 0, 0x3f, 0xff][..], &[0; 20_000]].concat(), 1);
        assert_eq!(peek(&endless[..BYTES_MAX - 1]), Hello::NeedMore);
        assert_eq!(peek(&endless[..BYTES_MAX]), Hello::Other);
    }

    proptest! {
        #[test]
        fn a_verdict_never_changes_with_more_bytes(
            length in 1_usize..400,
            ours in any::<bool>(),
            flip in prop::option::of((0_usize..600, any::<u8>())),
        ) {
            let mut bytes = cut(&hello(&[if ours { "leno/tcp" } else { "h2" }]), length);
            if let Some((place, value)) = flip {
                bytes[place] = value;
            }
            let mut settled = None;
            for end in 0..=bytes.len() {
                let verdict = peek(&bytes[..end]);
                if let Some(settled) = settled {
                    prop_assert_eq!(verdict, settled, "at {}", end);
                } else if verdict != Hello::NeedMore {
                    settled = Some(verdict);
                }
            }
            let want = if ours { Hello::Ours } else { Hello::Other };
            prop_assert!(flip.is_some() || settled == Some(want));
        }
    }
}
