//! The addresses of everything, and the file that tells them to other programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use leno_core::names::{ServiceId, WorkloadId};
use serde::{Serialize, Serializer};

/// Where everything is found. Its JSON form is that of `--state FILE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// The address of each port of each service.
    #[serde(serialize_with = "by_text")]
    pub services: BTreeMap<ServiceId, BTreeMap<u16, SocketAddr>>,
    /// The sidecar of each workload.
    #[serde(serialize_with = "by_text")]
    pub workloads: BTreeMap<WorkloadId, SidecarState>,
}

/// Where a sidecar is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SidecarState {
    /// Where the app sends what it asks of others, as to an HTTP proxy.
    pub outbound: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
    /// Where it takes traffic for each port of the app.
    pub inbound: BTreeMap<u16, SocketAddr>,
}

/// A map whose keys are written as they display.
fn by_text<K: ToString, V: Serialize, S: Serializer>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(key, value)| (key.to_string(), value)))
}

/// The file that other programs read.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    written: Option<State>,
}

impl StateFile {
    /// The file at `path`, which is written when there is something to say.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), written: None }
    }

    /// The file now says `state`. Readers see the old text or the new one, never a part.
    ///
    /// # Errors
    /// When the file's folder cannot be written to.
    pub fn update(&mut self, state: &State) -> io::Result<()> {
        if self.written.as_ref() == Some(state) {
            return Ok(());
        }
        let mut draft = self.path.as_os_str().to_owned();
        draft.push(format!(".{}", std::process::id()));
        let mut file = fs::File::create(&draft)?;
        serde_json::to_writer_pretty(&mut file, state)?;
        file.write_all(b"\n")?;
        fs::rename(&draft, &self.path)?;
        self.written = Some(state.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_form_that_is_promised() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state.json");
        let address = |text: &str| text.parse().unwrap();
        let state = State {
            services: [(ServiceId::new("shop", "payment"), [(80, address("127.1.2.3:80"))].into())].into(),
            workloads: [(
                WorkloadId::new("shop", "web-1"),
                SidecarState {
                    outbound: address("127.4.5.6:15101"),
                    admin: address("127.4.5.6:15120"),
                    inbound: [(8080, address("127.4.5.6:15206"))].into(),
                },
            )]
            .into(),
        };
        StateFile::new(&path).update(&state).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let want = serde_json::json!({
            "services": {"shop/payment": {"80": "127.1.2.3:80"}},
            "workloads": {"shop/web-1": {"outbound": "127.4.5.6:15101", "admin": "127.4.5.6:15120", "inbound": {"8080": "127.4.5.6:15206"}}},
        });
        assert_eq!(read, want);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "no draft is left behind");
    }
}
