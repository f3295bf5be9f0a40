//! What else happens to a request on its way: who gets copies of it.

use leno_core::mirror::Mirror;

use super::answer::Answer;
use super::explanation::Destination;

impl Answer<'_> {
    /// Who gets copies of requests, each with its share of them.
    pub(super) fn mirrors(&self, mirrors: &[Mirror]) -> Vec<Destination> {
        let explained = mirrors.iter().map(|mirror| {
            let backend = mirror.target.backend(&self.service.id, self.port());
            let percent = f64::from(mirror.percentage.millionths()) / 10_000.0;
            let mut to = self.destination(backend, self.target_words(&mirror.target), percent, None);
            if to.answer.is_some() {
                to.answer = Some("no copy is sent: there is no endpoint that is ready".to_owned());
            }
            to
        });
        explained.collect()
    }
}
