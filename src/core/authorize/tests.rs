//! Verdicts by table, and the laws they keep.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

fn peer(namespace: Option<&str>, account: Option<&str>) -> Source {
    Source::Peer { trust_domain: "td".into(), namespace: namespace.map(Name::from), service_account: account.map(Name::from) }
}

fn names(names: &[&str]) -> Vec<Name> {
    names.iter().map(|name| Name::from(*name)).collect()
}

fn paths(paths: &[&str]) -> Vec<PathRule> {
    paths.iter().map(|path| PathRule::new(path).unwrap()).collect()
}

fn claims(claims: &[(&str, &[&str])]) -> Claims {
    claims.iter().map(|(name, values)| (Name::from(*name), names(values))).collect()
}

fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Arc<Policy> {
    Arc::new(Policy { name: name.into(), action, rules })
}

/// Whether `action` takes `rule` for one that matches `call`; the mismatch otherwise.
fn judged<'a>(rule: &'a Rule, action: Action, call: &Call<'_>) -> Result<(), Mismatch<'a>> {
    rule.check(action, call)
}

const CONNECTION: Call<'_> = Call { peer: None, source: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)), port: 80, request: None };

fn request<'a>(method: &'a str, path: &'a str, claims: &'a [Claims]) -> Call<'a> {
    Call { request: Some(Request { method, path, claims }), ..CONNECTION }
}

#[test]
fn callers_match_by_what_they_have_proven_or_by_address() {
    let web = identity("spiffe://td/ns/shop/sa/web");
    let proven = Call { peer: Some(&web), ..CONNECTION };
    let mapped = Call { source: "::ffff:10.0.0.9".parse().unwrap(), ..CONNECTION };
    let block = |text: &str| Source::Block(text.parse().unwrap());
    let other = Source::Peer { trust_domain: "other".into(), namespace: None, service_account: None };
    let cases = [
        (vec![], CONNECTION, true),
        (vec![peer(None, None)], proven, true),
        (vec![peer(None, None)], CONNECTION, false),
        (vec![peer(Some("shop"), None)], proven, true),
        (vec![peer(Some("ops"), None)], proven, false),
        (vec![peer(Some("shop"), Some("web"))], proven, true),
        (vec![peer(Some("shop"), Some("orders"))], proven, false),
        (vec![other], proven, false),
        (vec![peer(Some("ops"), None), peer(Some("shop"), None)], proven, true),
        (vec![block("10.0.0.0/8")], CONNECTION, true),
        (vec![block("10.0.0.0/8")], mapped, true),
        (vec![block("10.1.0.0/16")], proven, false),
        (vec![block("fd00::/8")], CONNECTION, false),
        (vec![block("10.0.0.9/32"), peer(Some("ops"), None)], proven, true),
    ];
    for (from, call, want) in cases {
        let rule = Rule { from, ..Rule::default() };
        for action in [Action::Allow, Action::Deny, Action::Audit] {
            let expected = if want { Ok(()) } else { Err(Mismatch::From(&rule.from)) };
            assert_eq!(judged(&rule, action, &call), expected, "{rule:?} {call:?}");
        }
    }
}

#[test]
fn conditions_on_requests_hold_together_and_the_first_that_fails_is_named() {
    let rule = Rule {
        from: Vec::new(),
        ports: vec![80, 81],
        methods: names(&["GET", "POST"]),
        paths: paths(&["/a", "/b/*"]),
        claims: claims(&[("group", &["x", "y"]), ("scope", &["read"])]),
    };
    let good = [claims(&[("group", &["y", "z"]), ("scope", &["write", "read"])])];
    let split = [claims(&[("group", &["x"])]), claims(&[("scope", &["read"])])];
    let several = [split[0].clone(), good[0].clone()];
    let (group, scope) = (Name::from("group"), Name::from("scope"));
    let cases = [
        (request("GET", "/a", &good), Ok(())),
        (request("POST", "/b/c", &several), Ok(())),
        (Call { port: 82, ..request("GET", "/a", &good) }, Err(Mismatch::Port(&rule.ports))),
        (request("PUT", "/a", &good), Err(Mismatch::Method(&rule.methods))),
        (request("GET", "/c", &good), Err(Mismatch::Path(&rule.paths))),
        (request("GET", "/a", &[]), Err(Mismatch::Claim(&group, &rule.claims[&group]))),
        (request("GET", "/a", &split), Err(Mismatch::Claim(&scope, &rule.claims[&scope]))),
    ];
    for (call, want) in cases {
        for action in [Action::Allow, Action::Deny, Action::Audit] {
            assert_eq!(judged(&rule, action, &call), want, "{call:?}");
        }
    }
}

#[test]
fn a_claim_without_values_must_only_be_there() {
    let rule = Rule { claims: claims(&[("group", &[])]), ..Rule::default() };
    assert_eq!(judged(&rule, Action::Allow, &request("GET", "/", &[claims(&[("group", &["any"])])])), Ok(()));
    assert!(judged(&rule, Action::Allow, &request("GET", "/", &[claims(&[("scope", &["any"])])])).is_err());
}

#[test]
fn what_refuses_reads_widely_and_what_lets_pass_narrowly() {
    let on_method = Rule { methods: names(&["POST"]), ..Rule::default() };
    let on_path = Rule { paths: paths(&["/admin"]), ..Rule::default() };
    let on_claim = Rule { claims: claims(&[("scope", &["read"])]), ..Rule::default() };
    let on_port = Rule { ports: vec![81], methods: names(&["POST"]), ..Rule::default() };
    let cases = [
        (&on_method, request("post", "/", &[]), false, true),
        (&on_path, request("GET", "/admin;x", &[]), false, true),
        (&on_method, CONNECTION, false, true),
        (&on_path, CONNECTION, false, true),
        (&on_claim, CONNECTION, false, true),
        (&on_port, CONNECTION, false, false),
        (&on_claim, request("GET", "/", &[]), false, false),
    ];
    for (rule, call, allows, denies) in cases {
        assert_eq!(judged(rule, Action::Allow, &call).is_ok(), allows, "{rule:?} {call:?}");
        assert_eq!(judged(rule, Action::Audit, &call).is_ok(), allows, "{rule:?} {call:?}");
        assert_eq!(judged(rule, Action::Deny, &call).is_ok(), denies, "{rule:?} {call:?}");
    }
    assert_eq!(judged(&on_claim, Action::Allow, &CONNECTION), Err(Mismatch::NoRequest));
}

#[test]
fn deny_comes_before_allow_and_allow_before_the_posture() {
    let on = |path: &str| Rule { paths: paths(&[path]), ..Rule::default() };
    let allow = policy("shop/allow", Action::Allow, vec![on("/other"), on("/a/*")]);
    let second = policy("shop/second", Action::Allow, vec![on("/b")]);
    let deny = policy("shop/deny", Action::Deny, vec![on("/a/secret")]);
    let audit = policy("shop/audit", Action::Audit, vec![on("/a/x"), on("/c")]);
    let said = |posture, policies: &[&Arc<Policy>], path: &str| {
        let all = Authorization::new(posture, policies.iter().map(|policy| Arc::clone(policy)).collect(), Vec::new());
        let verdict = authorize(&all, &request("GET", path, &[]), &mut Silent);
        let text = |name: Option<&Name>| name.map_or_else(|| "-".to_owned(), ToString::to_string);
        let allowed = if verdict.allowed { "pass" } else { "deny" };
        let rule = verdict.rule.map_or_else(String::new, |rule| format!("[{rule}]"));
        format!("{allowed} {}{rule} {}", text(verdict.policy), text(verdict.would_deny))
    };
    use Posture::{Allow, Deny};
    let cases = [
        (Allow, vec![], "/a", "pass - -"),
        (Deny, vec![], "/a", "deny - -"),
        (Allow, vec![&allow], "/a", "pass shop/allow[1] -"),
        (Allow, vec![&allow], "/b", "deny shop/allow -"),
        (Deny, vec![&allow], "/a/x", "pass shop/allow[1] -"),
        (Allow, vec![&allow, &second], "/b", "pass shop/second[0] -"),
        (Allow, vec![&allow, &second], "/c", "deny - -"),
        (Allow, vec![&allow, &deny], "/a/secret", "deny shop/deny[0] -"),
        (Allow, vec![&allow, &deny], "/a/b", "pass shop/allow[1] -"),
        (Allow, vec![&deny], "/b", "pass - -"),
        (Deny, vec![&deny], "/b", "deny - -"),
        (Allow, vec![&audit], "/c", "pass - -"),
        (Allow, vec![&audit], "/d", "pass - shop/audit"),
        (Deny, vec![&audit], "/c", "deny - -"),
        (Deny, vec![&audit], "/d", "deny - -"),
        (Allow, vec![&audit, &allow], "/a/b", "pass shop/allow[1] -"),
        (Allow, vec![&audit, &allow], "/c", "deny shop/allow -"),
        (Allow, vec![&audit, &deny], "/a/secret", "deny shop/deny[0] -"),
    ];
    for (posture, policies, path, want) in cases {
        assert_eq!(said(posture, &policies, path), want, "{posture:?} {policies:?} {path}");
    }
}

#[test]
fn the_trace_is_told_of_every_rule_up_to_the_one_that_matches() {
    #[derive(Default)]
    struct Recorder(Vec<String>);
    impl<'a> Trace<'a> for Recorder {
        fn judged(&mut self, policy: &'a Policy, index: usize, outcome: Result<(), Mismatch<'a>>) {
            self.0.push(format!("{}[{index}] {}", policy.name, outcome.is_ok()));
        }
    }
    let on = |path: &str| Rule { paths: paths(&[path]), ..Rule::default() };
    let policies = vec![
        policy("c", Action::Audit, vec![on("/b")]),
        policy("b", Action::Allow, vec![on("/b"), on("/a"), on("/c")]),
        policy("a", Action::Deny, vec![on("/x"), on("/y")]),
    ];
    let all = Authorization::new(Posture::Allow, policies, Vec::new());
    let mut recorder = Recorder::default();
    assert!(authorize(&all, &request("GET", "/a", &[]), &mut recorder).allowed);
    assert_eq!(recorder.0, ["a[0] false", "a[1] false", "b[0] false", "b[1] true"]);
}

#[test]
fn only_what_judges_nothing_is_open() {
    let issuer = Arc::new(Issuer { issuer: "i".into(), audiences: Vec::new(), headers: Vec::new(), keys: "".into() });
    assert!(Authorization::default().is_open());
    assert!(!Authorization::new(Posture::Deny, Vec::new(), Vec::new()).is_open());
    assert!(!Authorization::new(Posture::Allow, Vec::new(), vec![issuer]).is_open());
    let on_path = policy("a", Action::Audit, vec![Rule { paths: paths(&["/a"]), ..Rule::default() }]);
    let any = policy("b", Action::Audit, vec![Rule::default()]);
    assert!(Authorization::new(Posture::Allow, vec![on_path], Vec::new()).looks_at_paths());
    let all = Authorization::new(Posture::Allow, vec![any], Vec::new());
    assert!(!all.looks_at_paths() && !all.is_open());
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let source = prop_oneof![
        prop::option::of("[ab]").prop_map(|namespace| peer(namespace.as_deref(), None)),
        Just(peer(Some("a"), Some("x"))),
        Just(Source::Block("10.0.0.0/31".parse().unwrap())),
        Just(Source::Block("10.0.0.2/32".parse().unwrap())),
    ];
    let path = prop_oneof!["/[ab]", "/[ab]/\\*", Just("/*".to_owned())].prop_map(|path| PathRule::new(&path).unwrap());
    (
        prop::collection::vec(source, 0..3),
        prop::collection::vec(1u16..3, 0..2),
        prop::collection::vec("GET|POST".prop_map(Name::from), 0..2),
        prop::collection::vec(path, 0..3),
        prop::collection::btree_map("[cd]".prop_map(Name::from), prop::collection::vec("[yz]".prop_map(Name::from), 0..3), 0..2),
    )
        .prop_map(|(from, ports, methods, paths, claims)| Rule { from, ports, methods, paths, claims })
}

fn any_policy() -> impl Strategy<Value = (Action, Vec<Rule>)> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny), Just(Action::Audit)];
    (action, prop::collection::vec(any_rule(), 0..4))
}

fn any_authorization() -> impl Strategy<Value = Authorization> {
    let posture = prop_oneof![Just(Posture::Allow), Just(Posture::Deny)];
    (posture, prop::collection::vec(any_policy(), 0..5)).prop_map(|(posture, policies)| {
        let named = policies.into_iter().enumerate().map(|(index, (action, rules))| policy(&format!("p{index}"), action, rules));
        Authorization::new(posture, named.collect(), Vec::new())
    })
}

/// A call with what it borrows.
#[derive(Clone, Debug)]
struct Asked {
    peer: Option<Identity>,
    last: u8,
    port: u16,
    request: Option<(String, String, Vec<Claims>)>,
}

impl Asked {
    fn with<T>(&self, ask: impl FnOnce(&Call<'_>) -> T) -> T {
        let request = self.request.as_ref().map(|(method, path, claims)| Request { method, path, claims });
        ask(&Call { peer: self.peer.as_ref(), source: IpAddr::from([10, 0, 0, self.last]), port: self.port, request })
    }

    fn is_allowed(&self, authorization: &Authorization) -> bool {
        self.with(|call| authorize(authorization, call, &mut Silent).allowed)
    }
}

fn any_call() -> impl Strategy<Value = Asked> {
    let peer = prop::option::of("spiffe://(td|other)/ns/[ab]/sa/[xy]".prop_map(|text| identity(&text)));
    let claims = prop::collection::btree_map("[cd]".prop_map(Name::from), prop::collection::vec("[yz]".prop_map(Name::from), 0..3), 0..3);
    let request = prop::option::of(("GET|POST", "/([ab](/[ab])?)?(;p)?", prop::collection::vec(claims, 0..3)));
    (peer, 0u8..4, 1u16..3, request).prop_map(|(peer, last, port, request)| Asked { peer, last, port, request })
}

fn with(authorization: &Authorization, more: Arc<Policy>) -> Authorization {
    let policies = authorization.policies.iter().cloned().chain([more]).collect();
    Authorization::new(authorization.posture, policies, Vec::new())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn adding_a_deny_policy_never_allows_more(before in any_authorization(), rules in prop::collection::vec(any_rule(), 0..3), asked in any_call()) {
        let after = with(&before, policy("q", Action::Deny, rules));
        prop_assert!(asked.is_allowed(&before) || !asked.is_allowed(&after));
    }

    #[test]
    fn adding_a_rule_to_a_deny_policy_never_allows_more(before in any_authorization(), rules in prop::collection::vec(any_rule(), 0..3), more in any_rule(), asked in any_call()) {
        let shorter = with(&before, policy("q", Action::Deny, rules.clone()));
        let longer = with(&before, policy("q", Action::Deny, rules.into_iter().chain([more]).collect()));
        prop_assert!(asked.is_allowed(&shorter) || !asked.is_allowed(&longer));
    }

    #[test]
    fn adding_an_allow_rule_denies_no_allowed_caller_where_an_allow_policy_was_in_force(
        before in any_authorization(),
        rules in prop::collection::vec(any_rule(), 0..3),
        more in prop::collection::vec(any_rule(), 0..3),
        same: bool,
        asked in any_call(),
    ) {
        let shorter = with(&before, policy("q", Action::Allow, rules.clone()));
        let longer = if same {
            with(&before, policy("q", Action::Allow, rules.into_iter().chain(more).collect()))
        } else {
            with(&shorter, policy("r", Action::Allow, more))
        };
        prop_assert!(!asked.is_allowed(&shorter) || asked.is_allowed(&longer));
    }

    #[test]
    fn audit_policies_block_nothing_and_say_what_an_allow_policy_would_have_blocked(
        before in any_authorization(),
        rules in prop::collection::vec(any_rule(), 0..3),
        asked in any_call(),
    ) {
        let without: Vec<_> = before.policies.iter().filter(|policy| policy.action != Action::Audit).cloned().collect();
        let without = Authorization::new(before.posture, without, Vec::new());
        prop_assert_eq!(asked.is_allowed(&before), asked.is_allowed(&without));
        let audited = with(&without, policy("q", Action::Audit, rules.clone()));
        let enforced = with(&without, policy("q", Action::Allow, rules));
        let would = asked.with(|call| authorize(&audited, call, &mut Silent).would_deny.is_some());
        prop_assert_eq!(would, asked.is_allowed(&audited) && !asked.is_allowed(&enforced));
    }

    /// The order of policies, of rules, of sources and of all other lists says nothing.
    #[test]
    fn the_verdict_is_the_same_however_it_is_written(before in any_authorization(), asked in any_call(), turns in prop::collection::vec(any::<Index>(), 6)) {
        fn turn<T: Clone>(list: &[T], by: &Index) -> Vec<T> {
            let mut list = list.to_vec();
            if !list.is_empty() {
                let middle = by.index(list.len());
                list.rotate_left(middle);
                list.swap(0, middle);
            }
            list
        }
        let rewritten = |rule: &Rule| Rule {
            from: turn(&rule.from, &turns[0]),
            ports: turn(&rule.ports, &turns[1]).into_iter().chain(rule.ports.clone()).collect(),
            methods: turn(&rule.methods, &turns[2]),
            paths: turn(&rule.paths, &turns[3]),
            claims: rule.claims.iter().map(|(name, values)| (name.clone(), turn(values, &turns[0]))).collect(),
        };
        let again = before.policies.iter().map(|old| {
            let rules: Vec<Rule> = old.rules.iter().map(rewritten).collect();
            policy(&old.name, old.action, turn(&rules, &turns[4]))
        });
        let again = Authorization::new(before.posture, turn(&again.collect::<Vec<_>>(), &turns[5]), Vec::new());
        let told = |authorization: &Authorization| asked.with(|call| {
            let verdict = authorize(authorization, call, &mut Silent);
            (verdict.allowed, verdict.policy.cloned(), verdict.rule.is_some(), verdict.would_deny.cloned())
        });
        prop_assert_eq!(told(&before), told(&again));
    }
}
