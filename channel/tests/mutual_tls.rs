//! Both ends of the channel over real TLS: who is let in, who is believed, and what a changed certificate does.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{Json, Router, routing::get};
use channel::{
    client::{Client, Error},
    policy::{Policy, ReplicaStatus},
    tls::{Files, Reloading, TlsListener},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
};

const NAME: &str = "demo.apps.channel.berth";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn client(&self, trusts: &Self) -> Client {
        let (cert, key) = self.issue("operator", ExtendedKeyUsagePurpose::ClientAuth);
        Client::new(&cert, &key, &trusts.0.pem()).unwrap()
    }
}

struct Server {
    address: SocketAddr,
    certificate: Arc<Reloading>,
    folder: tempfile::TempDir,
}

async fn serve(authority: &Authority) -> Server {
    let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), authority);
    let file = |name| folder.path().join(name);
    let files = Files { cert: file("tls.crt"), key: file("tls.key"), client_ca: Some(file("ca.crt")) };
    let certificate = Reloading::load(files).unwrap();
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let answer = |Json(policy): Json<Policy>| async move {
        Json(ReplicaStatus { policy_revision: Some(policy.revision()), ..ReplicaStatus::default() })
    };
    let router = Router::new().route("/v1/policy", get(|| async { "no JSON" }).put(answer));
    let listener = TlsListener::new(tcp, Arc::clone(&certificate)).with_handshakes(4, 3);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Server { address, certificate, folder }
}

fn write(folder: &Path, authority: &Authority) {
    let (cert, key) = authority.issue(NAME, ExtendedKeyUsagePurpose::ServerAuth);
    for (name, pem) in [("tls.crt", cert), ("tls.key", key), ("ca.crt", authority.0.pem())] {
        fs::write(folder.join(name), pem).unwrap();
    }
}

async fn put(client: &Client, server: &Server, name: &str) -> Result<ReplicaStatus, Error> {
    client.put(server.address, name, "/v1/policy", &Policy::default()).await
}

#[tokio::test]
async fn the_operator_is_let_in() {
    let authority = Authority::new();
    let server = serve(&authority).await;
    let status = put(&authority.client(&authority), &server, NAME).await.unwrap();
    assert_eq!(status.policy_revision, Some(Policy::default().revision()));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_none() {
    let authority = Authority::new();
    let server = serve(&authority).await;
    let error = put(&authority.client(&authority).at_most(10), &server, NAME).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { max_answer: 10, .. }), "{error}");
}

#[tokio::test]
async fn a_registrys_own_certificate_opens_no_other_registry() {
    let authority = Authority::new();
    let server = serve(&authority).await;
    let (cert, key) = authority.issue(NAME, ExtendedKeyUsagePurpose::ServerAuth);
    let client = Client::new(&cert, &key, &authority.0.pem()).unwrap();
    let error = put(&client, &server, NAME).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn strangers_are_refused_at_both_ends() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = serve(&authority).await;
    for client in [stranger.client(&authority), authority.client(&stranger)] {
        assert!(matches!(put(&client, &server, NAME).await, Err(Error::Unreachable { .. })));
    }
}

#[tokio::test]
async fn another_registry_is_not_believed() {
    let authority = Authority::new();
    let server = serve(&authority).await;
    let error = put(&authority.client(&authority), &server, "other.apps.channel.berth").await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn answers_that_make_no_sense_are_told() {
    let authority = Authority::new();
    let server = serve(&authority).await;
    let client = authority.client(&authority);
    let answer: Result<ReplicaStatus, _> = client.get(server.address, NAME, "/v1/policy").await;
    assert!(matches!(answer, Err(Error::Answer { .. })));
    let answer: Result<ReplicaStatus, _> = client.get(server.address, NAME, "/nowhere").await;
    assert!(matches!(answer, Err(Error::Refused { status, .. }) if status == 404));
}

#[tokio::test]
async fn a_changed_certificate_is_used_and_a_broken_one_is_not() {
    let (before, after) = (Authority::new(), Authority::new());
    let server = serve(&before).await;
    assert!(!server.certificate.reload().unwrap());
    fs::write(server.folder.path().join("tls.crt"), "broken").unwrap();
    assert!(server.certificate.reload().is_err());
    put(&before.client(&before), &server, NAME).await.unwrap();
    write(server.folder.path(), &after);
    assert!(server.certificate.reload().unwrap());
    put(&after.client(&after), &server, NAME).await.unwrap();
    assert!(put(&before.client(&before), &server, NAME).await.is_err());
}

/// Connects from one of the addresses of this machine, and is silent.
async fn silent(server: &Server, from: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, from], 0))).unwrap();
    socket.connect(server.address).await.unwrap()
}

/// Much sooner than the time that a handshake may take.
async fn assert_closed(connection: &mut TcpStream) {
    let ended = tokio::time::timeout(Duration::from_secs(5), connection.read(&mut [0])).await;
    assert!(!ended.expect("the oldest makes place").is_ok_and(|read| read > 0));
}

#[tokio::test]
async fn who_never_finishes_a_handshake_keeps_nobody_out() {
    let authority = Authority::new();
    let server = serve(&authority).await;
    let client = authority.client(&authority);
    let _other = silent(&server, 2).await;
    let mut of_one_address = Vec::new();
    for _ in 0..20 {
        of_one_address.push(silent(&server, 3).await);
    }
    for connection in &mut of_one_address[..17] {
        assert_closed(connection).await;
    }
    put(&client, &server, NAME).await.unwrap();
    // Not the oldest of all: whoever has most makes place.
    assert_closed(&mut of_one_address[17]).await;
}
