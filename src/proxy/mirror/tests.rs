//! What a copy holds, and when it is given up.

use super::*;

fn one() -> (Copies, Rc<Copy>) {
    let copy = Rc::new(Copy::default());
    (Copies { all: vec![Rc::clone(&copy)], bytes: 0 }, copy)
}

fn outcome(copy: &Copy) -> Option<Outcome> {
    match &*copy.end.borrow() {
        Some(End::Cut(outcome)) => Some(*outcome),
        Some(End::Whole(_)) | None => None,
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_copy_has_the_same_bytes_in_the_same_order_and_the_same_end() {
    let (mut copies, copy) = one();
    copies.head(b"head", 0);
    copies.body(b"one");
    copies.piece(&Bytes::from(vec![2; 2000]));
    copies.body(b"");
    copies.whole(Some(&HeaderMap::new()));
    drop(copies);
    let mut got = Vec::new();
    let trailers = loop {
        match copy.next().await {
            Next::Piece(piece) => got.extend_from_slice(&piece),
            Next::End(trailers) => break trailers,
        }
    };
    assert_eq!(got, [b"headone".to_vec(), vec![2; 2000]].concat());
    assert!(trailers.is_some());
    let start = tokio::time::Instant::now();
    assert_eq!(copy.given_up().await, Outcome::Timeout, "an answer is not waited for without an end");
    assert_eq!(start.elapsed(), TIME_MAX);
}

#[tokio::test(flavor = "current_thread")]
async fn a_body_beyond_the_bound_gives_the_copy_up_at_its_first_byte_too_much() {
    let (mut copies, copy) = one();
    copies.head(&[0; 1000], 0);
    copies.body(&[1; BODY_MAX]);
    assert_eq!(outcome(&copy), None, "the head does not count");
    copies.body(&[1]);
    assert_eq!(outcome(&copy), Some(Outcome::TooLong));
    copies.body(&[1]);
    copies.whole(None);
    assert_eq!(copy.given_up().await, Outcome::TooLong);
}

#[test]
fn many_small_pieces_that_wait_are_bounded_too() {
    let (mut copies, copy) = one();
    for _ in 0..PIECES_MAX {
        copies.body(&[1]);
    }
    assert_eq!(outcome(&copy), None);
    copies.body(&[1]);
    assert_eq!(outcome(&copy), Some(Outcome::TooLong));
    assert!(copy.waiting.borrow().len() <= PIECES_MAX);
}

#[test]
fn an_original_that_breaks_off_takes_its_copies_with_it() {
    let (mut copies, copy) = one();
    copies.body(b"a half");
    drop(copies);
    assert_eq!(outcome(&copy), Some(Outcome::Abandoned));
}

#[test]
fn nothing_is_kept_for_a_copy_that_nobody_sends() {
    let (mut copies, copy) = one();
    copies.body(b"waits");
    copy.stop();
    copies.body(b"more");
    assert!(copy.waiting.borrow().is_empty());
}

#[test]
fn outcomes_have_labels_of_their_own_and_stand_at_their_numbers() {
    let labels: std::collections::BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
    assert_eq!(labels.len(), Outcome::ALL.len());
    assert!(Outcome::ALL.iter().enumerate().all(|(number, outcome)| *outcome as usize == number));
}
