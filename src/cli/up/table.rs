//! What a person sees while the mesh runs: a table of services, and below it what was told last. Pure text.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use leno_core::names::{Name, ServiceId};

use super::figures::{Figures, Whose};

/// Everything there is to show.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The services and where they are found.
    pub services: BTreeMap<ServiceId, ServiceView>,
    /// Figures of the last seconds.
    pub figures: BTreeMap<Whose, Figures>,
    /// What is wrong with files and objects.
    pub problems: Vec<String>,
    /// What was told last.
    pub told: Vec<String>,
}

/// One service.
#[derive(Clone, Debug, Default)]
pub struct ServiceView {
    /// Where each port is found.
    pub addresses: BTreeMap<u16, SocketAddr>,
    /// Its endpoints.
    pub endpoints: usize,
    /// Its versions, with their endpoints.
    pub versions: Vec<(Name, usize)>,
}

/// Columns of the table: title and width; numbers are set to the right.
const COLUMNS: [(&str, usize, bool); 8] = [
    ("SERVICE", 24, false),
    ("VERSION", 10, false),
    ("ENDPOINTS", 9, true),
    ("REQ/S", 9, true),
    ("SUCCESS", 8, true),
    ("P50", 9, true),
    ("P99", 9, true),
    ("ADDRESS", 24, false),
];

/// The lines to show, at most `height` of them and none wider than `width`.
pub fn lines(view: &View, width: usize, height: usize) -> Vec<String> {
    let mut lines = vec![row(&COLUMNS.map(|(title, ..)| title.to_owned()))];
    for (id, service) in &view.services {
        lines.extend(service_rows(id, service, &view.figures));
    }
    if !view.problems.is_empty() {
        lines.push(String::new());
        lines.extend(view.problems.iter().map(|problem| format!("! {problem}")));
    }
    lines.push(String::new());
    lines.truncate(height);
    let left = height.saturating_sub(lines.len());
    lines.extend(view.told.iter().skip(view.told.len().saturating_sub(left)).cloned());
    lines.into_iter().map(|line| line.chars().filter(|letter| !letter.is_control()).take(width).collect()).collect()
}

/// The whole service if it has no versions; otherwise a row for each, and one for what went to none.
fn service_rows(id: &ServiceId, service: &ServiceView, figures: &BTreeMap<Whose, Figures>) -> Vec<String> {
    let of = |version: Option<&Name>| figures.get(&(id.clone(), version.cloned())).copied();
    let mut rows: Vec<(String, usize, Option<Figures>)> =
        service.versions.iter().map(|(version, endpoints)| (version.to_string(), *endpoints, of(Some(version)))).collect();
    let none = of(None).filter(|figures| figures.success.is_some());
    if rows.is_empty() || none.is_some() {
        rows.push(("-".to_owned(), service.endpoints, of(None)));
    }
    let addresses: Vec<String> = service.addresses.values().map(ToString::to_string).collect();
    let numbered = rows.into_iter().enumerate().map(|(index, (version, endpoints, figures))| {
        let first = |text: String| if index == 0 { text } else { String::new() };
        let figures = figures.unwrap_or_default();
        row(&[
            first(id.to_string()),
            version,
            endpoints.to_string(),
            format!("{:.1}", figures.rate),
            figures.success.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0)),
            time(figures.p50),
            time(figures.p99),
            first(addresses.join(" ")),
        ])
    });
    numbered.collect()
}

fn row(cells: &[String; 8]) -> String {
    let cells = cells
        .iter()
        .zip(COLUMNS)
        .map(|(cell, (_, width, right))| if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// The busy services in one line each, for an output that is no terminal.
pub fn busy(view: &View) -> Vec<String> {
    let busy = view.figures.iter().filter(|(_, figures)| figures.success.is_some());
    let words = busy.map(|((id, version), figures)| {
        let version = version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
        let success = figures.success.unwrap_or_default() * 100.0;
        format!(
            "{id}{version}: {:.1} requests/s, {success:.1} % success, p50 {}, p99 {}",
            figures.rate,
            time(figures.p50),
            time(figures.p99)
        )
    });
    words.collect()
}

fn time(time: Option<Duration>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time < Duration::from_millis(100) => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        Some(time) if time < Duration::from_secs(1) => format!("{:.0} ms", time.as_secs_f64() * 1e3),
        Some(time) => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let payment = ServiceId::new("shop", "payment");
        let figures =
            Figures { rate: 18.04, success: Some(0.995), p50: Some(Duration::from_micros(1_250)), p99: Some(Duration::from_millis(250)) };
        View {
            services: [
                (
                    payment.clone(),
                    ServiceView {
                        addresses: [(80, "127.70.1.2:10080".parse().unwrap())].into(),
                        endpoints: 2,
                        versions: vec![("v1".into(), 1), ("v2".into(), 1)],
                    },
                ),
                (ServiceId::new("shop", "orders"), ServiceView::default()),
            ]
            .into(),
            figures: [((payment, Some("v1".into())), figures)].into(),
            problems: vec!["shop.yaml:7: spec.timeoutt: unknown field".into()],
            told: (1..=9).map(|number| format!("line {number}")).collect(),
        }
    }

    #[test]
    fn the_table_shows_services_versions_figures_problems_and_the_last_lines() {
        let lines = lines(&view(), 200, 10);
        assert_eq!(lines.len(), 10);
        let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(cells(&lines[1]), "shop/orders - 0 0.0 - - -");
        assert_eq!(cells(&lines[2]), "shop/payment v1 1 18.0 99.5 % 1.2 ms 250 ms 127.70.1.2:10080");
        assert_eq!(cells(&lines[3]), "v2 1 0.0 - - -");
        assert_eq!(lines[5], "! shop.yaml:7: spec.timeoutt: unknown field");
        assert_eq!(lines[7..], ["line 7", "line 8", "line 9"]);
    }

    #[test]
    fn nothing_is_wider_or_higher_than_the_screen() {
        let lines = lines(&view(), 20, 4);
        assert!(lines.len() == 4 && lines.iter().all(|line| line.chars().count() <= 20), "{lines:?}");
    }

    #[test]
    fn without_a_terminal_busy_services_have_a_line_each() {
        assert_eq!(busy(&view()), ["shop/payment v1: 18.0 requests/s, 99.5 % success, p50 1.2 ms, p99 250 ms"]);
    }
}
