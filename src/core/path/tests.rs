//! What RFC 3986 says of paths, by hand, and the law that no spelling gets past a rule.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn normal(raw: &str) -> Result<String, PathError> {
    normalise(raw).map(|normal| normal.as_str().to_owned())
}

#[test]
fn paths_take_the_form_that_rfc_3986_gives_them() {
    let table = [
        // Section 5.4.1 and 5.4.2: the examples of dot segments, relative to /b/c/d;p.
        ("/b/c/./g", "/b/c/g"),
        ("/b/c/g/", "/b/c/g/"),
        ("/b/c/;x", "/b/c/;x"),
        ("/b/c/g;x", "/b/c/g;x"),
        ("/b/c/.", "/b/c/"),
        ("/b/c/./", "/b/c/"),
        ("/b/c/..", "/b/"),
        ("/b/c/../", "/b/"),
        ("/b/c/../g", "/b/g"),
        ("/b/c/../..", "/"),
        ("/b/c/../../", "/"),
        ("/b/c/../../g", "/g"),
        ("/b/c/../../../g", "/g"),
        ("/b/c/../../../../g", "/g"),
        ("/./g", "/g"),
        ("/../g", "/g"),
        ("/b/c/g.", "/b/c/g."),
        ("/b/c/.g", "/b/c/.g"),
        ("/b/c/g..", "/b/c/g.."),
        ("/b/c/..g", "/b/c/..g"),
        ("/b/c/./../g", "/b/g"),
        ("/b/c/./g/.", "/b/c/g/"),
        ("/b/c/g/./h", "/b/c/g/h"),
        ("/b/c/g/../h", "/b/c/h"),
        ("/b/c/g;x=1/./y", "/b/c/g;x=1/y"),
        ("/b/c/g;x=1/../y", "/b/c/y"),
        // Section 5.2.4: the example of the algorithm.
        ("/a/b/c/./../../g", "/a/g"),
        // Section 6.2.2.1: hexadecimal digits of an escape are equal without case.
        ("/%3a", "/%3A"),
        ("/%c3%a9", "/%C3%A9"),
        // Section 6.2.2.2 with 2.3: unreserved characters are decoded, all of them.
        ("/%41%5a%61%7A%30%39%2D%2e%5f%7e", "/AZaz09-._~"),
        ("/%7Eed", "/~ed"),
        // Section 2.2: reserved ones keep their escape, for it tells them apart.
        ("/%21%24%26%27%28%29%2a%2b%2c%3b%3d%3a%40%3f%23%5b%5d", "/%21%24%26%27%28%29%2A%2B%2C%3B%3D%3A%40%3F%23%5B%5D"),
        ("/!$&'()*+,;=:@", "/!$&'()*+,;=:@"),
        ("/%20%25", "/%20%25"),
        // Section 6.2.2.3: dot segments are removed after decoding.
        ("/b/c/%2e%2e/g", "/b/g"),
        ("/b/c/.%2E/g", "/b/g"),
        ("/b/c/%2e/g", "/b/c/g"),
        ("/b/%2e%2e", "/"),
        // An escape is decoded once.
        ("/%252e%252e/g", "/%252e%252e/g"),
        ("/%252F", "/%252F"),
        ("/%2525", "/%2525"),
        // Section 3.3: what a path may not hold is encoded.
        ("/\"<>^`{|}", "/%22%3C%3E%5E%60%7B%7C%7D"),
        ("/[]", "/%5B%5D"),
        ("/é", "/%C3%A9"),
        // Beyond RFC 3986: adjacent slashes are one.
        ("//", "/"),
        ("//b///c//", "/b/c/"),
        ("/b//../c", "/b/c"),
        ("/b/..//c", "/c"),
        ("/", "/"),
        ("*", "*"),
    ];
    for (raw, want) in table {
        assert_eq!(normal(raw).as_deref(), Ok(want), "{raw}");
    }
}

#[test]
fn paths_that_servers_read_differently_are_refused() {
    let table = [
        ("", PathError::NotAbsolute),
        ("b", PathError::NotAbsolute),
        ("*/", PathError::NotAbsolute),
        ("%2Fb", PathError::NotAbsolute),
        ("/b?c", PathError::NotPath),
        ("/b#c", PathError::NotPath),
        ("/b%2Fc", PathError::EncodedSlash),
        ("/b%2fc", PathError::EncodedSlash),
        ("/b/..%2f..%2fc", PathError::EncodedSlash),
        ("/b%5Cc", PathError::EncodedSlash),
        ("/b%5cc", PathError::EncodedSlash),
        ("/b\\c", PathError::Backslash),
        ("/..\\c", PathError::Backslash),
        ("/b%00", PathError::Control),
        ("/b%0d%0aX", PathError::Control),
        ("/b%7f", PathError::Control),
        ("/b\u{1}", PathError::Control),
        ("/b c", PathError::Control),
        ("/b%", PathError::BadEscape),
        ("/b%2", PathError::BadEscape),
        ("/b%zz", PathError::BadEscape),
        ("/b%+1", PathError::BadEscape),
        ("/b%%32%65", PathError::BadEscape),
        ("/b/..;/c", PathError::DotParameters),
        ("/b/.;x=1/c", PathError::DotParameters),
        ("/b/%2e%2E;x/c", PathError::DotParameters),
        ("/b/..%3Bx/c", PathError::DotParameters),
        ("/b/..%3b", PathError::DotParameters),
        ("/b%c0%afc", PathError::Overlong),
        ("/%C1%81", PathError::Overlong),
        ("/%e0%80%af", PathError::Overlong),
        ("/%f0%80%80%af", PathError::Overlong),
    ];
    for (raw, want) in table {
        assert_eq!(normal(raw), Err(want), "{raw}");
    }
}

#[test]
fn rules_name_a_path_or_everything_below_one_in_any_spelling() {
    let exact = |text: &str| Ok(PathRule::Exact(text.into()));
    let below = |text: &str| Ok(PathRule::Below(text.into()));
    let invalid = |text: &str, source| Err(InvalidPathRule::Path { path: text.to_owned(), source });
    let table = [
        ("/", exact("/")),
        ("/api", exact("/api")),
        ("/api/", exact("/api/")),
        ("/api//v1/../%76%32", exact("/api/v2")),
        ("/api/v1:pay", exact("/api/v1:pay")),
        ("/*", below("")),
        ("/api/*", below("/api")),
        ("/api//*", below("/api")),
        ("/a/../api/*", below("/api")),
        ("/%2A", exact("/%2A")),
        ("*", Err(InvalidPathRule::Star("*".to_owned()))),
        ("/api*", Err(InvalidPathRule::Star("/api*".to_owned()))),
        ("/*/b", Err(InvalidPathRule::Star("/*/b".to_owned()))),
        ("/*/*", Err(InvalidPathRule::Star("/*/*".to_owned()))),
        ("/a;b", Err(InvalidPathRule::Parameters("/a;b".to_owned()))),
        ("/a%3bb/*", Err(InvalidPathRule::Parameters("/a%3bb/*".to_owned()))),
        ("api", invalid("api", PathError::NotAbsolute)),
        ("", invalid("", PathError::NotAbsolute)),
        ("/a?b", invalid("/a?b", PathError::NotPath)),
        ("/a%2Fb", invalid("/a%2Fb", PathError::EncodedSlash)),
    ];
    for (text, want) in table {
        assert_eq!(PathRule::new(text), want, "{text}");
    }
}

#[test]
fn what_lets_pass_matches_under_every_reading_and_what_refuses_under_any() {
    let table = [
        ("/admin", "/admin", true, true),
        ("/admin", "/admin/", false, true),
        ("/admin/", "/admin", false, true),
        ("/admin", "/Admin", false, false),
        ("/admin", "/admin/x", false, false),
        ("/admin", "/administrator", false, false),
        ("/admin", "/admin;x=1", false, true),
        ("/admin", "/admin%3Bx", false, true),
        ("/admin", "/;x/admin", false, true),
        ("/admin", "/;x/;y/admin;z/", false, true),
        ("/admin/x", "/admin;a/x;b", false, true),
        ("/a=b", "/a%3Db", true, true),
        ("/a%3Db", "/a=b", true, true),
        ("/{id}", "/%7Bid%7D", true, true),
        ("/a%253Db", "/a=b", false, false),
        ("/", "/", true, true),
        ("/", "/x", false, false),
        ("/", "/;x", false, true),
        ("/*", "/", true, true),
        ("/*", "/x/y;z", true, true),
        ("/*", "*", true, true),
        ("/api/*", "/api", true, true),
        ("/api/*", "/api/", true, true),
        ("/api/*", "/api/v1/x", true, true),
        ("/api/*", "/apis", false, false),
        ("/api/*", "/ap", false, false),
        ("/api/*", "/api;x", false, true),
        ("/api/*", "/api;x/y", false, true),
        ("/api/*", "/api/y;x=1/z", true, true),
        ("/api/*", "/api%3Bx/y", false, true),
        ("/api/*", "/;/api/x", false, true),
    ];
    for (rule, raw, surely, may) in table {
        let (rule, path) = (PathRule::new(rule).unwrap(), normal(raw).unwrap());
        assert_eq!((rule.surely_matches(&path), rule.may_match(&path)), (surely, may), "{rule:?} for {raw}");
    }
}

/// One spelling of `path`, which is what a server that reads as it should takes for `path` itself.
fn respell(path: &str, draws: &[(u8, Index)]) -> String {
    let mut parts: Vec<String> = path.chars().map(String::from).collect();
    for (kind, place) in draws {
        let place = place.index(parts.len());
        let is_slash = parts[place] == "/";
        let part = &mut parts[place];
        let first = part.chars().next().unwrap_or(' ');
        match kind {
            0 if !is_slash && part.len() == 1 => *part = format!("%{:02X}", u32::from(first)),
            1 if !is_slash && part.len() == 1 => *part = format!("%{:02x}", u32::from(first)),
            2 if is_slash => *part = "//".to_owned(),
            3 if is_slash => *part = "/./".to_owned(),
            4 if is_slash => *part = "/x/../".to_owned(),
            5 if is_slash => *part = "/%2e/".to_owned(),
            6 if is_slash => *part = "/x%2F/%2e./".to_owned(),
            7 if is_slash => *part = ";p=1/".to_owned(),
            8 if is_slash => *part = "/;p/".to_owned(),
            9 if is_slash => *part = "%3bp/".to_owned(),
            10 if is_slash => *part = "/x/..;/".to_owned(),
            11 if is_slash => *part = "\\".to_owned(),
            12 if is_slash => *part = "%2f".to_owned(),
            13 if is_slash => *part = "%5C".to_owned(),
            14 => parts.push(";q".to_owned()),
            15 => parts.push("/".to_owned()),
            _ => {}
        }
    }
    let text = parts.concat();
    if text.starts_with('/') { text } else { format!("/{text}") }
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{1,3}", "[a-zA-Z0-9._~!$&'()+,=:@-]{1,4}"].prop_filter("no dots", |text| !text.bytes().all(|byte| byte == b'.'))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn normalising_a_normal_path_changes_nothing(raw in "/([a-b./%;]|%2[eEfF5]|%3[bB]|é|\\{){0,12}") {
        if let Ok(once) = normal(&raw) {
            let twice = normalise(&once).unwrap();
            prop_assert_eq!(twice.as_str(), &once);
            prop_assert!(!twice.is_changed());
            prop_assert!(!once.contains("//") && !once.contains("/./") && !once.contains("/../") && !once.ends_with("/.."));
        }
    }

    /// No path that is denied is reachable by another spelling: the spelling is denied too, or refused.
    #[test]
    fn a_denied_path_is_denied_in_every_spelling(
        segments in prop::collection::vec(segment(), 1..4),
        draws in prop::collection::vec((0u8..16, any::<Index>()), 0..6),
        below in prop::option::of(segment()),
    ) {
        let path = format!("/{}", segments.join("/"));
        let written = path.replace('*', "%2A");
        let (rule, asked) = match &below {
            Some(rest) => (format!("{written}/*"), format!("{path}/{rest}")),
            None => (written, path),
        };
        let rule = PathRule::new(&rule).unwrap();
        let spelling = respell(&asked, &draws);
        if let Ok(normal) = normalise(&spelling) {
            prop_assert!(rule.may_match(normal.as_str()), "{:?} lets {} pass as {}", rule, spelling, normal.as_str());
        }
    }

    /// What surely matches may match; and a rule surely matches the path it names, in every spelling that RFC 3986 calls equal.
    #[test]
    fn an_allowed_path_is_allowed_in_every_equal_spelling(
        segments in prop::collection::vec(segment(), 1..4),
        draws in prop::collection::vec((0u8..6, any::<Index>()), 0..6),
    ) {
        let path = format!("/{}", segments.join("/"));
        let rule = PathRule::new(&path.replace('*', "%2A")).unwrap();
        let spelling = respell(&path, &draws);
        let normal = normalise(&spelling).unwrap();
        prop_assert!(rule.surely_matches(normal.as_str()), "{:?} refuses {} as {}", rule, spelling, normal.as_str());
        prop_assert!(rule.may_match(normal.as_str()));
    }

    #[test]
    fn what_surely_matches_may_match(rule in "/[ab/]{0,4}(/\\*)?", path in "/[ab/;]{0,6}(%3B|%3D)?") {
        if let (Ok(rule), Ok(path)) = (PathRule::new(&rule), normalise(&path)) {
            prop_assert!(!rule.surely_matches(path.as_str()) || rule.may_match(path.as_str()));
        }
    }

    /// Comparing bytes as they are, where nothing is to be read in them, says what reading them would.
    #[test]
    fn plain_paths_match_as_they_would_when_read(
        text in "[ab/]{0,5}(%3D|%61|;|=)?/?",
        path in "[ab/]{0,6}(%3D|%61|;|=)?[ab/]{0,2}",
        below: bool,
    ) {
        let rule = if below { PathRule::Below(text.as_str().into()) } else { PathRule::Exact(text.as_str().into()) };
        prop_assert_eq!(rule.surely_matches(&path), rule.surely_matches_as_read(&path), "{:?} surely {}", &rule, &path);
        prop_assert_eq!(rule.may_match(&path), rule.may_match_as_read(&path), "{:?} maybe {}", &rule, &path);
    }
}
