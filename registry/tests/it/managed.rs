//! A registry as the operator runs it: over TLS, under a policy that comes through the channel.

use std::net::SocketAddr;

use channel::policy::{Login, Policy, ReplicaStatus, Role, SecretHash};
use tempfile::TempDir;

use crate::{
    client::Client,
    pki::{Authority, Signed},
    server::Server,
};

/// The name that the replica proves on the channel.
pub(crate) const NAME: &str = "demo.apps.channel.berth";

/// A registry as the operator sets it up.
pub(crate) struct Managed {
    pub(crate) folder: TempDir,
    pub(crate) serving: Authority,
    pub(crate) channel: Authority,
}

impl Managed {
    pub(crate) fn new() -> Self {
        let (serving, channel) = (Authority::new(), Authority::new());
        let folder = tempfile::tempdir().unwrap();
        serving.sign(&["localhost", "127.0.0.1"]).write(folder.path(), "tls");
        channel.sign(&[NAME]).write(folder.path(), "channel");
        std::fs::write(folder.path().join("channel-ca.crt"), &channel.pem).unwrap();
        Self { folder, serving, channel }
    }

    pub(crate) fn start(&self) -> Server {
        let file = |name: &str| self.folder.path().join(name);
        Server::with(&self.root(), |command| {
            command
                .args(["--health-listen", "127.0.0.1:0", "--channel-listen", "127.0.0.1:0"])
                .arg("--tls-cert")
                .arg(file("tls.crt"))
                .arg("--tls-key")
                .arg(file("tls.key"))
                .arg("--channel-cert")
                .arg(file("channel.crt"))
                .arg("--channel-key")
                .arg(file("channel.key"))
                .arg("--channel-ca")
                .arg(file("channel-ca.crt"));
        })
    }

    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }

    pub(crate) fn client(&self, server: &Server) -> Client {
        server.client().over_tls(self.serving.trusted())
    }

    pub(crate) fn operator(&self, server: &Server) -> Operator {
        Operator::new(&self.channel.sign(&["operator"]), &self.channel.pem, &server.addresses("channel"))
    }
}

pub(crate) struct Operator {
    pub(crate) client: channel::client::Client,
    /// The first replica's.
    pub(crate) address: SocketAddr,
    others: Vec<SocketAddr>,
}

impl Operator {
    pub(crate) fn new(identity: &Signed, ca: &str, addresses: &[SocketAddr]) -> Self {
        let client = channel::client::Client::new(&identity.cert, &identity.key, ca).unwrap();
        Self { client, address: addresses[0], others: addresses[1..].to_vec() }
    }

    /// To every replica; what the first one says.
    pub(crate) async fn put(&self, policy: &Policy) -> Result<ReplicaStatus, channel::client::Error> {
        for other in &self.others {
            let _: ReplicaStatus = self.client.put(*other, NAME, "/v1/policy", policy).await?;
        }
        self.client.put(self.address, NAME, "/v1/policy", policy).await
    }

    pub(crate) async fn status(&self) -> ReplicaStatus {
        self.client.get(self.address, NAME, "/v1/status").await.unwrap()
    }
}

pub(crate) fn login(username: &str, secret: &str, role: Role) -> Login {
    Login {
        username: username.into(),
        secrets: vec![SecretHash::of(secret.as_bytes())],
        ends: Vec::new(),
        role: Some(role),
    }
}

pub(crate) fn policy() -> Policy {
    let logins = vec![login("admin", "all", Role::Admin), login("reader", "some", Role::Reader)];
    Policy { logins, ..Policy::default() }
}
