//! The processes that `leno up` starts (`Workload.spec.command`), keeps running and ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use leno_api as api;
use leno_core::names::WorkloadId;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::says::Says;

/// The pause before a process that died is started again; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A process that ran this long was a good one: the next pause is the first again.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// How long a process may take to end when asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to start for a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables that it finds in its environment, beside those of `leno up` itself.
    pub variables: BTreeMap<String, String>,
}

impl Process {
    /// The process of `workload`, if `leno up` is to start one. `outbound` is where its sidecar takes what it asks of others.
    pub fn of(workload: &api::Workload, outbound: SocketAddr) -> Option<Self> {
        let spec = &workload.spec;
        if spec.command.is_empty() {
            return None;
        }
        let mut variables =
            BTreeMap::from([("LENO_ADDRESS".to_owned(), spec.address.to_string()), ("LENO_OUTBOUND".to_owned(), outbound.to_string())]);
        if let Some(first) = spec.ports.first() {
            variables.insert("PORT".to_owned(), first.port.to_string());
        }
        for port in &spec.ports {
            if let Some(name) = &port.name {
                let name = name.to_ascii_uppercase().replace('-', "_");
                variables.insert(format!("LENO_PORT_{name}"), port.port.to_string());
            }
        }
        Some(Self { command: spec.command.clone(), variables })
    }

    /// The program: `leno` is this very one.
    fn program(&self) -> io::Result<OsString> {
        match self.command.first().map(String::as_str) {
            Some("leno") => std::env::current_exe().map(OsString::from),
            Some(program) => Ok(program.into()),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "spec.command is empty")),
        }
    }

    fn start(&self) -> io::Result<Child> {
        let mut command = Command::new(self.program()?);
        command.args(&self.command[1..]).envs(&self.variables);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: Ctrl-C goes to `leno up`, which ends everything in order.
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

/// All processes, by workload.
pub struct Processes {
    says: Says,
    running: BTreeMap<WorkloadId, (Process, CancellationToken)>,
    tasks: TaskTracker,
}

impl Processes {
    /// None yet. Their output and their ends are told to `says`.
    pub fn new(says: Says) -> Self {
        Self { says, running: BTreeMap::new(), tasks: TaskTracker::new() }
    }

    /// From now on `process` runs for the workload, whatever ran before; `None`: nothing does.
    pub fn keep(&mut self, id: &WorkloadId, process: Option<Process>) {
        if self.running.get(id).map(|(running, _)| running) == process.as_ref() {
            return;
        }
        self.end(id);
        if let Some(process) = process {
            let cancel = CancellationToken::new();
            let keeper = Keeper { id: id.clone(), process: process.clone(), says: self.says.clone(), cancel: cancel.clone() };
            self.tasks.spawn(keeper.run());
            self.running.insert(id.clone(), (process, cancel));
        }
    }

    /// The workload's process is to end.
    pub fn end(&mut self, id: &WorkloadId) {
        if let Some((_, cancel)) = self.running.remove(id) {
            cancel.cancel();
        }
    }

    /// Every process is to end.
    pub fn end_all(&mut self) {
        for (_, cancel) in std::mem::take(&mut self.running).into_values() {
            cancel.cancel();
        }
    }

    /// Waits until every process that was told to end has ended; those that were not go on.
    pub async fn ended(&self) {
        let ended = async {
            while self.tasks.len() > self.running.len() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _bounded = tokio::time::timeout(PATIENCE * 2, ended).await;
    }
}

/// Keeps one process running until cancelled.
struct Keeper {
    id: WorkloadId,
    process: Process,
    says: Says,
    cancel: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        let mut pause = PAUSE_MIN;
        while !self.cancel.is_cancelled() {
            let began = Instant::now();
            let ended = match self.process.start() {
                Ok(child) => self.follow(child).await,
                Err(error) => {
                    let program = self.process.command.first().map_or("", String::as_str);
                    Some(format!("{program:?} cannot be started: {error}; install it, or mend spec.command"))
                }
            };
            let Some(ended) = ended else { return };
            if began.elapsed() > GOOD_AFTER {
                pause = PAUSE_MIN;
            }
            self.says.line(&format!("{} | {ended}; starting again in {pause:?}", self.id));
            if self.cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Passes on what the process says until it ends; how it ended, or `None` when it was told to.
    async fn follow(&self, mut child: Child) -> Option<String> {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let output = async { tokio::join!(self.tell(out), self.tell(err)) };
        tokio::pin!(output);
        let mut output_open = true;
        loop {
            tokio::select! {
                _ = &mut output, if output_open => output_open = false,
                ended = child.wait() => {
                    // What it started itself ends with it.
                    signal(group, Signal::KILL);
                    return Some(ended.map_or_else(|error| error.to_string(), |status| format!("ended ({status})")));
                }
                () = self.cancel.cancelled() => break,
            }
        }
        signal(group, Signal::TERM);
        let ended = async {
            tokio::select! {
                _ = async { (&mut output).await; std::future::pending::<()>().await }, if output_open => {}
                _ = child.wait() => {}
            }
        };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            self.says.line(&format!("{} | did not end within {PATIENCE:?} of SIGTERM and is killed", self.id));
        }
        signal(group, Signal::KILL);
        let _status = child.wait().await;
        None
    }

    async fn tell(&self, output: Option<impl AsyncRead + Unpin>) {
        let Some(output) = output else { return };
        let mut lines = BufReader::new(output).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            self.says.line(&format!("{} | {}", self.id, String::from_utf8_lossy(&line).trim_end()));
        }
    }
}

/// Sends a signal to a process and all that it started; gone ones are no error.
fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _gone = kill_process_group(group, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(script: &str) -> Process {
        Process { command: ["sh", "-c", script].map(str::to_owned).to_vec(), variables: [("PORT".to_owned(), "8080".to_owned())].into() }
    }

    async fn told(says: &Says, words: &str) {
        let told = async {
            while !says.recent(100).iter().any(|line| line.contains(words)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), told).await.unwrap_or_else(|_| panic!("{words:?} not in {:?}", says.recent(100)));
    }

    #[tokio::test]
    async fn a_process_that_dies_is_started_again_and_its_output_carries_its_name() {
        let says = Says::default();
        says.on_screen(true);
        let mut processes = Processes::new(says.clone());
        let id = WorkloadId::new("shop", "web-1");
        processes.keep(&id, Some(process("echo on $PORT; exit 3")));
        told(&says, "shop/web-1 | on 8080").await;
        told(&says, "exit status: 3); starting again in 200ms").await;
        told(&says, "exit status: 3); starting again in 400ms").await;
        processes.end_all();
        processes.ended().await;
        assert!(processes.tasks.is_empty());
    }

    #[tokio::test]
    async fn a_process_and_what_it_started_are_ended() {
        let says = Says::default();
        says.on_screen(true);
        let mut processes = Processes::new(says.clone());
        let id = WorkloadId::new("shop", "web-1");
        processes.keep(&id, Some(process("sleep 1000 & echo child $!; wait")));
        told(&says, "child ").await;
        let line = says.recent(100).into_iter().find(|line| line.contains("child ")).unwrap();
        let child: u32 = line.rsplit(' ').next().unwrap().parse().unwrap();
        processes.end(&id);
        processes.ended().await;
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told_in_words() {
        let says = Says::default();
        says.on_screen(true);
        let mut processes = Processes::new(says.clone());
        let missing = Process { command: vec!["no-such-program".into()], variables: BTreeMap::new() };
        processes.keep(&WorkloadId::new("shop", "web-1"), Some(missing));
        told(&says, "\"no-such-program\" cannot be started").await;
    }
}
