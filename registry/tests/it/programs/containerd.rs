//! containerd, which is what pulls on the nodes of a cluster, by its own client `ctr`.

use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::Program;
use crate::{
    guests::PRIMARY,
    layout::{Layout, blob},
    policy_file::{Standalone, policy},
};

/// A containerd that keeps content only: in a folder of its own, without any of its other parts, until the test ends.
struct Containerd {
    process: Child,
    socket: String,
}

impl Containerd {
    fn start(folder: &Path) -> Self {
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let socket = path("containerd.sock");
        // Isolated: what one namespace has, another one has to pull.
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = {socket:?}\n\
             [plugins.\"io.containerd.metadata.v1.bolt\"]\ncontent_sharing_policy = \"isolated\"\n",
            path("root"),
            path("state"),
        );
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(path("config.toml"), config).unwrap();
        let mut command = Command::new("containerd");
        command.args(["--config", &path("config.toml")]).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let up = lines.find(|line| {
            said.push(line.clone());
            line.contains("containerd successfully booted")
        });
        let containerd = Self { process, socket };
        assert!(up.is_some(), "containerd did not start: {said:#?}");
        // Or it would wait for somebody to read what it says.
        std::thread::spawn(move || lines.for_each(drop));
        containerd
    }

    fn ctr(&self, namespace: &str) -> Program {
        Program::find("ctr").unwrap().with(&["--address", &self.socket, "--namespace", namespace])
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn containerd_pushes_an_index_and_pulls_a_platform_of_it() {
    if Program::find_for_root("containerd").is_none() || Program::find("ctr").is_none() {
        return;
    }
    let standalone = Standalone::start();
    let folder = standalone.folder.path();
    let containerd = Containerd::start(&folder.join("containerd"));
    let repository = format!("localhost:{}/team/app", standalone.server.address("registry").port());
    let tag = format!("{repository}:v1");
    let layout = Layout::index(&folder.join("image"), &tag);
    let archive = folder.join("image.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    tar.append_dir_all(".", &layout.folder).unwrap();
    tar.finish().unwrap();

    let here = containerd.ctr("here");
    here.run(&["images", "import", "--no-unpack", "--all-platforms", archive.to_str().unwrap()]);
    let push = ["images", "push", "--plain-http", "--user"];
    let said = here.fail(&[&push[..], &["alice:secret", &tag]].concat());
    assert!(said.contains("denied") || said.contains("403"), "{said}");
    here.run(&[&push[..], &["ci:secret", &tag]].concat());

    let by_digest = format!("{repository}@{}", layout.digest);
    for (namespace, reference) in [("by-tag", &tag), ("by-digest", &by_digest)] {
        let there = containerd.ctr(namespace);
        let fetch = ["content", "fetch", "--plain-http", "--platform", "linux/arm64", "--user"];
        there.fail(&[&fetch[..], &["alice:wrong", reference]].concat());
        there.run(&[&fetch[..], &["alice:secret", reference]].concat());
        let has = there.line(&["content", "ls", "--quiet"]);
        assert_eq!(there.run(&["content", "get", layout.digest.as_str()]), layout.top);
        for digest in &layout.images["arm64"] {
            let content = std::fs::read(blob(&layout.folder, digest)).unwrap();
            assert_eq!(there.run(&["content", "get", digest.as_str()]), content);
        }
        let other = layout.images["amd64"].last().unwrap();
        assert!(!has.contains(other.as_str()), "pulled the other platform, too: {has}");
    }
}

/// Where nothing listens, and connections are refused.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A file as nodes have it: the registry, its fallback with or without a credential of its own, the registry again.
fn hosts_toml(registry: SocketAddr, fallback: SocketAddr, credential: Option<&str>) -> String {
    let fields = "capabilities = [\"pull\", \"resolve\"]\ndial_timeout = \"2s\"\n";
    let header = credential.map_or_else(String::new, |login| {
        let login = BASE64_STANDARD.encode(login);
        format!("[host.\"http://{fallback}\".header]\nAuthorization = [\"Basic {login}\"]\n")
    });
    format!(
        "server = \"http://{registry}\"\n{fields}[host.\"http://{registry}\"]\n{fields}\
         [host.\"http://{fallback}\"]\n{fields}{header}"
    )
}

#[tokio::test]
async fn containerd_turns_to_a_registry_that_stands_in() {
    if Program::find_for_root("containerd").is_none() || Program::find("ctr").is_none() {
        return;
    }
    let standalone = Standalone::under(&(policy() + PRIMARY));
    let fallback = standalone.server.address("registry");
    standalone.server.client().login("admin", "secret").push_image("team/app", "v1", "layer").await;
    let folder = standalone.folder.path();
    let containerd = Containerd::start(&folder.join("containerd"));
    let (hosts, registry) = (folder.join("hosts"), closed());
    let directory = hosts.join("demo.apps.svc:5000");
    std::fs::create_dir_all(&directory).unwrap();
    let reference = "demo.apps.svc:5000/team/app:v1";
    let fetch = ["content", "fetch", "--hosts-dir", hosts.to_str().unwrap()];
    let tell = |credential| {
        std::fs::write(directory.join("hosts.toml"), hosts_toml(registry, fallback, credential)).unwrap();
    };

    tell(None);
    let guest = [&fetch[..], &["--user", "admin:secret2", reference]].concat();
    containerd.ctr("with-a-pull-secret").run(&guest);
    // Nobody's error but the registry's own.
    let said = containerd.ctr("without").fail(&[&fetch[..], &[reference]].concat());
    assert!(said.contains(&registry.to_string()) && said.contains("refused"), "{said}");

    tell(Some("admin:secret2"));
    containerd.ctr("with-the-nodes-credential").run(&[&fetch[..], &[reference]].concat());
}
