//! The client against a controller on loopback.

use super::*;
use crate::control::fake::{Fake, Says};
use crate::identity::request::Request;
use crate::identity::testing::{Authority, START, answer, trust};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn controller(fake: &Fake, token: Token) -> Controller {
    Controller { address: fake.address.clone(), token }
}

async fn refused(says: Says) -> (&'static str, String) {
    let fake = Fake::start(None, move |_| says.clone()).await;
    let error = controller(&fake, Token::Text("t".to_owned())).sign(b"csr").await.unwrap_err();
    (error.reason(), error.to_string())
}

#[tokio::test]
async fn a_request_is_signed_for_the_token_as_it_is_in_the_file_at_that_moment() {
    let root = Authority::new("mesh");
    let request = Request::new().unwrap();
    let signed = root.sign(request.csr(), &[WEB], START, Duration::from_secs(60));
    let given = answer(&[&signed], &trust(&[&root]));
    let says = Says::message(frame::encode(&given));
    let fake = Fake::start(Some(&root), move |_| says.clone()).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let controller = controller(&fake, Token::File(file.path().to_owned()));
    for token in ["first", "second"] {
        std::fs::write(file.path(), format!("{token}\n")).unwrap();
        assert_eq!(controller.sign(request.csr()).await.unwrap(), given);
    }
    let seen = fake.seen();
    assert_eq!([&*seen[0].authorization, &*seen[1].authorization], ["Bearer first", "Bearer second"]);
    let asked = SigningRequest::decode(seen[0].message.slice(frame::PREFIX_BYTES..)).unwrap();
    assert_eq!((&*seen[0].path, &asked.csr[..]), (leno_xds::SIGN_PATH, request.csr()));
}

#[tokio::test]
async fn each_refusal_says_what_to_do_wherever_its_status_stands() {
    for (status, reason, words) in [
        (16, "token-refused", "audience leno.dev"),
        (7, "not-allowed", "recreate the pod"),
        (3, "refused", "same version"),
        (8, "rate-limited", "asks again by itself"),
        (14, "not-now", "its log says why"),
        (12, "refused", "LENO_CONTROL_ADDRESS"),
    ] {
        for in_head in [true, false] {
            let (label, text) = refused(Says::refusal(status, "because", in_head)).await;
            assert!(label == reason && text.contains(words) && text.contains("because"), "{status}: {label}: {text}");
        }
    }
    let (label, text) = refused(Says { status: 404, end: Some(Vec::new()), ..Says::default() }).await;
    assert!(label == "refused" && text.contains("HTTP 404"), "{label}: {text}");
}

#[tokio::test]
async fn answers_that_are_none_are_refused() {
    let end = || Some(vec![("grpc-status", "0".to_owned())]);
    let broken = |data: Vec<&'static [u8]>| Says {
        status: 200,
        data: data.into_iter().map(Bytes::from_static).collect(),
        end: end(),
        ..Says::default()
    };
    assert_eq!(refused(broken(vec![])).await.0, "bad-answer", "no message");
    assert_eq!(refused(broken(vec![&[0, 0, 0, 0, 9, 1]])).await.0, "bad-answer", "cut");
    assert_eq!(refused(broken(vec![&[1, 0, 0, 0, 0]])).await.0, "bad-answer", "compressed");
    assert_eq!(refused(broken(vec![&[0, 0, 0, 0, 2, 0xff, 0xff]])).await.0, "bad-answer", "no protobuf");
    let long = Says { status: 200, data: vec![Bytes::from(vec![0; ANSWER_BYTES_MAX + 1])], end: end(), ..Says::default() };
    let (label, text) = refused(long).await;
    assert!(label == "unreachable" && text.contains("length limit"), "{label}: {text}");
    assert_eq!(refused(Says { status: 200, end: Some(Vec::new()), ..Says::default() }).await.0, "refused", "no status");
}

#[tokio::test]
async fn a_controller_that_is_not_there_and_a_token_that_cannot_be_sent_are_told_in_words() {
    let fake = Fake::start(None, |_| Says::refusal(14, "", true)).await;
    let mut down = controller(&fake, Token::Text("t".to_owned()));
    down.address.address = "127.0.0.1:1".to_owned();
    let error = down.sign(b"csr").await.unwrap_err();
    assert!(error.reason() == "unreachable" && error.to_string().contains("is leno-controller running"), "{error}");

    let missing = controller(&fake, Token::File("/nowhere/token".into())).sign(b"csr").await.unwrap_err();
    assert!(missing.reason() == "token-unreadable" && missing.to_string().contains("/nowhere/token"), "{missing}");
    let long = "x".repeat(usize::try_from(TOKEN_BYTES_MAX).unwrap() + 1);
    for token in ["", " \n", "two\nlines", &long] {
        let error = controller(&fake, Token::Text(token.to_owned())).sign(b"csr").await.unwrap_err();
        assert!(error.reason() == "token-unreadable" && error.to_string().contains("LENO_TOKEN_FILE"), "{error}");
    }
    assert!(fake.seen().is_empty());
    assert!(!format!("{:?}", Token::Text("secret".to_owned())).contains("secret"));
}
