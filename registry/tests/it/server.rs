//! A registry process on a free port; ends with the test.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use oci::Digest;
use rustix::process::{Pid, Signal, WaitOptions};
use serde_json::Value;

use crate::client::Client;

/// A running `berth-registry serve`.
pub(crate) struct Server {
    child: Child,
    root: PathBuf,
    addresses: HashMap<String, SocketAddr>,
    log: Arc<Mutex<Vec<String>>>,
}

/// The program, not yet started.
pub(crate) fn berth_registry() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth-registry"));
    command.env_clear().arg("serve");
    command
}

impl Server {
    /// Anonymous, on loopback.
    pub(crate) fn start(root: &Path) -> Self {
        Self::with(root, |_| {})
    }

    /// With more arguments.
    pub(crate) fn with(root: &Path, arguments: impl FnOnce(&mut Command)) -> Self {
        let mut command = berth_registry();
        arguments(&mut command);
        Self::launch(command, root)
    }

    /// By a command that lacks only the common arguments.
    pub(crate) fn launch(mut command: Command, root: &Path) -> Self {
        command.arg("--root").arg(root).args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (sender, listening) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in lines.map_while(Result::ok) {
                    let event: Value = serde_json::from_str(&line).unwrap_or_default();
                    if event["message"] == "listening" {
                        let address: SocketAddr = event["address"].as_str().unwrap().parse().unwrap();
                        let _ = sender.send((event["listener"].as_str().unwrap().to_owned(), address));
                    }
                    log.lock().unwrap().push(line);
                }
            }
        });
        let mut addresses = HashMap::new();
        // The registry's own listener comes last.
        while !addresses.contains_key("registry") {
            let Ok((name, address)) = listening.recv_timeout(Duration::from_secs(60)) else {
                panic!("the registry did not start: {:#?}", log.lock().unwrap());
            };
            addresses.insert(name, address);
        }
        Self { child, root: root.to_owned(), addresses, log }
    }

    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    /// The same of each instance.
    pub(crate) fn addresses(&self, listener: &str) -> Vec<SocketAddr> {
        vec![self.address(listener)]
    }

    /// Speaks plain HTTP, without credentials.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address("registry"))
    }

    /// Speaks to the health listener.
    pub(crate) fn health(&self) -> Client {
        Client::new(self.address("health"))
    }

    /// Bytes of memory that no file stands behind.
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next());
        kib.unwrap().parse::<usize>().unwrap() << 10
    }

    /// kill -9: no chance to tidy up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it do nothing any more until it [goes on](Self::go_on) or is killed.
    pub(crate) fn hold(&self) {
        let pid = self.signal(Signal::STOP);
        rustix::process::waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) -> Pid {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        pid
    }

    /// SIGTERM, without waiting for what comes of it.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// All that was logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until every instance has logged such a line.
    pub(crate) fn logged_by_each(&self, wanted: impl Fn(&Value) -> bool) {
        self.logged(wanted);
    }

    /// The first log line that `wanted` accepts, now or a little later.
    pub(crate) fn logged(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let lines = self.log.lock().unwrap().clone();
            let mut events = lines.iter().map(|line| serde_json::from_str(line).unwrap_or_default());
            if let Some(event) = events.find(&wanted) {
                return event;
            }
            assert!(Instant::now() < deadline, "not logged: {lines:#?}");
            std::thread::yield_now();
        }
    }
}

/// What lies below, which is not the same everywhere.
impl Server {
    /// How many things there are of a kind that has a folder.
    pub(crate) fn stored(&self, folder: &str) -> usize {
        files(&self.root.join(folder))
    }

    /// What a small file holds.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.root.join(path)).ok()
    }

    /// Lets the registry fail where it reads this.
    pub(crate) fn obstruct(&self, path: &str) {
        std::fs::remove_file(self.root.join(path)).unwrap();
        std::fs::create_dir(self.root.join(path)).unwrap();
    }

    /// Changes content behind the registry's back.
    pub(crate) fn damage(&self, digest: &Digest, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let file = self.root.join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
        let damaged = change(std::fs::read(&file).unwrap());
        std::fs::write(file, damaged).unwrap();
    }

    /// Waits until something of a chunk that is being sent has come in.
    pub(crate) async fn has_begun(&self, session: &str) {
        while self.client().get(session).await.header("range") == "0-0" {}
    }

    /// Everything is as it should be.
    pub(crate) fn assert_sound(&self) {
        assert_sound(&self.root);
    }

    /// Whether the registry knows how much room there is.
    pub(crate) fn has_a_size() -> bool {
        true
    }
}

/// Says that what lies there is as it should be, but for what nobody sees.
pub(crate) fn assert_sound(root: &Path) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_berth-registry"));
    let check = check.env_clear().args(["check", "--root"]).arg(root).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success() && !said.contains("damage:"), "{check:?}");
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
