//! The keeper with a signer in memory, by tokio's paused clock.

use std::sync::Mutex;

use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use super::super::sign::Refusal;
use super::super::testing::{Authority, START, answer, paused_clock, trust};
use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// Signs as the test says; while it says nothing, the controller is down.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Signs>>);

#[derive(Default)]
struct Signs {
    by: Option<(Arc<Authority>, Arc<Trust>, Duration)>,
    asked_at: Vec<Duration>,
}

impl Fake {
    fn signs(&self, by: &Arc<Authority>, trust: &Arc<Trust>, life: Duration) {
        self.0.lock().unwrap().by = Some((Arc::clone(by), Arc::clone(trust), life));
    }

    fn down(&self) {
        self.0.lock().unwrap().by = None;
    }

    fn asked_at(&self) -> Vec<Duration> {
        self.0.lock().unwrap().asked_at.clone()
    }
}

impl Signer for Fake {
    async fn sign(&self, csr: &[u8]) -> Result<SigningResponse, SignError> {
        let mut signs = self.0.lock().unwrap();
        let now = paused_clock();
        signs.asked_at.push(now);
        match &signs.by {
            Some((by, trust, life)) => Ok(answer(&[&by.sign(csr, &[WEB], now, *life)], trust)),
            None => Err(Refusal { http: 200, grpc: Some(14), message: "not now".to_owned() }.into()),
        }
    }
}

struct Bench {
    fake: Fake,
    say: UnboundedSender<Heard>,
    granted: UnboundedReceiver<Granted>,
    presented: Arc<Presented>,
    shown: Arc<Shown>,
}

impl Bench {
    fn new(fake: Fake) -> Self {
        let (say, heard) = unbounded_channel();
        let (grants, granted) = unbounded_channel();
        let (presented, shown) = (Arc::<Presented>::default(), Arc::<Shown>::default());
        let keeper = Keeper {
            signer: fake.clone(),
            namespace: "shop".into(),
            presented: Arc::clone(&presented),
            shown: Arc::clone(&shown),
            heard,
            granted: grants,
            clock: paused_clock,
        };
        tokio::spawn(keeper.run());
        Self { fake, say, granted, presented, shown }
    }

    /// The next certificate, however long it takes by the paused clock.
    async fn next(&mut self) -> (Held, Option<Arc<Trust>>) {
        let granted = timeout(DAY * 30, self.granted.recv()).await.expect("within a month").unwrap();
        (granted.credentials.held.clone(), granted.trust)
    }

    fn metrics(&self) -> String {
        let mut page = String::new();
        self.shown.render(&mut page);
        page
    }
}

fn with_a_mesh() -> (Bench, Arc<Authority>, Arc<Trust>) {
    let root = Arc::new(Authority::new("mesh"));
    let trusted = trust(&[&root]);
    let fake = Fake::default();
    fake.signs(&root, &trusted, DAY);
    (Bench::new(fake), root, trusted)
}

#[tokio::test(start_paused = true)]
async fn the_first_certificate_is_asked_for_at_once_and_brings_trust() {
    let (mut bench, _root, trusted) = with_a_mesh();
    let (held, brought) = bench.next().await;
    assert_eq!(held.identity.to_string(), WEB);
    assert_eq!(brought, Some(trusted));
    assert_eq!(bench.fake.asked_at(), [START]);
    assert!(rustls::client::ResolvesClientCert::has_certs(&*bench.presented));
    let page = bench.metrics();
    let expiry = format!("leno_certificate_expiry_timestamp_seconds{{identity=\"{WEB}\"}} {}\n", (START + DAY).as_secs());
    assert!(page.contains(&expiry) && page.contains("leno_certificate_renewals_total 1\n"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn certificates_are_renewed_at_seventy_percent_of_their_life_again_and_again() {
    let (mut bench, _root, _trusted) = with_a_mesh();
    for _ in 0..5 {
        let (_held, _trust) = bench.next().await;
    }
    let asked = bench.fake.asked_at();
    for pair in asked.windows(2) {
        let part = (pair[1] - pair[0]).as_secs_f64() / DAY.as_secs_f64();
        assert!((0.649..0.752).contains(&part), "{part}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_down_is_asked_again_and_the_certificate_serves_until_it_really_ends() {
    let (mut bench, root, trusted) = with_a_mesh();
    let (held, _) = bench.next().await;
    bench.fake.down();
    tokio::time::sleep(DAY - Duration::from_secs(1)).await;
    assert!(rustls::client::ResolvesClientCert::has_certs(&*bench.presented), "a second is left");
    assert_eq!(bench.shown.sentence(paused_clock()), format!("{WEB} until {}", written(held.not_after)));
    assert!(bench.fake.asked_at().len() > 100, "asked at least once a minute for seven hours");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!rustls::client::ResolvesClientCert::has_certs(&*bench.presented), "what has ended is not shown");
    let sentence = bench.shown.sentence(paused_clock());
    assert!(sentence.contains("EXPIRED at") && sentence.contains("its log says why"), "{sentence}");
    assert!(bench.metrics().contains("leno_certificate_failures_total{reason=\"not-now\"}"));

    let before = paused_clock();
    bench.fake.signs(&root, &trusted, DAY);
    let (renewed, _) = bench.next().await;
    assert!(renewed.not_after > held.not_after);
    assert!(paused_clock() - before <= Duration::from_secs(2), "an expired certificate is asked for every two seconds");
    assert!(rustls::client::ResolvesClientCert::has_certs(&*bench.presented));
}

#[tokio::test(start_paused = true)]
async fn when_another_certificate_signs_a_new_one_is_asked_for_within_seconds_and_once() {
    let (mut bench, root, trusted) = with_a_mesh();
    let (first, _) = bench.next().await;
    bench.say.send(Heard::Up).unwrap();
    bench.say.send(Heard::Trust(trusted)).unwrap();
    let next = Arc::new(Authority::new("next"));
    let both = trust(&[&next, &root]);
    bench.fake.signs(&next, &both, DAY);
    bench.say.send(Heard::Trust(Arc::clone(&both))).unwrap();
    let before = paused_clock();
    let (second, brought) = bench.next().await;
    assert!(paused_clock() - before <= super::super::renewal::HURRY_MAX);
    assert_eq!((first.issuer, second.issuer), (root.fingerprint(), next.fingerprint()));
    assert_eq!(brought, None, "the stream has said whom to trust");
    tokio::time::sleep(DAY / 2).await;
    assert_eq!(bench.fake.asked_at().len(), 2, "nothing more is asked for before the next renewal");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_still_signs_with_the_old_certificate_is_asked_less_and_less() {
    let (mut bench, root, trusted) = with_a_mesh();
    let next = Arc::new(Authority::new("next"));
    let (_held, _) = bench.next().await;
    bench.say.send(Heard::Up).unwrap();
    bench.say.send(Heard::Trust(trust(&[&next, &root]))).unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let asked = bench.fake.asked_at().len();
    assert!((8..40).contains(&asked), "{asked} times in ten minutes");
    bench.fake.signs(&next, &trusted, DAY);
    while bench.next().await.0.issuer != next.fingerprint() {}
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_missed_a_rotation_comes_back_by_its_token() {
    let (mut bench, _root, trusted) = with_a_mesh();
    let (_held, _) = bench.next().await;
    bench.say.send(Heard::Up).unwrap();
    bench.say.send(Heard::Trust(trusted)).unwrap();
    bench.say.send(Heard::Down).unwrap();
    let next = Arc::new(Authority::new("next"));
    let only_next = trust(&[&next]);
    bench.fake.signs(&next, &only_next, DAY);
    bench.say.send(Heard::Refused).unwrap();
    let before = paused_clock();
    let (held, brought) = bench.next().await;
    assert!(paused_clock() - before <= Duration::from_secs(2), "the controller does not take the old one: a new one is wanted soon");
    assert_eq!((held.issuer, brought), (next.fingerprint(), Some(only_next)));
}

#[tokio::test(start_paused = true)]
async fn while_the_stream_is_up_a_chain_to_other_roots_than_its_own_is_refused() {
    let (mut bench, _root, trusted) = with_a_mesh();
    let (held, _) = bench.next().await;
    bench.say.send(Heard::Up).unwrap();
    bench.say.send(Heard::Trust(trusted)).unwrap();
    let stranger = Arc::new(Authority::new("stranger"));
    bench.fake.signs(&stranger, &trust(&[&stranger]), DAY);
    tokio::time::sleep(DAY - Duration::from_secs(60)).await;
    assert!(bench.granted.try_recv().is_err(), "what peers would not trust is not used");
    assert_eq!(bench.shown.sentence(paused_clock()), format!("{WEB} until {}", written(held.not_after)));
    assert!(bench.metrics().contains("leno_certificate_failures_total{reason=\"bad-answer\"}"));
}

#[tokio::test(start_paused = true)]
async fn the_keeper_ends_with_the_stream_s_task() {
    let (bench, _root, _trusted) = with_a_mesh();
    let Bench { say, granted, presented, .. } = bench;
    drop((say, granted));
    // The keeper holds what it presents as long as it runs.
    let ended = async {
        while Arc::strong_count(&presented) > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), ended).await.unwrap();
}
