//! `leno identity`: who holds which certificate until when, as the proxies told the controller's replicas.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use leno_controller::ca::listing::{Listed, Listing};
use serde::Serialize;

use crate::cluster::{Mesh, Replica, Where, block_on};
use crate::left::left;

/// Arguments of `leno identity`.
#[derive(Args, Debug)]
#[command(after_help = "Exit code: 0 when every proxy that is connected holds a valid certificate; 1 when one does not; 2 when that \
                        cannot be read.\n\nIt reads the Secret leno-controller-tls and asks each replica of the controller through the API server.")]
pub struct Arguments {
    /// Only pods of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    place: Where,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A line for each proxy
    Table,
    /// One JSON object
    Json,
    /// One YAML document
    Yaml,
}

/// What all replicas know of the mesh's identities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identities {
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// SHA-256 of each root that proxies are told to trust, hexadecimal.
    pub roots: Vec<String>,
    /// SHA-256 of the certificate that signs now, hexadecimal.
    pub issuer: String,
    /// The proxies, by name.
    pub proxies: Vec<Proxy>,
    /// Replicas that did not answer, and why: their proxies are not listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<String>,
}

/// One proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// Its pod, `namespace/name`.
    pub pod: String,
    /// The SPIFFE ID that its certificate proves; absent while it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The certificate's serial number, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// SHA-256 of the certificate that signed it, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

impl Proxy {
    fn of(listed: Listed) -> Self {
        let not_after = listed.not_after.and_then(|seconds| Timestamp::from_second(seconds).ok());
        Self { pod: listed.workload, identity: listed.identity, serial: listed.serial, issuer: listed.issuer, not_after }
    }

    /// Whether it proves who it is at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.identity.is_some() && self.not_after.is_some_and(|end| now < end)
    }
}

impl Identities {
    /// What the replicas list, each proxy once: one that has just changed its replica may be with two, and what is valid longest
    /// is the newest.
    pub fn of(listings: Vec<Listing>, unheard: Vec<String>) -> Self {
        let first = listings.iter().find(|listing| !listing.issuer.is_empty()).cloned().unwrap_or_default();
        let mut proxies: BTreeMap<String, Proxy> = BTreeMap::new();
        let mut all: Vec<Proxy> = listings.into_iter().flat_map(|listing| listing.proxies).map(Proxy::of).collect();
        all.sort_by_key(|proxy| Reverse(proxy.not_after));
        for proxy in all {
            proxies.entry(proxy.pod.clone()).or_insert(proxy);
        }
        Self {
            trust_domain: first.trust_domain,
            roots: first.roots,
            issuer: first.issuer,
            proxies: proxies.into_values().collect(),
            unheard,
        }
    }

    /// Those of one namespace.
    fn within(mut self, namespace: &str) -> Self {
        self.proxies.retain(|proxy| proxy.pod.split_once('/').is_some_and(|(of, _)| of == namespace));
        self
    }
}

/// Lists the identities, and says by the exit code whether every proxy has one.
///
/// # Errors
/// When the cluster cannot be asked.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let replicas = block_on(async { Mesh::connect(&arguments.place).await?.listings().await })?;
    let all = heard(replicas)?;
    let identities = match &arguments.namespace {
        Some(namespace) => all.within(namespace),
        None => all,
    };
    let now = Timestamp::now();
    match arguments.output {
        Format::Table => write!(out, "{}", Table { identities: &identities, now })?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &identities)?;
            writeln!(out)?;
        }
        Format::Yaml => serde_yaml::to_writer(&mut *out, &identities)?,
    }
    out.flush()?;
    let well = identities.unheard.is_empty() && identities.proxies.iter().all(|proxy| proxy.is_valid(now));
    Ok(ExitCode::from(u8::from(!well)))
}

/// What the replicas that answered list.
pub(crate) fn heard(replicas: Vec<Replica>) -> anyhow::Result<Identities> {
    let (mut listings, mut unheard) = (Vec::new(), Vec::new());
    for Replica { pod, listing } in replicas {
        match listing {
            Ok(listing) => listings.push(listing),
            Err(error) => unheard.push(format!("{pod}: {error}")),
        }
    }
    anyhow::ensure!(!listings.is_empty(), "no replica of the controller answered:\n  {}", unheard.join("\n  "));
    Ok(Identities::of(listings, unheard))
}

/// Displays identities as a table at a moment.
pub struct Table<'i> {
    /// What to show.
    pub identities: &'i Identities,
    /// The moment.
    pub now: Timestamp,
}

/// Characters of a serial number or fingerprint that tell it from others.
const SHORT: usize = 12;

impl Table<'_> {
    fn row(&self, proxy: &Proxy) -> [String; 5] {
        let short = |text: &Option<String>| text.as_deref().map_or("-", |text| text.get(..SHORT).unwrap_or(text)).to_owned();
        let issuer = match &proxy.issuer {
            Some(issuer) if *issuer == self.identities.issuer => short(&proxy.issuer),
            Some(_) => format!("{} (former)", short(&proxy.issuer)),
            None => "-".to_owned(),
        };
        let identity = proxy.identity.clone().unwrap_or_else(|| "no certificate yet".to_owned());
        let ends = proxy.not_after.map_or_else(|| "-".to_owned(), |end| left(end, self.now));
        [proxy.pod.clone(), identity, short(&proxy.serial), issuer, ends]
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.identities;
        if it.proxies.is_empty() {
            writeln!(f, "no proxy is connected to the controller")?;
        } else {
            let head = ["POD", "IDENTITY", "SERIAL", "ISSUER", "EXPIRES IN"].map(str::to_owned);
            let rows: Vec<[String; 5]> = std::iter::once(head).chain(it.proxies.iter().map(|proxy| self.row(proxy))).collect();
            let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            let widths = [0, 1, 2, 3].map(width);
            for [pod, identity, serial, issuer, ends] in &rows {
                let [a, b, c, d] = widths;
                writeln!(f, "{pod:<a$}  {identity:<b$}  {serial:<c$}  {issuer:<d$}  {ends}")?;
            }
        }
        for replica in &it.unheard {
            writeln!(f, "! a replica of the controller did not answer, so its proxies are missing here: {replica}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn listed(workload: &str, serial: &str, seconds: i64, issuer: &str) -> Listed {
        Listed {
            workload: workload.into(),
            identity: Some(format!("spiffe://cluster.local/ns/{}/sa/app", workload.split('/').next().unwrap())),
            serial: Some(serial.repeat(16)),
            not_after: Some(now().as_second() + seconds),
            issuer: Some(issuer.repeat(32)),
            trust: Some("7".into()),
        }
    }

    fn listing(proxies: Vec<Listed>) -> Listing {
        let roots = vec!["aa".repeat(32)];
        Listing { trust_domain: "cluster.local".into(), roots, issuer: "aa".repeat(32), trust_version: "7".into(), proxies }
    }

    fn identities() -> Identities {
        let silent = Listed { workload: "shop/new".into(), ..Listed::default() };
        let one = listing(vec![listed("shop/web", "01", 86_000, "aa"), listed("bank/db", "02", -60, "bb")]);
        let other = listing(vec![listed("shop/web", "00", 100, "bb"), silent]);
        Identities::of(vec![Listing::default(), other, one], vec!["leno-controller-2: gone".into()])
    }

    #[test]
    fn every_proxy_is_listed_once_by_name_with_the_certificate_that_is_valid_longest() {
        let text = Table { identities: &identities(), now: now() }.to_string();
        let wanted = "\
POD       IDENTITY                               SERIAL        ISSUER                 EXPIRES IN
bank/db   spiffe://cluster.local/ns/bank/sa/app  020202020202  bbbbbbbbbbbb (former)  expired 1m 0s ago
shop/new  no certificate yet                     -             -                      -
shop/web  spiffe://cluster.local/ns/shop/sa/app  010101010101  aaaaaaaaaaaa           23h 53m
! a replica of the controller did not answer, so its proxies are missing here: leno-controller-2: gone
";
        assert_eq!(text, wanted);
        let valid: Vec<bool> = identities().proxies.iter().map(|proxy| proxy.is_valid(now())).collect();
        assert_eq!(valid, [false, false, true]);
    }

    #[test]
    fn one_namespace_is_told_from_another_that_begins_alike() {
        let proxies = vec![listed("shop/web", "01", 1, "aa"), listed("shop-2/web", "02", 1, "aa")];
        let of_shop = Identities::of(vec![listing(proxies)], Vec::new()).within("shop");
        assert_eq!(of_shop.proxies.iter().map(|proxy| proxy.pod.as_str()).collect::<Vec<_>>(), ["shop/web"]);
        let none = of_shop.within("nobody");
        assert_eq!(Table { identities: &none, now: now() }.to_string(), "no proxy is connected to the controller\n");
    }

    #[test]
    fn as_data_times_are_times_and_what_is_not_known_is_absent() {
        let json = serde_json::to_value(identities()).unwrap();
        assert_eq!(json["proxies"][2]["notAfter"], "2026-01-01T23:53:20Z");
        assert_eq!(json["proxies"][1], serde_json::json!({"pod": "shop/new"}));
        assert_eq!((&json["trustDomain"], &json["unheard"][0]), (&"cluster.local".into(), &"leno-controller-2: gone".into()));
    }

    #[test]
    fn when_no_replica_answers_the_reasons_are_the_error() {
        let replica = Replica { pod: "a".into(), listing: Err("you may not ask it".into()) };
        assert_eq!(heard(vec![replica]).unwrap_err().to_string(), "no replica of the controller answered:\n  a: you may not ask it");
    }
}
