//! Reads a [`Redirect`] from environment variables, which the injector writes from annotations.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Redirect;

/// The user the proxy runs as.
const PROXY_UID: &str = "LENO_PROXY_UID";
/// Ports of the pod that are reached directly, comma separated.
const EXCLUDE_INBOUND_PORTS: &str = "LENO_EXCLUDE_INBOUND_PORTS";
/// Ports that the pod reaches directly, comma separated.
const EXCLUDE_OUTBOUND_PORTS: &str = "LENO_EXCLUDE_OUTBOUND_PORTS";
/// Networks that the pod reaches directly, comma separated.
const EXCLUDE_OUTBOUND_CIDRS: &str = "LENO_EXCLUDE_OUTBOUND_CIDRS";

/// Most entries of one list. Each entry is one rule that a new connection may have to pass.
const ENTRIES_MAX: usize = 64;

/// An environment variable that cannot be used, with what to write instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}; write {write}")]
pub struct InvalidSetting {
    /// The name of the variable.
    pub variable: &'static str,
    /// What is wrong with its value.
    pub problem: String,
    /// What a good value looks like.
    pub write: &'static str,
}

impl Redirect {
    /// The redirection that `vars` (usually `std::env::vars()`) ask for.
    ///
    /// `LENO_PROXY_UID` is a number; `LENO_EXCLUDE_INBOUND_PORTS`, `LENO_EXCLUDE_OUTBOUND_PORTS` and
    /// `LENO_EXCLUDE_OUTBOUND_CIDRS` are lists separated by commas. What is absent or empty keeps its
    /// default; other variables are not ours.
    pub fn from_env(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, InvalidSetting> {
        let mut redirect = Self::default();
        for (name, value) in vars {
            match name.as_str() {
                PROXY_UID if !value.trim().is_empty() => redirect.proxy_uid = uid(&value)?,
                EXCLUDE_INBOUND_PORTS => redirect.exclude_inbound_ports = list(EXCLUDE_INBOUND_PORTS, &value, &PORTS)?,
                EXCLUDE_OUTBOUND_PORTS => redirect.exclude_outbound_ports = list(EXCLUDE_OUTBOUND_PORTS, &value, &PORTS)?,
                EXCLUDE_OUTBOUND_CIDRS => redirect.exclude_outbound_cidrs = list(EXCLUDE_OUTBOUND_CIDRS, &value, &NETS)?,
                _ => (),
            }
        }
        Ok(redirect)
    }
}

/// How the entries of one list are read, and what to write when one cannot be.
struct Entry<T> {
    parse: fn(&str) -> Option<T>,
    noun: &'static str,
    write: &'static str,
}

const PORTS: Entry<u16> = Entry { parse: port, noun: "a port", write: "ports from 1 to 65535 separated by commas, for example 5432,6379" };

const NETS: Entry<IpNet> =
    Entry { parse: net, noun: "a network", write: "networks separated by commas, for example 10.0.0.0/8,2001:db8::/32,192.0.2.7" };

/// The entries of `value` in order and without repetition.
fn list<T: Ord>(variable: &'static str, value: &str, entry: &Entry<T>) -> Result<Vec<T>, InvalidSetting> {
    let invalid = |problem| InvalidSetting { variable, problem, write: entry.write };
    let mut entries = BTreeSet::new();
    for text in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let parsed = (entry.parse)(text).ok_or_else(|| invalid(format!("`{text}` is not {}", entry.noun)))?;
        entries.insert(parsed);
    }
    if entries.len() > ENTRIES_MAX {
        return Err(invalid(format!("{} entries are more than the {ENTRIES_MAX} allowed", entries.len())));
    }
    Ok(entries.into_iter().collect())
}

/// Root is refused: every container that runs as root would bypass the mesh.
fn uid(value: &str) -> Result<u32, InvalidSetting> {
    value.trim().parse().ok().filter(|uid| (1..u32::MAX).contains(uid)).ok_or_else(|| InvalidSetting {
        variable: PROXY_UID,
        problem: format!("`{}` is not a user the proxy can have to itself", value.trim()),
        write: "a number from 1 to 4294967294 that no other container of the pod runs as, for example 15100",
    })
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

/// A network, or one address as the network that holds it alone.
fn net(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Redirect, InvalidSetting> {
        Redirect::from_env(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn nothing_set_or_set_to_nothing_gives_the_defaults() {
        assert_eq!(read(&[("PATH", "/bin")]), Ok(Redirect::default()));
        let empty = [PROXY_UID, EXCLUDE_INBOUND_PORTS, EXCLUDE_OUTBOUND_PORTS, EXCLUDE_OUTBOUND_CIDRS].map(|name| (name, " "));
        assert_eq!(read(&empty), Ok(Redirect::default()));
    }

    #[test]
    fn every_variable_is_read() {
        let redirect = read(&[
            (PROXY_UID, "2000"),
            (EXCLUDE_INBOUND_PORTS, "9090"),
            (EXCLUDE_OUTBOUND_PORTS, " 6379, 5432 ,5432,"),
            (EXCLUDE_OUTBOUND_CIDRS, "10.1.2.3/8, 2001:db8::/32,192.0.2.7,::2"),
        ]);
        assert_eq!(
            redirect,
            Ok(Redirect {
                proxy_uid: 2000,
                exclude_inbound_ports: vec![9090],
                exclude_outbound_ports: vec![5432, 6379],
                exclude_outbound_cidrs: ["10.0.0.0/8", "192.0.2.7/32", "::2/128", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec(),
                ..Redirect::default()
            })
        );
    }

    #[test]
    fn a_bad_value_is_refused_with_the_variable_and_what_to_write() {
        let cases = [
            (PROXY_UID, "0", "LENO_PROXY_UID: `0` is not a user the proxy can have to itself; write a number"),
            (PROXY_UID, "4294967295", "`4294967295` is not a user"),
            (PROXY_UID, "leno", "`leno` is not a user"),
            (EXCLUDE_INBOUND_PORTS, "80,0", "LENO_EXCLUDE_INBOUND_PORTS: `0` is not a port; write ports from 1"),
            (EXCLUDE_OUTBOUND_PORTS, "65536", "LENO_EXCLUDE_OUTBOUND_PORTS: `65536` is not a port; write"),
            (EXCLUDE_OUTBOUND_PORTS, "80 443", "`80 443` is not a port"),
            (EXCLUDE_OUTBOUND_CIDRS, "10.0.0.0/33", "`10.0.0.0/33` is not a network; write networks"),
            (EXCLUDE_OUTBOUND_CIDRS, "example.com", "LENO_EXCLUDE_OUTBOUND_CIDRS: `example.com` is not a network"),
        ];
        for (name, value, words) in cases {
            let message = read(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(words), "{name}={value}: {message}");
        }
    }

    #[test]
    fn a_list_may_be_as_long_as_the_limit_and_no_longer() {
        let ports = |count: usize| (1..=count).map(|port| port.to_string()).collect::<Vec<_>>().join(",");
        let at_limit = read(&[(EXCLUDE_INBOUND_PORTS, &ports(ENTRIES_MAX))]).unwrap();
        assert_eq!(at_limit.exclude_inbound_ports.len(), ENTRIES_MAX);
        let over = read(&[(EXCLUDE_INBOUND_PORTS, &ports(ENTRIES_MAX + 1))]).unwrap_err();
        assert_eq!(over.problem, "65 entries are more than the 64 allowed");
    }
}
