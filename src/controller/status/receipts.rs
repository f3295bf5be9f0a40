//! Receipts of all replicas, summed up: how many proxies use a service or enforce a policy, and how many of them run
//! its present state.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::publish::receipts::Receipt;
use crate::publish::topic::Topic;

/// One replica's receipt, as replicas tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What it is about, a [`Topic`].
    pub topic: String,
    /// The state that is current at that replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Proxies that use the service there. None is the last that is said.
    pub subscribed: usize,
    /// Those of them that run that state.
    pub current: usize,
    /// Since when all of them do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_since: Option<Timestamp>,
    /// Those that refused it.
    #[serde(default)]
    pub refused: usize,
    /// One of them and its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

impl Line {
    /// What `receipt` says about `topic`.
    pub fn new(topic: &Topic, receipt: &Receipt) -> Self {
        let timestamp = |time: SystemTime| Timestamp::try_from(time).ok();
        Self {
            topic: topic.to_string(),
            version: receipt.version.as_deref().map(str::to_owned),
            subscribed: receipt.subscribed,
            current: receipt.current,
            current_since: receipt.current_since.and_then(timestamp),
            refused: receipt.refused,
            refusal: receipt.refusals.first().map(|(proxy, reason)| format!("{proxy}: {reason}")),
        }
    }
}

/// How far all proxies are with one service or policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Proxies that use the service or enforce the policy.
    pub subscribed: usize,
    /// Those of them that run its present state.
    pub current: usize,
    /// When the last of them began to; `None` while one does not, or there is none.
    pub current_since: Option<Timestamp>,
    /// Those that refused it.
    pub refused: usize,
    /// One of them and its reason.
    pub refusal: Option<String>,
}

/// What every other replica says.
#[derive(Clone, Debug, Default)]
pub struct Others {
    replicas: BTreeMap<IpAddr, BTreeMap<String, Line>>,
}

impl Others {
    /// Books what `replica` says.
    pub fn told(&mut self, replica: IpAddr, line: Line) {
        let lines = self.replicas.entry(replica).or_default();
        if line.subscribed == 0 {
            lines.remove(&line.topic);
        } else {
            lines.insert(line.topic.clone(), line);
        }
    }

    /// Forgets `replica`: its proxies go elsewhere. Returns what it spoke of.
    pub fn gone(&mut self, replica: IpAddr) -> Vec<Topic> {
        let lines = self.replicas.remove(&replica).unwrap_or_default();
        lines.into_keys().filter_map(|topic| topic.parse().ok()).collect()
    }

    /// What the other replicas say about `topic`.
    pub fn of(&self, topic: &Topic) -> impl Iterator<Item = &Line> {
        let topic = topic.to_string();
        self.replicas.values().filter_map(move |lines| lines.get(&topic))
    }
}

/// Sums up what this replica and the others say, where `version` is the present state. A replica that is at another state has
/// not heard of the present one, so none of its proxies runs it.
pub fn sum<'l>(version: Option<&str>, lines: impl IntoIterator<Item = &'l Line>) -> Standing {
    let mut sum = Standing::default();
    let mut complete = true;
    for line in lines.into_iter().filter(|line| line.subscribed > 0) {
        sum.subscribed += line.subscribed;
        if line.version.as_deref() == version {
            sum.current += line.current;
            sum.refused += line.refused;
            sum.refusal = sum.refusal.or_else(|| line.refusal.clone());
            complete &= line.current_since.is_some();
            sum.current_since = sum.current_since.max(line.current_since);
        } else {
            complete = false;
        }
    }
    if !complete || sum.current != sum.subscribed {
        sum.current_since = None;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(version: &str, subscribed: usize, current: usize, since: Option<i64>) -> Line {
        Line {
            topic: "shop/payment".into(),
            version: Some(version.into()),
            subscribed,
            current,
            current_since: since.map(|second| Timestamp::from_second(second).unwrap()),
            refused: 0,
            refusal: None,
        }
    }

    #[test]
    fn proxies_of_all_replicas_are_summed_and_the_last_to_be_current_sets_the_time() {
        let standing = sum(Some("2"), &[line("2", 3, 3, Some(10)), line("2", 2, 2, Some(12))]);
        let since = Timestamp::from_second(12).ok();
        assert_eq!(standing, Standing { subscribed: 5, current: 5, current_since: since, ..Standing::default() });
    }

    #[test]
    fn a_replica_at_another_state_has_no_current_proxies() {
        let standing = sum(Some("2"), &[line("2", 3, 3, Some(10)), line("1", 2, 2, Some(9))]);
        assert_eq!(standing, Standing { subscribed: 5, current: 3, ..Standing::default() });
    }

    #[test]
    fn one_proxy_that_is_behind_leaves_no_time() {
        let standing = sum(Some("2"), &[line("2", 3, 3, Some(10)), line("2", 2, 1, None)]);
        assert_eq!((standing.current, standing.current_since), (4, None));
    }

    #[test]
    fn a_replica_that_is_gone_counts_no_more() {
        let payment: Topic = "shop/payment".parse().unwrap();
        let (one, two): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut others = Others::default();
        others.told(one, line("1", 3, 3, None));
        others.told(two, line("1", 4, 4, None));
        assert_eq!(others.of(&payment).count(), 2);
        others.told(two, Line { subscribed: 0, ..line("1", 0, 0, None) });
        assert_eq!(others.of(&payment).map(|line| line.subscribed).collect::<Vec<_>>(), [3]);
        assert_eq!(others.gone(one), std::slice::from_ref(&payment));
        assert_eq!(others.of(&payment).count(), 0);
    }
}
