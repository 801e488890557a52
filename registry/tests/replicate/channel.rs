//! How an operator asks a run how far it is.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};

use ::channel::{
    client::{Client, Error},
    replication::{Phase, Progress},
};

use crate::{pki::Authority, world::World};

const NAME: &str = "replication.apps.demo.channel.berth";

/// A run so slow that it can be asked, which ends with the test.
struct Slow(Child);

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn ask(client: &Client, address: SocketAddr) -> Progress {
    loop {
        match client.get::<Progress>(address, NAME, "/v1/progress").await {
            Ok(progress) if progress.phase == Phase::Copying => return progress,
            // It has only just begun.
            Ok(_) | Err(Error::Unreachable { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn progress_is_told_to_the_operator_alone() {
    let world = World::new().await;
    world.source.client().push_noise("a", Some("v1"), 1, None).await;
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (cert, key) = authority.sign(&[NAME]).write(folder.path(), "pod");
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, &authority.pem).unwrap();
    let address = free();
    let mut command = world.command(&["--bytes-per-second", "1", "--channel-listen", &address.to_string()]);
    command.arg("--channel-cert").arg(cert).arg("--channel-key").arg(key).arg("--channel-ca").arg(ca);
    let _running = Slow(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let operator = authority.sign(&["operator"]);
    let client = Client::new(&operator.cert, &operator.key, &authority.pem).unwrap();
    let progress = ask(&client, address).await;
    assert_eq!((progress.total, progress.done), (1, 0));
    let other = Authority::new();
    let stranger = other.sign(&["operator"]);
    let stranger = Client::new(&stranger.cert, &stranger.key, &authority.pem).unwrap();
    assert!(stranger.get::<Progress>(address, NAME, "/v1/progress").await.is_err());
}
