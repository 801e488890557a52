//! The seal, and rotation by the clock.

use crds::Repository;
use kube::api::ObjectMeta;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::{
    delivery::{desired, placement::Kind},
    keys::Keys,
    testing::registry,
};

fn repository() -> Repository {
    serde_json::from_value(json!({
        "metadata": {"name": "app", "namespace": "apps", "uid": "u"},
        "spec": {"registryRef": {"name": "demo"}, "pullSecrets": [{"name": "pull"}, {"name": "other"}]},
    }))
    .unwrap()
}

fn placement<'a>(repository: &'a Repository, namespace: &'a str) -> Placement<'a> {
    Placement { repository, kind: Kind::Pull, secret: &repository.spec.pull_secrets[0], namespace }
}

fn key() -> RegistryKey {
    Keys::new(&[7; 32]).unwrap().of(&registry("demo"))
}

fn at(hours: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(hours * 3600)
}

fn sealed(placement: &Placement, credential: &Credential) -> Secret {
    desired::secret(placement, credential, "uid-of-pull", &registry("demo"), "cluster.local", &key())
}

/// What a credential is then, in a cluster whose replicas know every password.
fn rotated(credential: Credential, now: Timestamp, placement: &Placement) -> Credential {
    let announced = credential.at(now, placement, |_| false, Password::generate).unwrap();
    announced.at(now, placement, |_| true, Password::generate).unwrap()
}

#[test]
fn what_was_sealed_is_read_back() {
    let mut repository = repository();
    let credential = Credential::new(Password::generate().unwrap(), &placement(&repository, "shop"), at(1));
    let credential = rotated(credential, at(721), &placement(&repository, "shop"));
    repository.annotations_mut().insert("berth.dev/rotate".into(), "1".into());
    let placement = placement(&repository, "shop");
    let credential = credential.at(at(721), &placement, |_| false, Password::generate).unwrap();
    assert!(credential.former.len() == 1 && credential.next.is_some());
    assert_eq!(Credential::read(&sealed(&placement, &credential), &placement, &key()), Some(credential));
}

#[test]
fn it_is_not_shown() {
    let repository = repository();
    let placement = placement(&repository, "shop");
    let credential = Credential::new(Password::generate().unwrap(), &placement, at(1));
    let credential = rotated(credential, at(721), &placement);
    let hash = hex::encode(credential.former[0].hash.as_bytes());
    let shown = format!("{credential:?}");
    assert!(!shown.contains(credential.password.reveal()) && !shown.contains(&hash), "{shown}");
}

#[rstest]
#[case::issued("berth.dev/issued-at", "2099-01-01T00:00:00Z")]
#[case::announced("berth.dev/announced-at", "2099-01-01T00:00:00Z")]
#[case::rotated_for("berth.dev/rotated-for", "x")]
#[case::former(
    "berth.dev/former",
    "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae@2099-01-01T00:00:00Z"
)]
#[case::seal("berth.dev/seal", "")]
fn an_edited_annotation_is_not_believed(#[case] name: &str, #[case] value: &str) {
    let repository = repository();
    let placement = placement(&repository, "shop");
    let credential = Credential::new(Password::generate().unwrap(), &placement, at(1));
    let mut secret = sealed(&placement, &credential);
    secret.annotations_mut().insert(name.into(), value.into());
    assert_eq!(Credential::read(&secret, &placement, &key()), None);
}

#[test]
fn one_that_lies_elsewhere_or_is_anothers_is_not_believed() {
    let (ours, mut recreated) = (repository(), repository());
    recreated.metadata.uid = Some("another".into());
    let here = placement(&ours, "shop");
    let secret = sealed(&here, &Credential::new(Password::generate().unwrap(), &here, at(1)));
    let moved = |name: &str, namespace: &str| {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
            ..secret.metadata.clone()
        };
        Secret { metadata, ..secret.clone() }
    };
    let renamed = Placement { secret: &ours.spec.pull_secrets[1], ..here };
    let pushing = Placement { kind: Kind::Push, ..here };
    assert!(Credential::read(&secret, &here, &key()).is_some());
    let put_back = ObjectMeta { uid: Some("another".into()), ..secret.metadata.clone() };
    let elsewhere = [
        (Secret { metadata: put_back, ..secret.clone() }, here),
        (moved("pull", "bank"), placement(&ours, "bank")),
        (moved("pull", "bank"), here),
        (moved("other", "shop"), renamed),
        (secret.clone(), placement(&recreated, "shop")),
        (secret.clone(), pushing),
    ];
    for (secret, placement) in elsewhere {
        assert_eq!(Credential::read(&secret, &placement, &key()), None);
    }
    assert_eq!(Credential::read(&secret, &here, &Keys::new(&[8; 32]).unwrap().of(&registry("demo"))), None);
}

#[test]
fn rotations_keep_what_is_needed_and_no_more() {
    let mut repository = repository();
    let mut demand = |value: usize| {
        repository.annotations_mut().insert("berth.dev/rotate".into(), value.to_string());
        repository.clone()
    };
    let first = Credential::new(Password::generate().unwrap(), &placement(&demand(0), "shop"), at(1));
    let mut credential = first.clone();
    for value in 1..=9 {
        credential = rotated(credential, at(1), &placement(&demand(value), "shop"));
    }
    assert_eq!(credential.accepted(at(1)).len(), 1 + FORMERS);
    assert!(!credential.accepted(at(1)).contains(&first.password.hash()));
    assert_eq!(credential.accepted(at(2)), [credential.password.hash()]);
    let later = rotated(credential.clone(), at(2), &placement(&demand(9), "shop"));
    assert_eq!((later.password, later.former.len()), (credential.password, 0));
}

#[test]
fn one_of_a_future_that_has_not_come_is_replaced() {
    let repository = repository();
    let placement = placement(&repository, "shop");
    let credential = Credential::new(Password::generate().unwrap(), &placement, at(1000));
    let same = rotated(credential.clone(), at(999), &placement);
    assert_eq!(same, credential, "clocks may differ a little");
    let announced = credential.clone().at(at(900), &placement, |_| false, Password::generate).unwrap();
    assert!(announced.next.is_some());
    // That clock announced one, and was put right since.
    let given = announced.at(at(1), &placement, |_| false, Password::generate).unwrap();
    assert!(given.next.is_none() && given.password != credential.password);
}
