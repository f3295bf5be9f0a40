//! Responses made of shared bytes: a resource is encoded once, whoever it is sent to.
//!
//! A protobuf message may have its fields in any order and a length-delimited field is just its bytes, so a response is glue
//! (prefix, type, nonce, aliases: a few bytes of its own) between resources that all subscribers share.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use leno_core::names::Name;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::encode;
use crate::frame::{PREFIX_BYTES, put_prefix};
use crate::subject::Subject;

/// Field numbers of DeltaDiscoveryResponse, Resource and Any.
mod field {
    pub(super) const RESOURCES: u32 = 2;
    pub(super) const TYPE_URL: u32 = 4;
    pub(super) const NONCE: u32 = 5;
    pub(super) const REMOVED: u32 = 6;
    pub(super) const RESOURCE_VERSION: u32 = 1;
    pub(super) const RESOURCE_ANY: u32 = 2;
    pub(super) const RESOURCE_NAME: u32 = 3;
    pub(super) const RESOURCE_ALIASES: u32 = 4;
    pub(super) const ANY_TYPE_URL: u32 = 1;
    pub(super) const ANY_VALUE: u32 = 2;
}

/// One resource, encoded once. Shared in an `Arc` by every connection that sends it.
#[derive(Debug)]
pub struct Encoded {
    subject: Subject,
    version: Name,
    /// The fields of the Resource message but its aliases.
    fields: Bytes,
    /// How many bytes at the end of `fields` are the resource itself.
    value_bytes: usize,
}

impl Encoded {
    /// The resource whose canonical name is `subject`, with its encoded `value` (see [`crate::encode`]).
    pub fn new(subject: Subject, value: &[u8]) -> Self {
        let version = encode::version(value);
        let url = subject.resource_type().url();
        let any_bytes = string_len(field::ANY_TYPE_URL, url) + bytes_len(field::ANY_VALUE, value.len());
        let mut fields = BytesMut::with_capacity(any_bytes + 128);
        put_string(&mut fields, field::RESOURCE_NAME, &subject.to_string());
        put_string(&mut fields, field::RESOURCE_VERSION, &version);
        put_length(&mut fields, field::RESOURCE_ANY, any_bytes);
        put_string(&mut fields, field::ANY_TYPE_URL, url);
        put_length(&mut fields, field::ANY_VALUE, value.len());
        fields.put_slice(value);
        Self { subject, version, fields: fields.freeze(), value_bytes: value.len() }
    }

    /// Its canonical name.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Its version.
    pub fn version(&self) -> &Name {
        &self.version
    }

    /// The encoded resource.
    pub fn value(&self) -> &[u8] {
        &self.fields[self.fields.len() - self.value_bytes..]
    }

    /// What is shared among those it is sent to.
    pub fn shared(&self) -> &Bytes {
        &self.fields
    }
}

/// One gRPC message to be written, with its prefix: a chain of shared and own bytes.
#[derive(Clone, Debug)]
pub struct Message {
    pieces: VecDeque<Bytes>,
    remaining: usize,
    resources: usize,
}

impl Message {
    /// A message that carries no resources: the answer of another method.
    pub fn other(message: &impl prost::Message) -> Self {
        let bytes = crate::frame::encode(message);
        Self { remaining: bytes.len(), pieces: VecDeque::from([bytes]), resources: 0 }
    }

    /// How many resources it carries.
    pub fn resources(&self) -> usize {
        self.resources
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }
}

impl Buf for Message {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], Bytes::as_ref)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let count = slices.len().min(self.pieces.len());
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced by {count}, but {} bytes are left", self.remaining);
        self.remaining -= count;
        while let Some(first) = self.pieces.front_mut() {
            if count < first.len() {
                return first.advance(count);
            }
            count -= first.len();
            self.pieces.pop_front();
        }
    }
}

/// Builds one response.
pub(crate) struct Builder {
    glue: BytesMut,
    /// Where in the glue each shared piece belongs.
    cuts: Vec<(usize, Bytes)>,
    shared_bytes: usize,
}

impl Builder {
    pub(crate) fn new(type_url: &str, nonce: u64) -> Self {
        let mut glue = BytesMut::with_capacity(160);
        glue.put_bytes(0, PREFIX_BYTES);
        put_string(&mut glue, field::TYPE_URL, type_url);
        put_string(&mut glue, field::NONCE, &nonce.to_string());
        Self { glue, cuts: Vec::new(), shared_bytes: 0 }
    }

    pub(crate) fn resource(&mut self, resource: &Encoded, aliases: &[Subject]) {
        let aliases: Vec<String> = aliases.iter().map(ToString::to_string).collect();
        let alias_bytes: usize = aliases.iter().map(|alias| string_len(field::RESOURCE_ALIASES, alias)).sum();
        put_length(&mut self.glue, field::RESOURCES, alias_bytes + resource.fields.len());
        for alias in &aliases {
            put_string(&mut self.glue, field::RESOURCE_ALIASES, alias);
        }
        self.shared_bytes += resource.fields.len();
        self.cuts.push((self.glue.len(), resource.fields.clone()));
    }

    pub(crate) fn removed(&mut self, name: &str) {
        put_string(&mut self.glue, field::REMOVED, name);
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.glue.len() + self.shared_bytes
    }

    pub(crate) fn finish(mut self) -> Message {
        let remaining = self.len();
        put_prefix(&mut &mut self.glue[..PREFIX_BYTES], remaining - PREFIX_BYTES);
        let resources = self.cuts.len();
        let mut glue = self.glue.freeze();
        let mut pieces = VecDeque::with_capacity(2 * resources + 1);
        let mut start = 0;
        for (cut, shared) in self.cuts {
            pieces.push_back(glue.split_to(cut - start));
            pieces.push_back(shared);
            start = cut;
        }
        pieces.push_back(glue);
        pieces.retain(|piece| !piece.is_empty());
        Message { pieces, remaining, resources }
    }
}

fn put_length(out: &mut BytesMut, tag: u32, bytes: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes as u64, out);
}

fn put_string(out: &mut BytesMut, tag: u32, text: &str) {
    put_length(out, tag, text.len());
    out.put_slice(text.as_bytes());
}

fn bytes_len(tag: u32, bytes: usize) -> usize {
    key_len(tag) + encoded_len_varint(bytes as u64) + bytes
}

fn string_len(tag: u32, text: &str) -> usize {
    bytes_len(tag, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::discovery::DeltaDiscoveryResponse;
    use leno_core::names::ServiceId;
    use proptest::prelude::*;
    use prost::Message as _;

    proptest! {
        /// A standard decoder reads what was glued together, however it is written out.
        #[test]
        fn a_response_glued_of_shared_bytes_reads_like_any_other(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4),
            hosts in prop::collection::vec("[a-z]{1,9}\\.x", 0..3), removed in prop::collection::vec("[a-z]{1,9}", 0..3), step in 1usize..90,
        ) {
            let encoded: Vec<Encoded> = (0..).zip(&values).map(|(index, value)| {
                Encoded::new(Subject::Service(ServiceId::new("shop", format!("s{index}"))), value)
            }).collect();
            let aliases: Vec<Subject> = hosts.iter().map(|host| Subject::Host(host.as_str().into())).collect();
            let mut builder = Builder::new("type", 7);
            encoded.iter().for_each(|it| builder.resource(it, &aliases));
            removed.iter().for_each(|name| builder.removed(name));
            let mut message = builder.finish();
            prop_assert_eq!(message.pieces().map(Bytes::len).sum::<usize>(), message.remaining());
            let mut bytes = BytesMut::new();
            while message.has_remaining() {
                let count = message.chunk().len().min(step);
                bytes.extend_from_slice(&message.chunk()[..count]);
                message.advance(count);
            }
            prop_assert_eq!(bytes.get_u8(), 0);
            prop_assert_eq!(bytes.get_u32() as usize, bytes.len());
            let response = DeltaDiscoveryResponse::decode(bytes.freeze()).unwrap();
            prop_assert_eq!((response.type_url.as_str(), response.nonce.as_str()), ("type", "7"));
            prop_assert_eq!(response.removed_resources, removed);
            prop_assert_eq!(response.resources.len(), encoded.len());
            for (resource, (encoded, value)) in response.resources.iter().zip(encoded.iter().zip(&values)) {
                prop_assert_eq!(&resource.name, &encoded.subject.to_string());
                prop_assert_eq!(resource.version.as_str(), &**encoded.version());
                prop_assert_eq!(&resource.aliases, &aliases.iter().map(ToString::to_string).collect::<Vec<_>>());
                let any = resource.resource.clone().unwrap();
                prop_assert_eq!((any.type_url.as_str(), &any.value[..]), (encoded.subject.resource_type().url(), value.as_slice()));
                prop_assert_eq!(encoded.value(), value.as_slice());
            }
        }
    }
}
