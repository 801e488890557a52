//! The registry of the CNCF, Debian's 2.8 and version 3, between two of Berth's: one that is copied into it, and one that
//! it is copied into. One of the two ways goes through proxies.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    client::Client,
    copying::{ALL, TAGS, fill},
    proxy::Proxy,
    server::Server,
    world::{Ran, replicate, run, same, skip, tags},
};

/// Programs that registry/tests/clients.sh brings, below the names that it gives them.
pub(crate) const DEBIAN: &str = "docker-registry";
pub(crate) const VERSION_3: &str = "distribution";

pub(crate) struct Distribution {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Distribution {
    /// None, and that is said, where it is not installed.
    pub(crate) fn start(program: &str, folder: &Path) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            skip(&format!(
                "{program} is missing: registry/tests/clients.sh brings it, as root on Debian or Ubuntu"
            ));
            return None;
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '{address}'}}\nlog: {{level: error}}\n\
             validation: {{manifests: {{urls: {{allow: ['^https://']}}}}}}\n",
            folder.join("data").display()
        );
        std::fs::write(folder.join("config.yml"), config).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(folder.join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        // Version 3 would tell somebody what it does.
        command.env("OTEL_TRACES_EXPORTER", "none");
        let child = command.spawn().unwrap();
        while TcpStream::connect(address).is_err() {
            std::thread::yield_now();
        }
        Some(Self { child, address })
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Which way goes through the proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From Berth's first one.
    Into,
    /// To Berth's last one.
    OutOf,
}

pub(crate) struct Chain {
    pub(crate) first: Server,
    pub(crate) middle: Distribution,
    pub(crate) last: Server,
    /// In front of the two ends of the way.
    pub(crate) from: Proxy,
    pub(crate) to: Proxy,
    pub(crate) way: Way,
    /// A tag that the registry in the middle does not take.
    refused: Option<&'static str>,
    _folders: [TempDir; 3],
}

impl Chain {
    /// Filled up to the beginning of the way; none where the program is not installed.
    pub(crate) async fn new(program: &str, way: Way) -> Option<Self> {
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let middle = Distribution::start(program, folders[1].path())?;
        let [first, last] = [0, 2].map(|n| Server::start(folders[n].path()));
        fill(&first.client()).await;
        let [berth, other] = [&first, &last].map(|server| server.address("registry"));
        let (from, to) = if way == Way::Into { (berth, middle.address) } else { (middle.address, other) };
        let (from, to) = (Proxy::before(from).await, Proxy::before(to).await);
        // It takes no index of plain blobs.
        let refused = (program == VERSION_3).then_some("cache");
        let chain = Self { first, middle, last, from, to, way, refused, _folders: folders };
        if way == Way::OutOf {
            chain.fill_middle().await;
        }
        Some(chain)
    }

    /// Images on their way.
    pub(crate) fn images(&self) -> u64 {
        TAGS - self.refused.iter().len() as u64
    }

    /// The program, between the two ends of the way.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.between(self.from.url(), self.to.url());
        command.args(arguments);
        command
    }

    fn between(&self, from: String, to: String) -> Command {
        let mut command = replicate();
        command.args([from, to]).args(self.refused.iter().flat_map(|tag| ["--exclude-tag", tag]));
        command
    }

    /// Runs, and everything has to be right.
    pub(crate) async fn copy(&self, arguments: &[&str]) -> Ran {
        well(self.command(arguments)).await
    }

    /// Copies what the first one has into the registry in the middle, without proxies.
    async fn fill_middle(&self) {
        well(self.between(url(self.first.address("registry")), url(self.middle.address))).await;
    }

    /// What arrives at the end of the chain is what was at its beginning.
    pub(crate) async fn is_equal(&self) {
        if self.way == Way::Into {
            well(self.between(url(self.middle.address), url(self.last.address("registry")))).await;
        }
        let (first, last) = (self.first.client(), self.last.client());
        for repository in ALL {
            let mut all = tags(&first, repository).await;
            all.retain(|tag| Some(tag.as_str()) != self.refused);
            assert_eq!(all, tags(&last, repository).await, "{repository}");
            for tag in all {
                same(&first, &last, repository, &tag).await;
            }
        }
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

async fn well(command: Command) -> Ran {
    let ran = run(command).await;
    assert_eq!(ran.code, 0, "{ran:#?}");
    ran
}
