//! From the wire format of protobuf to JSON, by a [`schema`](super::schema), without anything in between.

use super::schema::{Field, Form, fields_of};

/// In front of every object: Kubernetes' protobuf envelope.
const MAGIC: &[u8] = b"k8s\0";
/// The longest varint.
const VARINT_BYTES_MAX: usize = 10;

/// Bytes that are no event of a watch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("an event of a watch is {0} bytes long")]
    TooLong(usize),
    #[error("an event of a watch ends too early")]
    Truncated,
    #[error("an event of a watch has a field of wire type {0}")]
    WireType(u64),
    #[error("an event of a watch holds an object without Kubernetes' envelope")]
    NoEnvelope,
    #[error("an event of a watch holds text that is not UTF-8: {0}")]
    Text(#[from] std::str::Utf8Error),
}

/// Writes an event (`WatchEvent`) as a line of JSON.
pub(super) fn event_line(event: &[u8], line: &mut Vec<u8>) -> Result<(), Broken> {
    let (mut kind, mut object) = ("", &[][..]);
    for field in Wire(event) {
        match field? {
            (1, Value::Bytes(name)) => kind = std::str::from_utf8(name)?,
            (2, Value::Bytes(extension)) => object = last_bytes(extension, 1)?,
            _ => (),
        }
    }
    line.extend_from_slice(b"{\"type\":");
    text(kind, line);
    line.extend_from_slice(b",\"object\":");
    enveloped(object, line)?;
    line.extend_from_slice(b"}\n");
    Ok(())
}

/// The JSON of the status in `envelope`.
pub(super) fn status_line(envelope: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut line = Vec::new();
    enveloped(envelope, &mut line)?;
    Ok(line)
}

/// Writes the object in an envelope (`runtime.Unknown`), as its kind has it.
fn enveloped(envelope: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    let envelope = envelope.strip_prefix(MAGIC).ok_or(Broken::NoEnvelope)?;
    let types = last_bytes(envelope, 1)?;
    let kind = std::str::from_utf8(last_bytes(types, 2)?)?;
    out.extend_from_slice(b"{\"kind\":");
    text(kind, out);
    out.extend_from_slice(b",\"apiVersion\":");
    text(std::str::from_utf8(last_bytes(types, 1)?)?, out);
    members(last_bytes(envelope, 2)?, fields_of(kind), false, out)?;
    out.push(b'}');
    Ok(())
}

/// Writes the members of an object for a message's fields.
fn members(message: &[u8], fields: &[Field], mut is_first: bool, out: &mut Vec<u8>) -> Result<(), Broken> {
    for field in fields {
        let start = out.len();
        if !is_first {
            out.push(b',');
        }
        text(field.name, out);
        out.push(b':');
        if value_of(message, field, out)? {
            is_first = false;
        } else {
            out.truncate(start);
        }
    }
    Ok(())
}

/// Writes what `message` has of `field`; whether it has anything.
fn value_of(message: &[u8], field: &Field, out: &mut Vec<u8>) -> Result<bool, Broken> {
    let (open, close): (&[u8], &[u8]) = match (field.is_list, &field.form) {
        (true, _) => (b"[", b"]"),
        (false, Form::Map(_)) => (b"{", b"}"),
        (false, _) => (b"", b""),
    };
    let start = out.len();
    let (mut is_there, is_many) = (false, !open.is_empty());
    out.extend_from_slice(open);
    for found in Wire(message) {
        let (number, value) = found?;
        if number != field.number {
            continue;
        }
        let before = out.len();
        match (is_many, is_there) {
            (true, true) => out.push(b','),
            // Of a field that comes twice the last counts.
            (false, true) => out.truncate(start),
            (_, false) => (),
        }
        if write(&value, &field.form, out)? {
            is_there = true;
        } else {
            out.truncate(before);
            is_there &= is_many;
        }
    }
    out.extend_from_slice(close);
    Ok(is_there)
}

/// Writes one value; whether it is one that is written.
fn write(value: &Value<'_>, form: &Form, out: &mut Vec<u8>) -> Result<bool, Broken> {
    match (form, value) {
        (Form::Text, Value::Bytes(bytes)) => text(std::str::from_utf8(bytes)?, out),
        (Form::Number, Value::Varint(0)) => return Ok(false),
        (Form::Number, Value::Varint(number)) => out.extend_from_slice(number.cast_signed().to_string().as_bytes()),
        (Form::Flag, Value::Varint(flag)) => out.extend_from_slice(if *flag == 0 { b"false" } else { b"true" }),
        (Form::Presence, _) => out.extend_from_slice(b"true"),
        (Form::Map(wanted), Value::Bytes(pair)) => {
            let key = std::str::from_utf8(last_bytes(pair, 1)?)?;
            if !wanted(key) {
                return Ok(false);
            }
            text(key, out);
            out.push(b':');
            text(std::str::from_utf8(last_bytes(pair, 2)?)?, out);
        }
        (Form::NumberOrText, Value::Bytes(message)) => return number_or_text(message, out),
        (Form::Message(fields), Value::Bytes(message)) => {
            out.push(b'{');
            members(message, fields, true, out)?;
            out.push(b'}');
        }
        (_, _) => return Ok(false),
    }
    Ok(true)
}

/// Writes an `IntOrString`: its field 1 says which of the others counts.
fn number_or_text(message: &[u8], out: &mut Vec<u8>) -> Result<bool, Broken> {
    let (mut is_text, mut number, mut name) = (false, 0, &[][..]);
    for field in Wire(message) {
        match field? {
            (1, Value::Varint(kind)) => is_text = kind != 0,
            (2, Value::Varint(value)) => number = value.cast_signed(),
            (3, Value::Bytes(value)) => name = value,
            _ => (),
        }
    }
    if is_text {
        text(std::str::from_utf8(name)?, out);
    } else {
        out.extend_from_slice(number.to_string().as_bytes());
    }
    Ok(true)
}

fn text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing text to memory does not fail");
}

/// The bytes of field `number`; none when it is not there.
fn last_bytes(message: &[u8], number: u32) -> Result<&[u8], Broken> {
    let mut found = &[][..];
    for field in Wire(message) {
        if let (at, Value::Bytes(bytes)) = field?
            && at == number
        {
            found = bytes;
        }
    }
    Ok(found)
}

/// A field's value, as far as its wire type says.
enum Value<'m> {
    Varint(u64),
    Bytes(&'m [u8]),
    /// Fixed-width numbers, which no field of a schema is.
    Other,
}

/// The fields of a message in the order in which they stand. Ends after an error.
struct Wire<'m>(&'m [u8]);

impl<'m> Iterator for Wire<'m> {
    type Item = Result<(u32, Value<'m>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'m> Wire<'m> {
    fn field(&mut self) -> Result<(u32, Value<'m>), Broken> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).unwrap_or(u32::MAX);
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            other => return Err(Broken::WireType(other)),
        };
        Ok((number, value))
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for (place, byte) in self.0.iter().take(VARINT_BYTES_MAX).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.0 = &self.0[place + 1..];
                return Ok(value);
            }
        }
        Err(Broken::Truncated)
    }

    fn take(&mut self, count: usize) -> Result<&'m [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Broken::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}
