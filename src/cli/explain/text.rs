//! An explanation as text.

use std::fmt;

use super::explanation::{Candidate, Destination, Explanation, Judged, Outcome, Retry};

/// Endpoints that are listed for one destination; the rest is counted.
const ENDPOINTS_MAX: usize = 10;

/// Displays an explanation, one step after the other.
pub struct Text<'e>(pub &'e Explanation);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.0;
        write!(f, "{} {}", it.request.method, it.request.url)?;
        if let Some(from) = &it.request.from {
            write!(f, " from {from}")?;
        }
        writeln!(f, "\n")?;
        match &it.service {
            None if it.outcome == Outcome::Refused => {
                writeln!(f, "service       none")?;
                for destination in &it.destinations {
                    destination_lines("destination", destination, f)?;
                }
            }
            None => writeln!(f, "service       none: the mesh does not touch it, it goes where the network takes it")?,
            Some(service) => {
                writeln!(f, "service       {}, found by {}", service.name, service.found_by)?;
                writeln!(f, "port          {}, protocol {}", service.port, service.protocol)?;
                writeln!(f, "policy        {}", it.policy.as_deref().unwrap_or("none: the defaults hold"))?;
                steps(it, f)?;
            }
        }
        for note in &it.notes {
            writeln!(f, "note          {note}")?;
        }
        Ok(())
    }
}

fn steps(it: &Explanation, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, judged) in it.judged.iter().enumerate() {
        let label = if index == 0 { "judged" } else { "" };
        writeln!(f, "{label:<14}{}", judged_words(judged))?;
    }
    match (&it.route, it.judged.is_empty()) {
        (Some(route), _) => writeln!(f, "route         {route}")?,
        (None, false) => writeln!(f, "route         none matches: the service's own endpoints take it")?,
        (None, true) => {}
    }
    for filter in &it.filters {
        writeln!(f, "{:<14}{}", filter.name, filter.does)?;
    }
    if let Some(limit) = &it.rate_limit {
        writeln!(f, "rate limit    {limit}, in each proxy; then 429")?;
    }
    for destination in &it.destinations {
        destination_lines("destination", destination, f)?;
    }
    for mirror in &it.mirrors {
        destination_lines("copy to", mirror, f)?;
    }
    for access in &it.access {
        let caller = access.caller.as_ref().map_or_else(|| "the caller proves no identity".to_owned(), |it| format!("the caller is {it}"));
        writeln!(f, "mutual TLS    {}: {caller}", access.mode)?;
        for (index, judged) in access.judged.iter().enumerate() {
            writeln!(f, "{:<14}{judged}", if index == 0 { "rules" } else { "" })?;
        }
        writeln!(f, "access        {} (at {})", access.words, access.workloads.join(", "))?;
    }
    match &it.timeout {
        Some(timeout) => writeln!(f, "timeout       {}, set by {}; then 504", timeout.after, timeout.set_by)?,
        None => writeln!(f, "timeout       none")?,
    }
    if let Some(idle) = &it.idle_timeout {
        writeln!(f, "idle timeout  {idle}, once a response has begun; then a reset")?;
    }
    if let Some(retry) = &it.retry {
        retry_lines(retry, f)?;
    }
    if let Some(balancer) = &it.balancer {
        writeln!(f, "balancer      {balancer}")?;
    }
    match it.outcome {
        Outcome::Routed => writeln!(f, "outcome       an endpoint takes it"),
        Outcome::Refused if it.access.iter().any(|access| !access.allowed) => {
            let asked = it.destinations.iter().filter(|destination| destination.drawn.unwrap_or(true));
            let pods: usize = asked.map(|destination| destination.endpoints.len()).sum();
            let refusing: usize = it.access.iter().filter(|access| !access.allowed).map(|access| access.workloads.len()).sum();
            writeln!(f, "outcome       {} pod lets the caller pass, see access", if refusing < pods { "not every" } else { "no" })
        }
        Outcome::Refused if it.destinations.iter().any(|destination| !destination.endpoints.is_empty() && destination.drawn.is_none()) => {
            writeln!(f, "outcome       some of such requests are taken by no endpoint, see above")
        }
        Outcome::Refused => writeln!(f, "outcome       no endpoint takes it"),
        Outcome::PassesThrough => Ok(()),
    }
}

fn retry_lines(retry: &Retry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if retry.attempts == 0 {
        return writeln!(f, "retry         never, set by {}", retry.set_by);
    }
    let on = if retry.on.is_empty() { "nothing".to_owned() } else { retry.on.join(", ") };
    writeln!(f, "retry         up to {} more, set by {}; on {on}", retry.attempts, retry.set_by)?;
    if let Some(note) = &retry.note {
        writeln!(f, "              {note}")?;
    }
    let [base, max] = &retry.backoff;
    let each = retry.per_try_timeout.as_ref().map_or_else(String::new, |limit| format!("each within {limit}; "));
    writeln!(f, "              {each}up to {base} apart, doubled up to {max}; at most 20 % of requests and 10 each second")
}

fn judged_words(judged: &Judged) -> String {
    let Judged { route, place, .. } = judged;
    match (place, &judged.why) {
        (0, _) => format!("holds         {route}, which is for every request"),
        (place, None) => format!("holds         {route}, match {place}"),
        (place, Some(why)) => format!("does not hold {route}, match {place}: {why}"),
    }
}

fn destination_lines(label: &str, destination: &Destination, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Destination { percent, name, drawn, endpoints, balancing, guards, answer } = destination;
    let percent = percent_words(*percent);
    let drawn = if *drawn == Some(true) { "  <- drawn" } else { "" };
    write!(f, "{label:<14}{percent:>6} %  {name}")?;
    match answer {
        Some(answer) => writeln!(f, ": {answer}{drawn}")?,
        None => writeln!(f, "{drawn}")?,
    }
    for candidate in endpoints.iter().take(ENDPOINTS_MAX) {
        writeln!(f, "{:<25}{}", "", candidate_words(candidate))?;
    }
    if let Some(more @ 1..) = endpoints.len().checked_sub(ENDPOINTS_MAX) {
        writeln!(f, "{:<25}and {more} more", "")?;
    }
    balancing.iter().chain(guards).try_for_each(|guard| writeln!(f, "{:<25}{guard}", ""))
}

fn candidate_words(candidate: &Candidate) -> String {
    let mut words = candidate.address.to_string();
    if !candidate.workload.is_empty() {
        words.push(' ');
        words.push_str(&candidate.workload);
    }
    if !candidate.versions.is_empty() {
        words.push_str(&format!(" ({})", candidate.versions.join(", ")));
    }
    let weight = candidate.weight.map(|weight| format!("weight {weight}"));
    let share = candidate.percent.map(|percent| format!("{} %", percent_words(percent)));
    let more: Vec<_> = weight.into_iter().chain(share).collect();
    if !more.is_empty() {
        words.push_str(&format!(", {}", more.join(", ")));
    }
    words
}

fn percent_words(percent: f64) -> String {
    let words = format!("{percent:.2}");
    words.trim_end_matches('0').trim_end_matches('.').to_owned()
}
