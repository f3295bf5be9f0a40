//! The access log's lines: JSON, or a template with the names of JSON's fields.
//!
//! Only the form is decided here, so that whoever configures a proxy can refuse a bad one in words; the proxy writes the lines.

use std::str::FromStr;

/// The form of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A JSON object with every field that has a value.
    #[default]
    Json,
    /// Text with values in it.
    Template(Template),
}

/// Text with `%{field}` in it, where values are put; `%%` is a percent sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Written as it is.
    Text(Box<str>),
    /// Written as its value.
    Field(Field),
}

/// The text is no form of lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFormat {
    /// It names no field, so every line would be the same.
    #[error("{0:?} names no field: write json, or a template such as '%{{method}} %{{path}} %{{status}}'")]
    NoField(String),
    /// It names one that there is not.
    #[error("%{{{0}}} is no field of the access log: write one of {names}", names = names())]
    Unknown(String),
    /// A percent sign begins nothing.
    #[error("a percent sign is followed by neither {{field}} nor another one: write %{{method}}, or %% for the sign itself")]
    Percent,
    /// It is too long, or has more than one line.
    #[error("the template is longer than {TEMPLATE_BYTES_MAX} bytes or has a control character in it: write one line of text")]
    NotOneLine,
}

/// Bytes of a template.
pub const TEMPLATE_BYTES_MAX: usize = 2048;

macro_rules! fields {
    ($($variant:ident $name:literal $doc:literal),+ $(,)?) => {
        /// What a line may say, by the name that it has in JSON.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $(#[doc = $doc] $variant),+ }

        impl Field {
            /// All of them, in the order in which JSON has them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

fields! {
    Time "time" "When the line was written.",
    Direction "direction" "`inbound` or `outbound`.",
    Source "source" "The workload that the proxy stands beside.",
    Destination "destination" "The service, `namespace/name`.",
    Version "version" "Its version.",
    Route "route" "The rule that matched.",
    Protocol "protocol" "`http1`, `http2`, `grpc` or `tcp`.",
    Method "method" "The request's method.",
    Authority "authority" "`Host` or `:authority`.",
    Path "path" "The request's target.",
    Status "status" "The response's status.",
    GrpcStatus "grpc_status" "`grpc-status`.",
    Reason "reason" "Why the proxy itself answered or gave up.",
    Origin "origin" "Where the reason comes from.",
    RetrySafe "retry_safe" "Whether sending the request once more would do no harm, where there is a reason.",
    Tries "tries" "How often it was sent.",
    NoRetry "no_retry" "Why there was no further try though a policy asks for one.",
    Peer "peer" "Address of the client.",
    Upstream "upstream" "Address of the endpoint.",
    SourceIdentity "source_identity" "Who dialled, proven by mutual TLS.",
    DestinationIdentity "destination_identity" "Who was dialled.",
    TlsVersion "tls_version" "Version of TLS.",
    TlsCipher "tls_cipher" "Its cipher suite.",
    TlsGroup "tls_group" "Its key exchange.",
    BytesIn "bytes_in" "Body bytes from the client.",
    BytesOut "bytes_out" "Body bytes to the client.",
    DurationUs "duration_us" "From the first byte in to the last byte out, in microseconds.",
    Policy "policy" "The policy that decided whether it may pass.",
    WouldDeny "would_deny" "The Audit policy that would have refused it.",
    RequestId "request_id" "`x-request-id`.",
    TraceId "trace_id" "The trace's number, where requests are traced.",
    SpanId "span_id" "The number of the proxy's span.",
}

fn names() -> String {
    Field::ALL.iter().map(|field| field.as_str()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Format {
    type Err = InvalidFormat;

    fn from_str(text: &str) -> Result<Self, InvalidFormat> {
        if text == "json" { Ok(Self::Json) } else { text.parse().map(Self::Template) }
    }
}

impl FromStr for Template {
    type Err = InvalidFormat;

    fn from_str(text: &str) -> Result<Self, InvalidFormat> {
        if text.len() > TEMPLATE_BYTES_MAX || text.chars().any(|char| char.is_control() && char != '\t') {
            return Err(InvalidFormat::NotOneLine);
        }
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, after)) = rest.split_once('%') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (name, after) = after.strip_prefix('{').and_then(|after| after.split_once('}')).ok_or(InvalidFormat::Percent)?;
            let field = Field::ALL.iter().find(|field| field.as_str() == name).ok_or_else(|| InvalidFormat::Unknown(name.to_owned()))?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Field(*field));
            rest = after;
        }
        literal.push_str(rest);
        if parts.is_empty() {
            return Err(InvalidFormat::NoField(text.to_owned()));
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self(parts))
    }
}

impl Template {
    /// Its parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_template_is_text_with_fields_in_it() {
        let text = |text: &str| Part::Text(text.into());
        let cases = [
            ("%{method}", vec![Part::Field(Field::Method)]),
            ("%{method} %{path}", vec![Part::Field(Field::Method), text(" "), Part::Field(Field::Path)]),
            ("100%% {x} %{status}!", vec![text("100% {x} "), Part::Field(Field::Status), text("!")]),
        ];
        for (template, parts) in cases {
            assert_eq!(template.parse::<Template>().unwrap().parts(), parts, "{template}");
        }
        assert_eq!("json".parse(), Ok(Format::Json));
    }

    #[test]
    fn a_bad_template_is_refused_in_words() {
        let long = format!("%{{path}}{}", "x".repeat(TEMPLATE_BYTES_MAX));
        let cases = [
            ("", "names no field"),
            ("JSON", "write json, or a template such as '%{method} %{path} %{status}'"),
            ("%{verb} %{path}", "%{verb} is no field of the access log: write one of time, direction, source"),
            ("%{method", "write %{method}, or %%"),
            ("%{method} 5%", "write %{method}, or %%"),
            ("%method", "write %{method}, or %%"),
            ("%{path}\n", "write one line of text"),
            (&long, "longer than 2048 bytes"),
        ];
        for (template, words) in cases {
            let error = template.parse::<Format>().unwrap_err().to_string();
            assert!(error.contains(words), "{template}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(%|\\{|\\}|%%|method|%\\{path\\}|.){0,40}") {
            if let Ok(template) = text.parse::<Template>() {
                let written: String = template.parts().iter().map(|part| match part {
                    Part::Text(text) => text.replace('%', "%%"),
                    Part::Field(field) => format!("%{{{}}}", field.as_str()),
                }).collect();
                prop_assert_eq!(written, text);
            }
        }
    }
}
