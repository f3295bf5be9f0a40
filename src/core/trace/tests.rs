//! Both forms, examples and laws; who is whose child; whether a trace is kept.

use proptest::prelude::*;

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn headers(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn read(propagation: &str, lines: &[(&str, &str)]) -> Incoming {
    Incoming::read(&propagation.parse().unwrap(), &headers(lines))
}

fn parent() -> Option<Parent> {
    let trace = TraceId::new(u128::from_str_radix(TRACE, 16).ok()?.to_be_bytes())?;
    Some(Parent { trace, span: SpanId::new(u64::from_str_radix(SPAN, 16).ok()?.to_be_bytes())? })
}

/// What the next one is sent.
fn written(span: &Span, propagation: &str) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    span.outgoing(&propagation.parse().unwrap()).each_field(|name, value| {
        lines.push((name.to_owned(), String::from_utf8(value.to_vec()).unwrap()));
    });
    lines
}

#[test]
fn a_traceparent_is_read_as_the_specification_has_it() {
    let good = format!("00-{TRACE}-{SPAN}-01");
    let cases = [
        (good.clone(), Some(true)),
        (format!("00-{TRACE}-{SPAN}-00"), Some(false)),
        (format!("00-{TRACE}-{SPAN}-ff"), Some(true)),
        (format!("01-{TRACE}-{SPAN}-01-what follows"), Some(true)),
        (format!("cc-{TRACE}-{SPAN}-00"), Some(false)),
        (format!("{good}-what follows"), None),
        (format!("01-{TRACE}-{SPAN}-01.what follows"), None),
        (format!("ff-{TRACE}-{SPAN}-01"), None),
        (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
        (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
        (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
        (format!("00_{TRACE}-{SPAN}-01"), None),
        (good[..54].to_owned(), None),
        (String::new(), None),
    ];
    for (value, sampled) in cases {
        let incoming = read("W3C", &[("traceparent", &value)]);
        assert_eq!((incoming.parent, incoming.sampled), (sampled.and(parent()), sampled), "{value}");
    }
    assert_eq!(read("W3C", &[("traceparent", &good), ("traceparent", &good)]), Incoming::default(), "two say nothing");
}

#[test]
fn a_tracestate_goes_on_only_with_the_trace_that_it_belongs_to() {
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    let many = |count: usize| (0..count).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
    let cases = [
        ("a=1,b@c=2", Some("a=1,b@c=2")),
        ("a=1, ,b=2", Some("a=1, ,b=2")),
        (", a=1,b=2, ,", Some("a=1,b=2")),
        ("a=1,a=2", None),
        ("A=1", None),
        ("a", None),
        ("a=", None),
        ("a=b=c", None),
        ("", None),
        (&many(32), Some(&*many(32))),
        (&many(33), None),
        (&format!("a={}", "v".repeat(256)), Some(&*format!("a={}", "v".repeat(256)))),
        (&format!("a={}", "v".repeat(257)), None),
        (&format!("a={0},b={0}", "v".repeat(255)), None),
    ];
    for (state, wanted) in cases {
        let incoming = read("W3C", &[("traceparent", &traceparent), ("tracestate", state)]);
        assert_eq!(incoming.state.as_deref(), wanted, "{state}");
        assert_eq!(read("W3C", &[("tracestate", state)]), Incoming::default(), "no trace that it could belong to");
    }
    let two = read("W3C", &[("traceparent", &traceparent), ("tracestate", "a=1"), ("tracestate", "b=2")]);
    assert_eq!(two.state.as_deref(), Some("a=1, b=2"));
    let empty = read("W3C", &[("traceparent", &traceparent), ("tracestate", "a=1"), ("tracestate", "")]);
    assert_eq!(empty.state.as_deref(), Some("a=1"), "what goes on is read in the same way again");
}

#[test]
fn b3_is_read_in_both_forms() {
    let single = |value: &str| read("B3", &[("b3", value)]);
    let (half, one) = (format!("{SPAN}-{SPAN}-1"), b3::Form::Single);
    let cases = [
        (format!("{TRACE}-{SPAN}-1"), Some((parent(), Some(true), false))),
        (format!("{TRACE}-{SPAN}-0-{SPAN}"), Some((parent(), Some(false), false))),
        (format!("{TRACE}-{SPAN}-d"), Some((parent(), Some(true), true))),
        (format!("{TRACE}-{SPAN}"), Some((parent(), None, false))),
        (format!("{}-{SPAN}", TRACE.to_uppercase()), Some((parent(), None, false))),
        ("0".to_owned(), Some((None, Some(false), false))),
        ("d".to_owned(), Some((None, Some(true), true))),
        (format!("{TRACE}-{SPAN}-2"), None),
        (format!("{TRACE}-{SPAN}-1-{SPAN}-1"), None),
        (format!("{TRACE}-{SPAN}-1-1"), None),
        ("2".to_owned(), None),
        ("1-1".to_owned(), None),
        (TRACE.to_owned(), None),
        (String::new(), None),
    ];
    for (value, wanted) in cases {
        let incoming = single(&value);
        let (parent, sampled, is_debug) = wanted.unwrap_or_default();
        assert_eq!((incoming.parent, incoming.sampled, incoming.is_debug, incoming.b3), (parent, sampled, is_debug, one), "{value}");
    }
    assert_eq!(single(&half).parent.unwrap().trace.to_string(), format!("{}{SPAN}", "0".repeat(16)), "half a number");
    let multi = read("B3", &[("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-Sampled", "1")]);
    assert_eq!((multi.parent, multi.sampled, multi.b3), (parent(), Some(true), b3::Form::Multi));
    let debug = read("B3", &[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-flags", "1"), ("x-b3-sampled", "0")]);
    assert_eq!((debug.sampled, debug.is_debug), (Some(true), true));
    let undecided = read("B3", &[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)]);
    assert_eq!((undecided.parent, undecided.sampled), (parent(), None));
    assert_eq!(read("B3", &[("x-b3-traceid", TRACE)]), Incoming::default(), "a trace without a span");
    assert_eq!(read("B3", &[("x-b3-sampled", "0")]).sampled, Some(false));
}

#[test]
fn the_first_form_that_says_something_is_believed() {
    let other = "11111111111111111111111111111111-2222222222222222-0";
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    let both = [("traceparent", &*traceparent), ("tracestate", "a=1"), ("b3", other)];
    assert_eq!(read("W3C,B3", &both).parent, parent());
    let b3_first = read("B3, W3C", &both);
    assert_eq!((b3_first.parent.unwrap().trace.to_string(), b3_first.state), ("1".repeat(32), None), "the state is of another trace");
    let same = format!("{TRACE}-1111111111111111-1");
    let same = read("B3,W3C", &[("b3", &same), ("traceparent", &traceparent), ("tracestate", "a=1")]);
    assert_eq!((same.parent.unwrap().span.to_string(), same.state.as_deref()), ("1".repeat(16), Some("a=1")));
    assert_eq!(read("B3", &both[..2]), Incoming::default(), "what is not configured is not read");
    assert_eq!(read("W3C,B3", &[("traceparent", "nonsense"), ("b3", other)]).parent.unwrap().trace.to_string(), "1".repeat(32));
}

#[test]
fn a_span_is_the_child_of_what_came_and_the_parent_of_what_follows() {
    let incoming = read("W3C", &[("traceparent", &format!("00-{TRACE}-{SPAN}-03")), ("tracestate", "a=1")]);
    let span = Span::begin(incoming, Percentage::NONE, [1, 2, 3]);
    assert_eq!((span.trace.to_string().as_str(), span.parent.unwrap().to_string().as_str(), span.is_sampled), (TRACE, SPAN, true));
    let id = "0000000000000003";
    assert_eq!(written(&span, "W3C"), headers(&[("traceparent", &format!("00-{TRACE}-{id}-03")), ("tracestate", "a=1")]));
    let multi = [("x-b3-traceid", TRACE), ("x-b3-spanid", id), ("x-b3-parentspanid", SPAN), ("x-b3-sampled", "1")];
    assert_eq!(written(&span, "B3"), headers(&multi));
    let new = Span::begin(Incoming::default(), Percentage::NONE, [1, 2, 3]);
    assert_eq!((new.parent, new.is_sampled), (None, false));
    let trace = "00000000000000010000000000000002";
    assert_eq!(written(&new, "W3C"), headers(&[("traceparent", &format!("00-{trace}-{id}-00"))]), "nobody after this one decides again");
    let single = Span::begin(read("B3", &[("b3", "d")]), Percentage::NONE, [0, 0, 0]);
    assert_eq!(written(&single, "B3"), headers(&[("b3", "00000000000000000000000000000001-0000000000000001-d")]));
}

#[test]
fn propagation_is_said_by_the_names_of_the_forms() {
    for good in ["W3C", "B3", "W3C,B3", "B3,W3C"] {
        assert_eq!(good.parse::<Propagation>().unwrap().to_string(), good);
    }
    for bad in ["", "w3c", "W3C,", "W3C,W3C", "Jaeger"] {
        let error = bad.parse::<Propagation>().unwrap_err().to_string();
        assert!(error.contains("write W3C, B3 or both"), "{error}");
    }
    let w3c: Propagation = "W3C".parse().unwrap();
    assert!(w3c.owns(b"TraceParent") && w3c.owns(b"tracestate") && !w3c.owns(b"b3") && !w3c.owns(b"x-b3-traceid") && !w3c.owns(b""));
    let b3: Propagation = "B3".parse().unwrap();
    assert!(b3.fields().all(|name| b3.owns(name.as_bytes())) && !b3.owns(b"x-b3-other"));
}

/// Any field values, near what is valid.
fn hostile() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop::sample::select(w3c::FIELDS.into_iter().chain(b3::FIELDS).collect::<Vec<_>>());
    let value = prop_oneof![
        "[0-9a-fA-Fd-]{0,80}",
        "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,8})?",
        "([0-9a-f]{16}|[0-9a-f]{32})-[0-9a-f]{16}(-[01d](-[0-9a-f]{16})?)?",
        "([a-z0-9@/]{0,4}=?[ -~]{0,8},?){0,40}",
        ".{0,600}",
    ];
    prop::collection::vec((name.prop_map(str::to_owned), value), 0..8)
}

fn propagations() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["W3C", "B3", "W3C,B3", "B3,W3C"])
}

proptest! {
    /// Whatever comes, what goes on is valid, bounded, and read as what was meant: in the same trace, as this span's child.
    #[test]
    fn what_is_written_is_read_again(lines in hostile(), propagation in propagations(), draws in any::<[u64; 3]>(), percent in 0.0f64..=100.0) {
        let incoming = Incoming::read(&propagation.parse().unwrap(), &lines);
        let span = Span::begin(incoming.clone(), Percentage::from_percent(percent).unwrap(), draws);
        let sent = written(&span, propagation);
        let read = Incoming::read(&propagation.parse().unwrap(), &sent);
        prop_assert_eq!(read.parent, Some(Parent { trace: span.trace, span: span.id }));
        prop_assert_eq!(read.sampled, Some(span.is_sampled));
        prop_assert_eq!(&read.state, if propagation.contains("W3C") { &span.state } else { &None });
        prop_assert_eq!(read.b3, if propagation.contains("B3") { incoming.b3 } else { b3::Form::Multi });
        let bytes: usize = sent.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        prop_assert!(sent.len() <= 6 && bytes <= 320 + w3c::STATE_BYTES_MAX, "{bytes} bytes: {:?}", sent);
        prop_assert!(sent.iter().all(|(name, _)| propagation.parse::<Propagation>().unwrap().owns(name.as_bytes())));
        if let Some(decided) = incoming.sampled {
            prop_assert_eq!(span.is_sampled, decided, "who began the trace has decided");
        }
    }

    /// Nobody who keeps more traces leaves out one that is kept by who keeps fewer.
    #[test]
    fn larger_shares_keep_what_smaller_ones_keep(id in any::<[u8; 16]>(), one in 0.0f64..=100.0, two in 0.0f64..=100.0) {
        let trace = TraceId::new(id).unwrap_or(TraceId([1; 16]));
        let [less, more] = [one.min(two), one.max(two)].map(|percent| Percentage::from_percent(percent).unwrap());
        prop_assert!(!trace.is_within(less) || trace.is_within(more));
        prop_assert!(trace.is_within(Percentage::ALL) && !trace.is_within(Percentage::NONE));
    }
}

#[test]
fn a_share_keeps_that_part_of_the_traces() {
    const TRACES: u64 = 100_000;
    for percent in [0.1, 1.0, 25.0, 50.0, 99.0] {
        let share = Percentage::from_percent(percent).unwrap();
        // Numbers that are spread evenly: multiples of the golden ratio.
        let spread = |number: u64| TraceId::drawn([1, number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8]);
        let kept = (1..=TRACES).filter(|number| spread(*number).is_within(share)).count();
        let wanted = percent / 100.0 * TRACES as f64;
        assert!((kept as f64 - wanted).abs() <= wanted * 0.05 + 2.0, "{percent} %: {kept} of {TRACES}");
    }
}
