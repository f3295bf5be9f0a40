//! Objects of a folder of manifests: read, watched, and told like a cluster's.
//!
//! [`parse`] reads one file, [`Folder`] holds what all files say and what became of it: both without I/O. [`run`] reads the
//! folder again whenever something in it changes. A file with a problem keeps its last good state until it is mended.

mod lines;
mod manifest;
mod read;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use leno_translate::{Change, Kind, ObjectKey};
use serde_json::Value;

use super::SourceEvent;
pub use manifest::{Manifest, Note, Parsed, Place, decode, parse};
pub use read::{Texts, read};
pub use watch::run;

/// What the files of a folder say.
#[derive(Debug, Default)]
pub struct Folder {
    files: BTreeMap<PathBuf, File>,
    /// What was told last.
    told: BTreeMap<ObjectKey, Value>,
}

#[derive(Debug, Default)]
struct File {
    text: Option<String>,
    /// Objects of the last text without problems.
    good: Vec<Manifest>,
    skipped: Vec<Note>,
    problems: Vec<Note>,
}

/// What there is to tell people about a folder, ordered by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// What is wrong; the last good state of these files is in force.
    pub problems: Vec<Note>,
    /// What was left out.
    pub skipped: Vec<Note>,
}

impl Folder {
    /// The folder now holds `texts`. Returns what changed among its objects, in an order in which things exist before they
    /// are referred to.
    pub fn update(&mut self, texts: Texts) -> Vec<Change> {
        self.files.retain(|path, _| texts.contains_key(path));
        for (path, text) in texts {
            self.files.entry(path.clone()).or_default().update(&path, text);
        }
        let now = self.objects();
        let mut changes: Vec<Change> = Vec::new();
        for kind in Kind::ALL {
            let of_kind = now.values().filter(|it| it.key.kind == kind);
            let changed = of_kind.filter(|it| self.told.get(&it.key) != Some(&it.value));
            changes.extend(changed.map(|it| Change::Apply(it.object.clone())));
        }
        changes.extend(self.told.keys().filter(|key| !now.contains_key(key)).map(|key| Change::Delete(key.clone())));
        let told = now.into_iter().map(|(key, manifest)| (key, manifest.value.clone())).collect();
        self.told = told;
        changes
    }

    /// What to tell people.
    pub fn notes(&self) -> Notes {
        let mut problems: Vec<_> = self.files.values().flat_map(|file| &file.problems).cloned().collect();
        problems.extend(self.twice());
        problems.sort();
        Notes { problems, skipped: self.files.values().flat_map(|file| &file.skipped).cloned().collect() }
    }

    /// Everything, as a source tells it at its start: a list of every kind, empty ones too.
    pub fn listed(&self) -> Vec<SourceEvent> {
        let objects = self.objects();
        let of_kind = |kind| objects.values().filter(move |it| it.key.kind == kind).map(|it| Change::Apply(it.object.clone()));
        Kind::ALL.into_iter().map(|kind| SourceEvent::Listed(kind, of_kind(kind).collect())).collect()
    }

    /// Every object; of several of one name the first in the order of files counts.
    fn objects(&self) -> BTreeMap<ObjectKey, &Manifest> {
        let mut objects = BTreeMap::new();
        for manifest in self.files.values().flat_map(|file| &file.good) {
            objects.entry(manifest.key.clone()).or_insert(manifest);
        }
        objects
    }

    /// Objects that are there more than once.
    fn twice(&self) -> Vec<Note> {
        let first = self.objects();
        let others = self.files.values().flat_map(|file| &file.good).filter_map(|manifest| {
            let first = first.get(&manifest.key).filter(|first| first.place != manifest.place)?;
            let message = format!("{} is also in {}, which counts: remove one of them", manifest.key, first.place);
            Some(Note { place: manifest.place.clone(), message })
        });
        others.collect()
    }
}

impl File {
    fn update(&mut self, path: &Path, text: Result<String, String>) {
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                self.text = None;
                self.problems = vec![Note::about_file(path, error)];
                return;
            }
        };
        if self.text.as_ref() == Some(&text) {
            return;
        }
        let Parsed { manifests, skipped, problems } = parse(path, &text);
        if problems.is_empty() {
            self.good = manifests;
        }
        (self.text, self.skipped, self.problems) = (Some(text), skipped, problems);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, port: u16) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: {port}}}]}}\n")
    }

    fn update(folder: &mut Folder, files: &[(&str, String)]) -> Vec<String> {
        let texts = files.iter().map(|(path, text)| (PathBuf::from(path), Ok(text.clone()))).collect();
        let changes = folder.update(texts);
        let told = changes.iter().map(|change| match change {
            Change::Apply(object) => format!("+{}", object.key().name),
            Change::Delete(key) | Change::Unreadable { key, .. } => format!("-{}", key.name),
        });
        told.collect()
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut folder = Folder::default();
        assert_eq!(update(&mut folder, &[("a", service("cart", 80)), ("b", service("web", 80))]), ["+cart", "+web"]);
        let reordered = format!("# a comment\n{}", service("cart", 80));
        assert_eq!(update(&mut folder, &[("a", reordered), ("b", service("web", 81))]), ["+web"]);
        assert_eq!(update(&mut folder, &[("b", service("web", 81))]), ["-cart"]);
    }

    #[test]
    fn a_broken_file_keeps_its_last_good_state_and_others_go_on() {
        let mut folder = Folder::default();
        update(&mut folder, &[("a", service("cart", 80)), ("b", service("web", 80))]);
        let broken = format!("{}  bad\n", service("cart", 81));
        assert_eq!(update(&mut folder, &[("a", broken), ("b", service("web", 81))]), ["+web"]);
        let problems = folder.notes().problems;
        assert!(problems.len() == 1 && problems[0].to_string().starts_with("a:5: this is no YAML"), "{problems:?}");
        assert_eq!(update(&mut folder, &[("a", service("cart", 81)), ("b", service("web", 81))]), ["+cart"]);
        assert_eq!(folder.notes(), Notes::default());
    }

    #[test]
    fn a_file_that_cannot_be_read_keeps_its_state_until_it_is_gone() {
        let mut folder = Folder::default();
        update(&mut folder, &[("a", service("cart", 80))]);
        let changes = folder.update([(PathBuf::from("a"), Err("cannot be read".to_owned()))].into());
        assert!(changes.is_empty() && folder.notes().problems[0].to_string() == "a:1: cannot be read");
        assert_eq!(update(&mut folder, &[]), ["-cart"]);
    }

    #[test]
    fn of_an_object_in_two_files_the_first_counts_and_the_second_is_told() {
        let mut folder = Folder::default();
        assert_eq!(update(&mut folder, &[("a", service("cart", 80)), ("b", service("cart", 81))]), ["+cart"]);
        let told: Vec<_> = folder.notes().problems.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["b:1: Service shop/cart is also in a:1, which counts: remove one of them"]);
        assert_eq!(update(&mut folder, &[("b", service("cart", 81))]), ["+cart"], "the second takes its place");
    }

    #[test]
    fn the_first_telling_lists_every_kind() {
        let mut folder = Folder::default();
        update(&mut folder, &[("a", service("cart", 80))]);
        let counts = folder.listed().into_iter().map(|event| match event {
            SourceEvent::Listed(kind, objects) => (kind, objects.len()),
            other @ (SourceEvent::Changed(_)
            | SourceEvent::Listing(_)
            | SourceEvent::Whole(_)
            | SourceEvent::Keys(..)
            | SourceEvent::Addresses(..)) => panic!("{other:?}"),
        });
        let counts: BTreeMap<_, _> = counts.collect();
        assert_eq!(counts.len(), Kind::ALL.len());
        assert_eq!(counts[&Kind::Service], 1);
    }
}
