//! A rotation step by step: announced, known to every replica, given, over.

use super::*;

#[tokio::test]
async fn a_password_is_given_once_every_replica_knows_it_and_the_former_is_accepted_for_an_hour_more() {
    let mut world = World::new(&both());
    world.deliver_and_enforce().await;
    let former = world.password(OWN);
    world.later(720);
    world.deliver().await;
    assert_eq!(world.password(OWN), former, "it is announced first");
    let announced = world.announced(OWN).unwrap();
    assert!(world.opens(&announced) && !world.is_known(&announced));
    world.deliver().await;
    assert_eq!((world.password(OWN), world.announced(OWN).unwrap()), (former.clone(), announced.clone()));

    world.enforce();
    let told = world.logins();
    assert_eq!(world.deliver().await.next, Some(Duration::from_hours(1)));
    assert_eq!((world.password(OWN), world.announced(OWN)), (announced.clone(), None));
    assert!(world.is_known(&announced) && world.opens(&former));
    let hashes = |logins: &Logins| logins.iter().map(|it| it.login.secrets.clone()).collect::<Vec<_>>();
    assert_eq!(hashes(&told), hashes(&world.logins()), "replicas let in whom they let in before");
    // They end it themselves, whoever is away.
    let (secret, until) = (SecretHash::of(former.as_bytes()), "2026-01-31T01:00:00Z".into());
    let own = world.logins().remove(0).login;
    assert!(told[0].login.ends.is_empty());
    assert_eq!(own.ends, [channel::policy::End { secret, until }]);

    world.later(1);
    assert!(!world.opens(&former), "it ends by the clock alone");
    world.deliver().await;
    assert_eq!(world.password(OWN), announced);
    assert!(world.api.get(OWN).unwrap()["metadata"]["annotations"].get("berth.dev/former").is_none());
    world.api.take_writes();
    world.deliver().await;
    assert!(world.api.take_writes().is_empty());
}

#[tokio::test]
async fn an_operator_that_starts_anew_goes_on_at_every_step() {
    let mut world = World::new(&both());
    world.deliver_and_enforce().await;
    let first = world.password(OWN);
    world.rotate("1");
    world.restart();
    world.deliver().await;
    let announced = world.announced(OWN).unwrap();
    // What the former operator has heard of replicas this one has to hear again.
    world.enforce();
    world.restart();
    world.api.take_writes();
    world.deliver().await;
    assert_eq!((world.password(OWN), world.api.take_writes()), (first.clone(), vec![]));
    assert_eq!(world.announced(OWN), Some(announced.clone()));
    world.enforce();
    world.deliver().await;
    world.restart();
    world.deliver_and_enforce().await;
    assert_eq!((world.password(OWN), world.announced(OWN)), (announced.clone(), None));
    assert!(world.opens(&first) && world.opens(&announced));
}

#[tokio::test]
async fn a_replica_that_does_not_answer_is_waited_for_but_not_for_ever() {
    let mut world = World::new(&both());
    world.deliver_and_enforce().await;
    let former = world.password(OWN);
    world.rotate("1");
    // The second step comes though nothing happens.
    assert_eq!(world.deliver().await.next, Some(Duration::from_mins(10)));
    let announced = world.announced(OWN).unwrap();
    world.now += Duration::from_secs(599);
    assert_eq!(world.deliver().await.next, Some(Duration::from_secs(1)));
    assert_eq!(world.password(OWN), former);
    world.now += Duration::from_secs(1);
    world.deliver().await;
    assert_eq!(world.password(OWN), announced);
    assert!(world.opens(&former) && !world.is_known(&announced));
}

#[tokio::test]
async fn one_copy_is_given_its_password_while_another_waits() {
    let mut world = World::new(&both());
    world.deliver_and_enforce().await;
    world.rotate("1");
    world.deliver().await;
    let (own, other) = (world.announced(OWN).unwrap(), world.announced(OTHER).unwrap());
    assert_ne!(own, other);
    world.enforce();
    // Replicas hear of this one later.
    world.api.remove(OTHER).unwrap();
    world.deliver().await;
    assert_eq!(world.password(OWN), own);
    assert!(world.announced(OTHER).is_none() && !world.opens(&other));
}

#[tokio::test]
async fn a_demand_rotates_once() {
    let mut world = World::new(&both());
    world.deliver_and_enforce().await;
    let first = world.password(OWN);
    world.rotate("1");
    world.deliver_and_enforce().await;
    let second = world.password(OWN);
    world.deliver_and_enforce().await;
    assert_eq!(world.password(OWN), second);
    world.rotate("2");
    world.deliver_and_enforce().await;
    assert!([&first, &second, &world.password(OWN)].iter().all(|password| world.opens(password)));
    world.repository.annotations_mut().clear();
    let third = world.password(OWN);
    world.deliver_and_enforce().await;
    assert_eq!(world.password(OWN), third, "a demand that is taken back is none");
}

#[tokio::test]
async fn a_demand_while_one_is_announced_replaces_that_one() {
    let mut world = World::new(&both());
    world.deliver_and_enforce().await;
    world.rotate("1");
    world.deliver().await;
    let seen = world.announced(OWN).unwrap();
    world.enforce();
    world.rotate("2");
    world.deliver().await;
    assert!(!world.opens(&seen) && world.announced(OWN).is_some());
    world.enforce();
    world.deliver().await;
    assert!(!world.opens(&seen) && world.opens(&world.password(OWN)) && world.announced(OWN).is_none());
}

#[tokio::test]
async fn an_announced_password_that_was_edited_is_not_believed() {
    let mut world = World::new(&both());
    world.deliver_and_enforce().await;
    world.rotate("1");
    world.deliver().await;
    let before = world.password(OWN);
    let mine = "A".repeat(43);
    world.edit(OWN, |secret| secret["data"]["next-password"] = json!(BASE64_STANDARD.encode(&mine)));
    world.watch();
    assert!(!world.opens(&mine) && world.logins().len() == 1);
    world.deliver().await;
    assert!(!world.opens(&before) && !world.opens(&mine) && world.announced(OWN).is_none());
}

#[tokio::test]
async fn one_that_was_made_immutable_is_rotated_all_the_same() {
    let mut world = World::new(&both());
    world.deliver_and_enforce().await;
    let former = world.password(OWN);
    world.edit(OWN, |secret| secret["immutable"] = json!(true));
    world.api.take_writes();
    world.deliver().await;
    assert!(world.api.take_writes().is_empty(), "it is as it should be");
    world.later(720);
    world.deliver_and_enforce().await;
    assert_ne!(world.password(OWN), former);
    assert!(world.opens(&former), "whoever has read it may be using it");
}

#[tokio::test]
async fn a_refused_rotation_leaves_the_password_as_it_is() {
    let mut world = World::new(&both());
    world.deliver_and_enforce().await;
    let before = world.password(OWN);
    world.rotate("refused");
    world.api.refuse("refused");
    world.watch();
    let delivered = world.deliver_blindly().await;
    assert_eq!(delivered.statuses[0].problems.len(), 2);
    assert!(world.password(OWN) == before && world.opens(&before));
}
