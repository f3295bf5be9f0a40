//! What people are shown of the proxy's identity: on `/ready`, `/identity` and `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leno_core::trust::Held;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The certificate that is held, and how asking for certificates went.
#[derive(Debug, Default)]
pub struct Shown(Mutex<Figures>);

#[derive(Debug, Default)]
struct Figures {
    held: Option<Held>,
    renewals: u64,
    failures: BTreeMap<&'static str, u64>,
    /// Why the last attempt failed, if it did.
    trouble: Option<String>,
}

impl Figures {
    fn words(&self) -> &str {
        self.trouble.as_deref().unwrap_or("the controller has been asked for one")
    }
}

impl Shown {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another certificate is held.
    pub fn renewed(&self, held: Held) {
        let mut figures = self.figures();
        figures.held = Some(held);
        figures.renewals += 1;
        figures.trouble = None;
    }

    /// An attempt failed.
    pub fn failed(&self, reason: &'static str, words: String) {
        let mut figures = self.figures();
        *figures.failures.entry(reason).or_default() += 1;
        figures.trouble = Some(words);
    }

    /// The certificate in one sentence, at `now` (since 1970).
    pub fn sentence(&self, now: Duration) -> String {
        let figures = self.figures();
        let Some(held) = &figures.held else { return format!("no certificate yet: {}", figures.words()) };
        let until = written(held.not_after);
        if expired(held, now) {
            format!("{}: the certificate EXPIRED at {until}: {}", held.identity, figures.words())
        } else {
            format!("{} until {until}", held.identity)
        }
    }

    /// Appends the metrics.
    pub fn render(&self, page: &mut String) {
        let figures = self.figures();
        // Writing to a String cannot fail.
        let _ = render(&figures, page);
    }
}

fn render(figures: &Figures, page: &mut String) -> std::fmt::Result {
    if let Some(held) = &figures.held {
        let name = "leno_certificate_expiry_timestamp_seconds";
        writeln!(page, "# HELP {name} When the proxy's certificate ends, seconds since 1970.\n# TYPE {name} gauge")?;
        writeln!(page, "{name}{{identity=\"{}\"}} {}", held.identity, held.not_after)?;
    }
    let name = "leno_certificate_renewals_total";
    writeln!(page, "# HELP {name} Certificates received, the first one included.\n# TYPE {name} counter\n{name} {}", figures.renewals)?;
    let name = "leno_certificate_failures_total";
    writeln!(page, "# HELP {name} Attempts to get a certificate that failed.\n# TYPE {name} counter")?;
    for (reason, count) in &figures.failures {
        writeln!(page, "{name}{{reason=\"{reason}\"}} {count}")?;
    }
    Ok(())
}

/// Whether a certificate has ended.
pub fn expired(held: &Held, now: Duration) -> bool {
    ends(held) <= now
}

/// The end of a certificate, since 1970.
pub fn ends(held: &Held) -> Duration {
    Duration::from_secs(u64::try_from(held.not_after).unwrap_or_default())
}

/// A time as people read it (RFC 3339).
pub fn written(seconds: i64) -> String {
    let text = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|time| time.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{seconds} s after 1970"))
}
