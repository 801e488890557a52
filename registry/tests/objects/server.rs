//! Two instances of a registry on one bucket, in this process; they end with the test.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock, Mutex, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser as _;
use oci::Digest;
use registry::{Cli, Config, testing::Strict};
use serde_json::Value;
use tokio::runtime::Runtime;
use tracing::{Dispatch, dispatcher::DefaultGuard};

use crate::client::Client;

const INSTANCES: usize = 2;

/// The bucket that stands for each folder.
static BUCKETS: LazyLock<Mutex<HashMap<PathBuf, Strict>>> = LazyLock::new(Mutex::default);

/// A running registry.
pub(crate) struct Server {
    runtime: Option<Runtime>,
    addresses: Vec<HashMap<&'static str, SocketAddr>>,
    pub(crate) bucket: Strict,
    log: Log,
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
        command.arg("--root").arg(root).args(["--listen", "127.0.0.1:0"]);
        let bucket = BUCKETS.lock().unwrap().entry(root.to_owned()).or_default().clone();
        Self::launch(&command, bucket)
    }

    fn launch(command: &Command, bucket: Strict) -> Self {
        // Fails only where there is one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let log = Log::default();
        let runtime = runtime(&log);
        let (sender, listening) = mpsc::channel();
        for instance in 0..INSTANCES {
            let line = [command.get_program()].into_iter().chain(command.get_args());
            let registry::Command::Serve(args) = Cli::try_parse_from(line).unwrap().command else {
                panic!("only servers can be started here");
            };
            let config = Config::try_from(*args).unwrap();
            let (bucket, sender) = (bucket.clone(), sender.clone());
            runtime.spawn(async move {
                let listening = |name, address| {
                    let _ = sender.send((instance, name, address));
                };
                // Until the runtime goes.
                let (_sender, ends) = tokio::sync::mpsc::channel(1);
                let served = registry::testing::serve_on(bucket, config, ends, listening);
                if let Err(error) = served.await {
                    tracing::error!(%error, "the registry ended");
                }
            });
        }
        drop(sender);
        let mut addresses = vec![HashMap::new(); INSTANCES];
        // Each one's own listener comes last.
        while !addresses.iter().all(|addresses| addresses.contains_key("registry")) {
            let Ok((instance, name, address)) = listening.recv_timeout(Duration::from_secs(60)) else {
                panic!("the registries did not start: {:#?}", log.lines());
            };
            addresses[instance].insert(name, address);
        }
        Self { runtime: Some(runtime), addresses, bucket, log }
    }

    /// Of the first instance.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        self.addresses[0][listener]
    }

    /// The same of each instance.
    pub(crate) fn addresses(&self, listener: &str) -> Vec<SocketAddr> {
        self.addresses.iter().map(|addresses| addresses[listener]).collect()
    }

    /// Speaks plain HTTP, without credentials, to the instances in turn.
    pub(crate) fn client(&self) -> Client {
        Client::in_turn(self.addresses("registry"))
    }

    /// Speaks to the health listener.
    pub(crate) fn health(&self) -> Client {
        Client::in_turn(self.addresses("health"))
    }

    /// Ends both at once, wherever they are.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// All that was logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lines().join("\n")
    }

    /// The first log line that `wanted` accepts, now or a little later.
    pub(crate) fn logged(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(wanted, 1)
    }

    /// Waits until every instance has logged such a line.
    pub(crate) fn logged_by_each(&self, wanted: impl Fn(&Value) -> bool) {
        self.wait_for(wanted, INSTANCES);
    }

    /// The last of so many lines.
    fn wait_for(&self, wanted: impl Fn(&Value) -> bool, count: usize) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let lines = self.log.lines();
            let events = lines.iter().map(|line| serde_json::from_str(line).unwrap_or_default());
            if let Some(event) = events.filter(&wanted).nth(count - 1) {
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
        match folder {
            "blobs" => self.keys("contents").len(),
            "quarantine" => {
                let contents = self.keys("contents").into_iter().map(|key| self.value(&key).unwrap());
                let damaged = contents.map(|content| {
                    let content: Value = serde_json::from_slice(&content).unwrap();
                    content["damaged"].as_array().map_or(0, Vec::len)
                });
                damaged.sum()
            }
            folder => self.keys(folder).len(),
        }
    }

    /// What a small file holds.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.value(path)
    }

    /// Lets the registry fail where it reads this.
    pub(crate) fn obstruct(&self, path: &str) {
        futures::executor::block_on(self.bucket.overwrite(path, Bytes::from_static(b"nonsense")));
    }

    /// Changes content behind the registry's back.
    pub(crate) fn damage(&self, digest: &Digest, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let content = self.value(&format!("contents/sha256/{}", digest.hex()));
        let key = content.map_or_else(
            || {
                let mut keys = self.keys("repositories").into_iter();
                keys.find(|key| key.ends_with(&format!("_manifests/sha256/{}", digest.hex()))).unwrap()
            },
            |content| {
                let content: Value = serde_json::from_slice(&content).unwrap();
                format!("data/{}", content["data"]["id"].as_str().unwrap())
            },
        );
        let bytes = futures::executor::block_on(self.bucket.bytes(&key)).unwrap();
        futures::executor::block_on(self.bucket.overwrite(&key, change(bytes.into()).into()));
    }

    /// Waits until a chunk that is being sent has its session.
    pub(crate) async fn has_begun(&self, session: &str) {
        let key = format!("uploads/{}/session", session.rsplit('/').next().unwrap());
        let is_taken = || {
            let session: Value = serde_json::from_slice(&self.value(&key).unwrap()).unwrap();
            session["lease"].is_object()
        };
        while !is_taken() {
            tokio::task::yield_now().await;
        }
    }

    /// Buckets can't be checked yet.
    #[expect(clippy::unused_self, reason = "a folder needs it")]
    pub(crate) fn assert_sound(&self) {}

    /// Whether the registry knows how much room there is.
    pub(crate) fn has_a_size() -> bool {
        false
    }

    fn keys(&self, below: &str) -> Vec<String> {
        futures::executor::block_on(self.bucket.keys(below))
    }

    /// What comes after the line that is new each time.
    fn value(&self, key: &str) -> Option<Vec<u8>> {
        let bytes = futures::executor::block_on(self.bucket.bytes(key))?;
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        Some(bytes[end + 1..].to_vec())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lines that the instances of one server log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

thread_local! {
    static LOGGING: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// Threads of one server, which log to its own log.
fn runtime(log: &Log) -> Runtime {
    let log = log.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || log.clone());
    let dispatch = Dispatch::new(subscriber.finish());
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || {
            LOGGING.with_borrow_mut(|guard| *guard = Some(tracing::dispatcher::set_default(&dispatch)));
        })
        .build()
        .unwrap()
}
