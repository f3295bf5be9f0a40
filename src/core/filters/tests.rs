use proptest::prelude::*;

use super::*;
use crate::request::{Caller, split_target};

fn name(text: &str) -> Name {
    text.into()
}

fn under(prefix: &str) -> Match {
    Match { path: Some(PathMatch::Prefix(prefix.into())), ..Match::default() }
}

/// Judges `target` for `authority`, whose rule holds by the path prefix `prefix`.
fn judged(filters: &Filters, authority: &str, target: &str, prefix: Option<&str>) -> Filtered {
    let (path, query) = split_target(target);
    let (headers, caller) = (Vec::<(String, String)>::new(), Caller::default());
    let request = RequestHead { method: "GET", path, query, authority, headers: &headers, caller: &caller };
    let matched = prefix.map(under);
    let service = ServiceId::new("shop", "payment");
    filters.judge(&Asked { request: &request, matched: matched.as_ref(), service: &service, port: 8080, draws: [0, 0] })
}

fn location(redirect: &Redirect, authority: &str, target: &str) -> String {
    let filters = Filters { redirect: Some(redirect.clone()), ..Filters::default() };
    let reply = judged(&filters, authority, target, Some("/api")).reply.unwrap();
    assert_eq!((reply.status, reply.reason), (redirect.status, "redirect"));
    reply.fields[0].1.to_string()
}

fn found() -> Redirect {
    Redirect { scheme: None, host: None, port: None, path: None, status: 302 }
}

/// The table of Gateway API's `ReplacePrefixMatch`, and the edges that it leaves open.
#[test]
fn a_prefix_is_replaced_at_segment_boundaries() {
    let cases = [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "/", "/bar"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo", "/foo/", "/", "/"),
        ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
        ("/", "/", "/xyz", "/xyz/"),
        ("/foo//bar", "/foo", "/", "//bar"),
        ("/foo/a%2Fb", "/foo", "/x", "/x/a%2Fb"),
    ];
    for (path, prefix, new, want) in cases {
        assert_eq!(PathChange::Prefix(name(new)).apply(path, prefix), want, "{path}: {prefix} becomes {new}");
    }
}

#[test]
fn a_path_is_rewritten_and_a_target_that_is_none_is_left_alone() {
    let rewrite = |path| Filters { rewrite: Some(Rewrite { path: Some(path), host: Some("other".into()) }), ..Filters::default() };
    let prefix = rewrite(PathChange::Prefix("/v2".into()));
    assert_eq!(judged(&prefix, "payment", "/api/pay?a=b", Some("/api")).path.as_deref(), Some("/v2/pay"));
    assert_eq!(judged(&prefix, "payment", "/api/pay", None).path.as_deref(), Some("/v2/api/pay"));
    assert_eq!(judged(&prefix, "payment", "*", None).path, None);
    assert_eq!(judged(&rewrite(PathChange::Full("/all".into())), "payment", "/api/pay?a", Some("/api")).path.as_deref(), Some("/all"));
    assert_eq!(prefix.host(), Some(&name("other")));
    assert_eq!(Filters::default().host(), None);
}

#[test]
fn a_redirect_keeps_of_the_request_what_it_does_not_name() {
    let https = || Redirect { scheme: Some(Scheme::Https), ..found() };
    let cases = [
        (found(), "payment:8080", "/api/a?b=c", "http://payment:8080/api/a?b=c"),
        // The port is the one the request was for, whether its authority names it or not.
        (found(), "payment", "/api", "http://payment:8080/api"),
        (found(), "", "/api", "http://payment.shop:8080/api"),
        (found(), "[fd00::1]:8080", "/", "http://[fd00::1]:8080/"),
        (https(), "payment:8080", "/api/a", "https://payment/api/a"),
        (Redirect { scheme: Some(Scheme::Http), ..found() }, "payment:8080", "/", "http://payment/"),
        (Redirect { port: Some(8443), ..https() }, "payment", "/", "https://payment:8443/"),
        (Redirect { port: Some(443), ..https() }, "payment", "/", "https://payment/"),
        (Redirect { port: Some(80), ..found() }, "payment:8080", "/", "http://payment/"),
        (Redirect { host: Some("pay.example.com".into()), ..https() }, "payment", "/api?x", "https://pay.example.com/api?x"),
        (Redirect { path: Some(PathChange::Prefix("/v2".into())), ..https() }, "payment", "/api/a?b", "https://payment/v2/a?b"),
        (
            Redirect { path: Some(PathChange::Full("/gone".into())), status: 308, ..https() },
            "payment",
            "/api/a?b",
            "https://payment/gone?b",
        ),
        (found(), "payment", "*", "http://payment:8080/"),
    ];
    for (redirect, authority, target, want) in cases {
        assert_eq!(location(&redirect, authority, target), want, "{authority} {target} {redirect:?}");
    }
}

/// A path that begins with two slashes names no host: the URL is always absolute.
#[test]
fn no_path_leads_a_redirect_to_another_host() {
    let redirect = Redirect { path: Some(PathChange::Prefix("/".into())), ..found() };
    assert_eq!(location(&redirect, "payment", "/api//evil.example/a"), "http://payment:8080//evil.example/a");
}

#[test]
fn of_changes_one_after_the_other_the_later_have_the_last_word() {
    let fields = |names: &[&str], value: &str| names.iter().map(|it| (name(it), name(value))).collect::<Vec<_>>();
    let first = FieldChanges { set: fields(&["a", "b"], "1"), add: fields(&["c", "d"], "1"), remove: vec!["e".into(), "f".into()] };
    let later = FieldChanges { set: fields(&["b", "e"], "2"), add: fields(&["c"], "2"), remove: vec!["d".into()] };
    let both = first.then(&later);
    assert_eq!(both.set, [fields(&["a"], "1"), fields(&["b", "e"], "2")].concat());
    assert_eq!(both.add, [fields(&["c"], "1"), fields(&["c"], "2")].concat());
    assert_eq!(both.remove, [name("f"), name("d")]);
}

#[test]
fn changes_of_fields_know_names_in_any_case() {
    let changes = FieldChanges {
        set: vec![("x-a".into(), "1".into())],
        add: vec![("x-b".into(), "2".into()), ("x-b".into(), "3".into())],
        remove: vec!["x-c".into()],
    };
    let dropped = ["x-a", "X-A", "x-b", "X-C", "x-d"].map(|name| changes.drops(name.as_bytes()));
    assert_eq!(dropped, [true, true, false, true, false]);
    let lines: Vec<_> = changes.lines().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(lines, ["x-a: 1", "x-b: 2", "x-b: 3"]);
    assert!(!changes.is_empty() && FieldChanges::default().is_empty());
}

proptest! {
    /// What a rewritten path says after the seam is what the request said after the prefix, and it is always a path.
    #[test]
    fn a_rewritten_path_is_a_path_and_keeps_its_end(
        prefix in "(/[a-z]{1,3}){0,3}/?", rest in "(/[a-z]{0,3}){0,3}", new in "(/[a-z]{1,3}){0,2}/?"
    ) {
        let new = if new.is_empty() { "/".to_owned() } else { new };
        let path = format!("{}{rest}", without_slash(&prefix));
        prop_assume!(path.starts_with('/'));
        let rewritten = PathChange::Prefix(name(&new)).apply(&path, &prefix);
        prop_assert!(rewritten.starts_with('/'), "{rewritten}");
        prop_assert!(rewritten.ends_with(&rest), "{rewritten}");
        prop_assert!(rewritten.starts_with(without_slash(&new)), "{rewritten}");
    }
}
