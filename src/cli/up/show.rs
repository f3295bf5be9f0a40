//! Shows people what goes on: a table on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leno_controller::publish::Publisher;
use leno_controller::source::folder::Notes;
use leno_core::endpoints::EndpointsId;
use leno_core::names::{Name, ServiceId};
use leno_proxy::telemetry::Registry;
use leno_translate::Translator;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::figures::{Window, totals};
use super::says::Says;
use super::screen::Screen;
use super::state::State;
use super::table::{self, ServiceView, View};

/// How often the table is drawn.
const DRAWN_EVERY: Duration = Duration::from_secs(1);
/// How often figures are printed where there is no table, in drawings.
const PRINTED_EVERY: u32 = 10;

/// What the mesh consists of.
#[derive(Clone, Default)]
pub struct Layout {
    /// Where everything is found.
    pub state: State,
    /// The counters of every proxy.
    pub registries: Vec<Arc<Registry>>,
}

/// Everything that is shown, where it comes from.
pub struct Show {
    /// What was told, and where to tell.
    pub says: Says,
    /// What is known of services and objects.
    pub publisher: Publisher,
    /// What is wrong with files.
    pub notes: watch::Receiver<Notes>,
    /// Addresses and counters.
    pub layout: watch::Receiver<Layout>,
}

/// What the translator knows.
#[derive(Clone, Debug, Default)]
struct Known {
    services: BTreeMap<ServiceId, (usize, Vec<(Name, usize)>)>,
    problems: Vec<String>,
}

impl Show {
    /// Shows until `cancel`.
    pub async fn run(self, screen: bool, cancel: CancellationToken) {
        let screen = screen.then(Screen::open).and_then(Result::ok);
        self.says.on_screen(screen.is_some());
        let on_screen = screen.is_some();
        let _ended = cancel.run_until_cancelled(self.follow(screen)).await;
        self.says.on_screen(false);
        if on_screen {
            for line in self.says.recent(3) {
                self.says.line(&line);
            }
        }
    }

    async fn follow(&self, mut screen: Option<Screen>) {
        let (mut window, mut before, mut noted) = (Window::default(), Vec::new(), self.notes.clone());
        noted.mark_changed();
        let mut ticks = tokio::time::interval(DRAWN_EVERY);
        for turn in 0_u32.. {
            let view = self.view(&mut window).await;
            match &mut screen {
                Some(screen) => {
                    let (width, height) = screen.size();
                    if screen.draw(&table::lines(&view, width, height)).is_err() {
                        return;
                    }
                }
                None => {
                    self.print(&view, &mut before);
                    if turn % PRINTED_EVERY == PRINTED_EVERY - 1 {
                        table::busy(&view).iter().for_each(|line| self.says.line(line));
                    }
                }
            }
            // Problems of files are shown at once, figures at the next turn.
            tokio::select! {
                _ = ticks.tick() => {}
                changed = noted.changed() => if changed.is_err() { ticks.tick().await; },
            }
        }
    }

    /// Says what has become wrong since, and what is right again.
    fn print(&self, view: &View, before: &mut Vec<String>) {
        for problem in view.problems.iter().filter(|problem| !before.contains(problem)) {
            self.says.line(&format!("problem: {problem}"));
        }
        for problem in before.iter().filter(|problem| !view.problems.contains(problem)) {
            self.says.line(&format!("mended: {problem}"));
        }
        before.clone_from(&view.problems);
    }

    async fn view(&self, window: &mut Window) -> View {
        let layout = self.layout.borrow().clone();
        let notes = self.notes.borrow().clone();
        window.push(Instant::now(), totals(&layout.registries));
        let known = self.publisher.query(known).await.unwrap_or_default();
        let mut problems: Vec<String> = notes.problems.iter().map(|note| format!("{note} (its last good state is in force)")).collect();
        problems.extend(notes.skipped.iter().map(ToString::to_string));
        problems.extend(known.problems);
        let mut services: BTreeMap<ServiceId, ServiceView> = BTreeMap::new();
        for (id, (endpoints, versions)) in known.services {
            services.insert(id, ServiceView { endpoints, versions, ..ServiceView::default() });
        }
        for (id, addresses) in layout.state.services {
            services.entry(id).or_default().addresses = addresses;
        }
        View { services, figures: window.figures(), problems, told: self.says.recent(100) }
    }
}

/// Services with their endpoints, and what is said about objects that are not in force as they are written.
fn known(translator: &Translator) -> Known {
    let mut known = Known::default();
    for id in translator.services() {
        let ports = translator.service(id).map(|service| service.ports).unwrap_or_default();
        let of_port = |port: &leno_core::service::ServicePort| translator.endpoints(&EndpointsId::new(id.clone(), port.port));
        let most = ports.iter().filter_map(of_port).map(|it| it.endpoints.len()).max();
        known.services.insert(id.clone(), (most.unwrap_or(0), Vec::new()));
    }
    for key in translator.reported() {
        let Some(report) = translator.report(&key) else { continue };
        if let Some((_, versions)) =
            report.service.as_ref().and_then(|id| known.services.get_mut(id)).filter(|_| !report.versions.is_empty())
        {
            versions.clone_from(&report.versions);
        }
        let failing = report.conditions.iter().filter(|condition| !condition.holds);
        known
            .problems
            .extend(failing.map(|condition| format!("{key}: {}=False ({}): {}", condition.kind, condition.reason, condition.message)));
    }
    known
}
