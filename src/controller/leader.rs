//! Which replica writes status: the one that holds the Lease.
//!
//! [`Election::step`] decides from the Lease as it was read and a clock, without I/O; [`Campaign`] reads and writes it. Another
//! replica's clock is never trusted: a Lease counts as abandoned when this process has seen it unchanged for its duration.
//! Two replicas may both believe to lead for a moment after a partition; writes of status are server-side applies of the
//! same truth, so that does no harm.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a leader that says nothing stays leader.
pub const DURATION: Duration = Duration::from_secs(10);
/// How often the leader says that it is there.
pub const RENEW: Duration = Duration::from_secs(2);

/// One replica's view of the election.
#[derive(Debug)]
pub struct Election {
    identity: String,
    duration: Duration,
    /// The Lease as it was when it last changed, and when that was seen.
    seen: Option<(LeaseSpec, Instant)>,
}

/// What to do with the Lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write this: the replica leads if that succeeds.
    Write(LeaseSpec),
    /// Somebody else leads.
    Follow,
}

impl Election {
    /// The view of the replica called `identity`.
    pub fn new(identity: impl Into<String>, duration: Duration) -> Self {
        Self { identity: identity.into(), duration, seen: None }
    }

    /// What to do with `lease`, read at `now`; `clock` is what is written into it.
    pub fn step(&mut self, lease: Option<&LeaseSpec>, now: Instant, clock: Timestamp) -> Step {
        let Some(lease) = lease else { return Step::Write(self.taken(None, clock)) };
        match lease.holder_identity.as_deref() {
            Some(holder) if holder == self.identity => Step::Write(LeaseSpec { renew_time: Some(MicroTime(clock)), ..lease.clone() }),
            None | Some("") => Step::Write(self.taken(Some(lease), clock)),
            Some(_) if self.is_abandoned(lease, now) => Step::Write(self.taken(Some(lease), clock)),
            Some(_) => Step::Follow,
        }
    }

    fn is_abandoned(&mut self, lease: &LeaseSpec, now: Instant) -> bool {
        match &self.seen {
            Some((seen, since)) if seen == lease => now.duration_since(*since) >= self.duration,
            Some(_) | None => {
                self.seen = Some((lease.clone(), now));
                false
            }
        }
    }

    fn taken(&self, before: Option<&LeaseSpec>, clock: Timestamp) -> LeaseSpec {
        let transitions = before.and_then(|lease| lease.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(clock)),
            renew_time: Some(MicroTime(clock)),
            lease_transitions: Some(transitions.saturating_add(i32::from(before.is_some()))),
            ..LeaseSpec::default()
        }
    }
}

/// One replica's part in the election.
pub struct Campaign {
    /// How the cluster is reached.
    pub client: Client,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Name of this replica.
    pub identity: String,
    /// Told whether this replica leads.
    pub leading: watch::Sender<bool>,
}

impl Campaign {
    /// Takes part until `cancel`, and gives the Lease back then.
    pub async fn run(self, cancel: CancellationToken) {
        let lease = LeaseApi { api: Api::namespaced(self.client.clone(), &self.namespace), name: self.name.clone() };
        let _never: Option<()> = cancel.run_until_cancelled(self.stand(&lease)).await;
        if self.leading.send_replace(false) {
            lease.release(&self.identity).await;
        }
    }

    async fn stand(&self, lease: &LeaseApi) {
        let mut election = Election::new(&self.identity, DURATION);
        let mut renewed = Instant::now();
        loop {
            let led = match tokio::time::timeout(RENEW, lease.round(&mut election)).await {
                Ok(Ok(led)) => {
                    renewed = Instant::now();
                    led
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, lease = self.name, "cannot renew the Lease");
                    self.still_leads(renewed)
                }
                Err(_elapsed) => self.still_leads(renewed),
            };
            let changed = self.leading.send_if_modified(|leads| std::mem::replace(leads, led) != led);
            if changed {
                tracing::info!(leading = led, identity = self.identity, "election");
            }
            tokio::time::sleep(RENEW).await;
        }
    }

    /// Whether a leader that could not renew leads on: until the others may take over.
    fn still_leads(&self, renewed: Instant) -> bool {
        *self.leading.borrow() && renewed.elapsed() < DURATION - RENEW
    }
}

struct LeaseApi {
    api: Api<Lease>,
    name: String,
}

impl LeaseApi {
    /// Reads, decides and writes once. Returns whether this replica leads.
    async fn round(&self, election: &mut Election) -> Result<bool, kube::Error> {
        let stored = self.api.get_opt(&self.name).await?;
        let spec = stored.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        match election.step(spec.as_ref(), Instant::now(), Timestamp::now()) {
            Step::Follow => Ok(false),
            Step::Write(spec) => self.write(stored, spec).await,
        }
    }

    /// Returns whether the write won.
    async fn write(&self, stored: Option<Lease>, spec: LeaseSpec) -> Result<bool, kube::Error> {
        let params = PostParams::default();
        let written = match stored {
            Some(lease) => self.api.replace(&self.name, &params, &Lease { spec: Some(spec), ..lease }).await,
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                self.api.create(&params, &Lease { metadata, spec: Some(spec) }).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the Lease back, so that another replica need not wait for it to run out.
    async fn release(&self, identity: &str) {
        let Ok(Some(lease)) = self.api.get_opt(&self.name).await else { return };
        let Some(spec) = lease.spec.clone().filter(|spec| spec.holder_identity.as_deref() == Some(identity)) else { return };
        let spec = LeaseSpec { holder_identity: None, ..spec };
        if let Err(error) = self.write(Some(lease), spec).await {
            tracing::debug!(%error, "cannot give the Lease back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn written(step: Step) -> LeaseSpec {
        match step {
            Step::Write(spec) => spec,
            Step::Follow => panic!("follows"),
        }
    }

    fn holder(spec: &LeaseSpec) -> &str {
        spec.holder_identity.as_deref().unwrap_or_default()
    }

    #[test]
    fn the_first_replica_leads_and_stays_leader_by_renewing() {
        let (mut a, start) = (Election::new("a", DURATION), Instant::now());
        let first = written(a.step(None, start, clock(0)));
        assert_eq!((holder(&first), first.lease_transitions), ("a", Some(0)));
        let second = written(a.step(Some(&first), start + RENEW, clock(2)));
        assert_eq!((second.acquire_time, second.renew_time), (first.acquire_time, Some(MicroTime(clock(2)))));
    }

    #[test]
    fn another_replica_takes_over_when_the_leader_has_been_silent_for_the_duration() {
        let (mut a, mut b, start) = (Election::new("a", DURATION), Election::new("b", DURATION), Instant::now());
        let held = written(a.step(None, start, clock(0)));
        assert_eq!(b.step(Some(&held), start, clock(0)), Step::Follow);
        let almost = start + DURATION - Duration::from_millis(1);
        assert_eq!(b.step(Some(&held), almost, clock(9)), Step::Follow);
        let taken = written(b.step(Some(&held), start + DURATION, clock(10)));
        assert_eq!((holder(&taken), taken.lease_transitions), ("b", Some(1)));
    }

    #[test]
    fn a_leader_that_renews_is_never_overtaken_whatever_its_clock_says() {
        let (mut b, start) = (Election::new("b", DURATION), Instant::now());
        let mut a = Election::new("a", DURATION);
        let mut held = written(a.step(None, start, clock(-5000)));
        for round in 1..20_u32 {
            let now = start + RENEW * round;
            held = written(a.step(Some(&held), now, clock(-5000 + i64::from(round))));
            assert_eq!(b.step(Some(&held), now, clock(0)), Step::Follow, "round {round}");
        }
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let given_back = LeaseSpec { lease_transitions: Some(3), ..LeaseSpec::default() };
        let taken = written(Election::new("b", DURATION).step(Some(&given_back), Instant::now(), clock(0)));
        assert_eq!((holder(&taken), taken.lease_transitions), ("b", Some(4)));
    }
}
