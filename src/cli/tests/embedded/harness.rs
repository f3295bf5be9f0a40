//! Starts `leno up` on a folder of its own and ends it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// More than anything here takes, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Loopback addresses of a mesh's own: tests run at the same time, and their services have the same names.
fn addresses() -> String {
    static MESHES: AtomicU32 = AtomicU32::new(0);
    let place = std::process::id().wrapping_add(MESHES.fetch_add(1, Ordering::Relaxed)) % (64 * 256);
    format!("127.{}.{}.0/24", 64 + place / 256, place % 256)
}

/// A running mesh. Dropping it ends it.
pub(crate) struct Mesh {
    child: Child,
    folder: TempDir,
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Mesh {
    /// Starts the mesh of one file and waits until it runs.
    pub(crate) fn up(manifests: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        fs::write(folder.path().join("manifests/shop.yaml"), manifests).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_leno"))
            .args(["up", "--plain", "--drain-seconds", "1", "-f", "manifests", "--state", "state.json", "--bind", &addresses()])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut mesh = Self { child, folder, lines: Arc::default(), reader: None };
        let (output, lines) = (mesh.child.stdout.take().unwrap(), Arc::clone(&mesh.lines));
        mesh.reader = Some(std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.0.lock().unwrap().push(line);
                lines.1.notify_all();
            }
        }));
        mesh.told("the mesh of manifests runs");
        mesh.until("the state file is there", |mesh| mesh.folder.path().join("state.json").exists());
        mesh
    }

    /// Waits until a line with `words` was printed; gives it.
    pub(crate) fn told(&self, words: &str) -> String {
        let (lines, more) = (&self.lines.0, &self.lines.1);
        let found = |lines: &[String]| lines.iter().find(|line| line.contains(words)).cloned();
        let waited = more.wait_timeout_while(lines.lock().unwrap(), PATIENCE, |lines| found(lines).is_none()).unwrap();
        found(&waited.0).unwrap_or_else(|| panic!("{words:?} was not printed, but: {:#?}", *waited.0))
    }

    /// Waits until `holds`.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < end, "not in time: {what}; printed: {:#?}", self.lines.0.lock().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Replaces a file of the folder as editors do: writes another and renames it.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let draft = self.folder.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.folder.path().join("manifests").join(name)).unwrap();
    }

    /// Removes a file of the folder.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join("manifests").join(name)).unwrap();
    }

    /// What the state file says now.
    pub(crate) fn state(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder.path().join("state.json")).unwrap()).unwrap()
    }

    /// The address of a service's port.
    pub(crate) fn service(&self, service: &str, port: u16) -> SocketAddr {
        self.state()["services"][service][port.to_string()].as_str().unwrap().parse().unwrap()
    }

    /// Where a workload's app sends what it asks of others.
    pub(crate) fn outbound(&self, workload: &str) -> SocketAddr {
        self.state()["workloads"][workload]["outbound"].as_str().unwrap().parse().unwrap()
    }

    /// Ends the mesh; gives everything it printed.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        let status = self.end();
        assert!(status.success(), "{status}");
        self.reader.take().unwrap().join().unwrap();
        self.lines.0.lock().unwrap().clone()
    }

    /// The process of the mesh.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the mesh as Ctrl-C does; gives its exit status.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        if let Ok(Some(status)) = self.child.try_wait() {
            return status;
        }
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None if Instant::now() > end => {
                    self.child.kill().unwrap();
                    return self.child.wait().unwrap();
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _status = self.end();
    }
}

/// A Service of namespace `shop` whose port 80 leads to the port `http` of workloads with the label `app`.
pub(crate) fn service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  selector: {{app: {name}}}\n  ports:\n  - {{name: http, port: 80, targetPort: http}}\n"
    )
}

/// A Workload of a service that listens at `address`.
pub(crate) fn workload(name: &str, app: &str, version: &str, address: SocketAddr) -> String {
    format!(
        "---\napiVersion: leno.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}, version: {version}}}}}\nspec:\n  address: {}\n  ports:\n  - {{name: http, port: {}}}\n",
        address.ip(),
        address.port()
    )
}

/// A MeshService with the versions v1 and v2.
pub(crate) fn versions(name: &str) -> String {
    format!(
        "---\napiVersion: leno.dev/v1alpha1\nkind: MeshService\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  versions:\n  - {{name: v1, labels: {{version: v1}}}}\n  - {{name: v2, labels: {{version: v2}}}}\n"
    )
}

/// A TrafficPolicy for a MeshService; `rest` is the rest of its spec.
pub(crate) fn policy(name: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: leno.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRef: {{name: {name}}}\n{rest}"
    )
}
