//! Watching a folder: reads it again when something in it changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::Sender;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{Folder, Note, Notes, read};
use crate::source::SourceEvent;

/// Editors write in several steps: the folder is read once it has been quiet for this long …
const QUIET: Duration = Duration::from_millis(30);
/// … or has not been quiet for this long.
const UNQUIET_MAX: Duration = Duration::from_millis(500);
/// The folder is read this often without being told, for file systems that do not tell.
const EVERY: Duration = Duration::from_secs(3);

/// Tells the objects of the folder (or single file) `path` and their changes until `cancel`. `notes` holds what there is to
/// tell people; it is set before the objects are told.
///
/// # Errors
/// When the folder cannot be read at the start. Later it may come and go.
pub async fn run(
    path: PathBuf,
    events: Sender<SourceEvent>,
    notes: watch::Sender<Notes>,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let changed = std::sync::Arc::new(Notify::new());
    // Before the first reading, so that nothing is missed in between. Its end ends the watching.
    let _watcher = watcher(&path, std::sync::Arc::clone(&changed));
    let mut folder = Folder::default();
    folder.update(read(&path)?);
    notes.send_replace(folder.notes());
    for event in folder.listed() {
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
    let follow = async {
        loop {
            let _every = tokio::time::timeout(EVERY, changed.notified()).await;
            quiet(&changed).await;
            if tell(&path, &mut folder, &events, &notes).await.is_none() {
                break;
            }
        }
    };
    let _ended = cancel.run_until_cancelled(follow).await;
    Ok(())
}

/// Reads the folder again and tells what changed. `None`: nobody listens any more.
async fn tell(path: &Path, folder: &mut Folder, events: &Sender<SourceEvent>, notes: &watch::Sender<Notes>) -> Option<()> {
    let texts = match read(path) {
        Ok(texts) => texts,
        Err(error) => {
            let mut now = folder.notes();
            now.problems.push(Note::about_file(path, format!("the folder cannot be read: {error}; what it said last is in force")));
            set(notes, now);
            return Some(());
        }
    };
    let changes = folder.update(texts);
    set(notes, folder.notes());
    for change in changes {
        events.send(SourceEvent::Changed(change)).await.ok()?;
    }
    Some(())
}

fn set(notes: &watch::Sender<Notes>, now: Notes) {
    notes.send_if_modified(|held| {
        let modified = *held != now;
        *held = now;
        modified
    });
}

/// Waits until nothing has changed for a moment.
async fn quiet(changed: &Notify) {
    let quiet = async { while tokio::time::timeout(QUIET, changed.notified()).await.is_ok() {} };
    let _bounded = tokio::time::timeout(UNQUIET_MAX, quiet).await;
}

/// Wakes `changed` at every change under `path`. Without one (too many watches on this machine) the folder is still read
/// every few seconds.
fn watcher(path: &Path, changed: std::sync::Arc<Notify>) -> Option<RecommendedWatcher> {
    let wake = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.notify_one();
        }
    };
    // A file that is replaced by renaming is seen by its folder only.
    let folder = if path.is_file() { path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new(".")) } else { path };
    let watching = notify::recommended_watcher(wake).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    match watching {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), every = ?EVERY, "the folder cannot be watched: it is read now and then instead");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use leno_translate::{Change, Kind};
    use tokio::sync::mpsc;

    use super::*;

    fn service(port: u16) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: cart}}\nspec: {{ports: [{{port: {port}}}]}}\n")
    }

    async fn next(events: &mut mpsc::Receiver<SourceEvent>) -> String {
        let event = tokio::time::timeout(Duration::from_secs(20), events.recv()).await.expect("a change is told").unwrap();
        match event {
            SourceEvent::Changed(Change::Apply(object)) => format!("apply {}", object.key()),
            SourceEvent::Changed(Change::Delete(key)) => format!("delete {key}"),
            other @ (SourceEvent::Changed(Change::Unreadable { .. })
            | SourceEvent::Listed(..)
            | SourceEvent::Listing(_)
            | SourceEvent::Whole(_)
            | SourceEvent::Keys(..)
            | SourceEvent::Addresses(..)) => {
                panic!("{other:?}")
            }
        }
    }

    #[tokio::test]
    async fn changes_by_writing_and_by_renaming_are_told_and_a_broken_file_is_noted() {
        let root = tempfile::tempdir().unwrap();
        let (file, draft) = (root.path().join("a.yaml"), root.path().join("draft"));
        fs::write(&file, service(80)).unwrap();
        let (sender, mut events) = mpsc::channel(16);
        let (told, mut notes) = watch::channel(Notes::default());
        let cancel = CancellationToken::new();
        let running = tokio::spawn(run(root.path().to_owned(), sender, told, cancel.clone()));
        for kind in Kind::ALL {
            let Some(SourceEvent::Listed(listed, objects)) = events.recv().await else { panic!("a list of every kind comes first") };
            assert_eq!((listed, objects.len()), (kind, usize::from(kind == Kind::Service)));
        }
        notes.borrow_and_update();

        fs::write(&draft, service(81)).unwrap();
        fs::rename(&draft, &file).unwrap();
        assert_eq!(next(&mut events).await, "apply Service default/cart");

        fs::write(&file, "apiVersion: [\n").unwrap();
        notes.wait_for(|notes| !notes.problems.is_empty()).await.unwrap();
        fs::write(&file, service(82)).unwrap();
        assert_eq!(next(&mut events).await, "apply Service default/cart");
        assert_eq!(*notes.borrow_and_update(), Notes::default());

        fs::remove_file(&file).unwrap();
        assert_eq!(next(&mut events).await, "delete Service default/cart");
        cancel.cancel();
        running.await.unwrap().unwrap();
    }
}
