//! Who has room in a policy, and what becomes of others.

use serde_json::json;

use super::*;
use crate::testing;

/// Made so many seconds after the Unix epoch.
fn aged(namespace: &str, path: &str, second: usize) -> Repository {
    let mut repository = testing::repository(namespace, &format!("app-{second}"), &json!({ "path": path }));
    let at = k8s_openapi::jiff::Timestamp::from_second(second.try_into().unwrap()).unwrap();
    repository.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
    repository
}

/// Of each so many bytes, as much as there is room for.
fn given(all: &[(&Repository, usize, usize)]) -> Vec<Room> {
    let wish = |&(repository, whole, shut)| Wish { repository, whole, shut };
    rooms(&all.iter().map(wish).collect::<Vec<_>>())
}

#[test]
fn the_younger_ones_of_a_namespace_that_declares_too_much_are_shut() {
    let all: Vec<_> = (0..100).map(|number| aged("greedy", &format!("greedy/{number}"), number)).collect();
    let other = aged("other", "other/app", 1000);
    // The youngest comes first here.
    let wishes = all.iter().rev().map(|repository| (repository, 40_000, 40)).chain([(&other, 40_000, 40)]);
    let rooms = given(&wishes.collect::<Vec<_>>());
    assert_eq!(rooms[100], Room::Whole);
    let whole = rooms[..100].iter().rev().take_while(|room| **room == Room::Whole).count();
    assert!((45..60).contains(&whole), "{whole}");
    assert!(rooms[..100 - whole].iter().all(|room| *room == Room::Shut));
}

#[test]
fn all_together_have_less_than_a_registry_takes() {
    let all: Vec<_> =
        (0..16).map(|number| aged(&format!("team-{number}"), &format!("{number}"), number)).collect();
    let rooms = given(&all.iter().map(|repository| (repository, 2_000_000, 40)).collect::<Vec<_>>());
    assert_eq!(rooms.iter().filter(|room| **room == Room::Whole).count(), 6);
    assert!(!rooms.contains(&Room::Nothing));
}

#[test]
fn paths_that_are_not_even_told_of_shut_what_their_namespace_says_above() {
    const LARGE: usize = 300_000;
    let paths = ["a", "b", "c", "red/x/y/too-many", "apps/too-many"];
    let above = [aged("red", "red/*", 0), aged("red", "red/x/*", 1), aged("apps", "apps/*", 2)];
    let all: Vec<_> = paths.iter().zip(3..).map(|(path, second)| aged("red", path, second)).collect();
    let wishes: Vec<_> =
        above.iter().map(|it| (it, 50, 40)).chain(all.iter().map(|it| (it, LARGE, LARGE))).collect();
    let mut expected = vec![Room::Whole; 6];
    // The nearest decides; what another namespace says stays.
    expected[1] = Room::Shut;
    expected.extend([Room::Nothing; 2]);
    assert_eq!(given(&wishes), expected);
}

#[test]
fn thousands_of_usual_ones_are_no_trouble() {
    let all: Vec<_> = (0..5000).map(|number| aged("red", &format!("red/app-{number}"), number)).collect();
    let rooms = given(&all.iter().map(|repository| (repository, 350, 30)).collect::<Vec<_>>());
    assert!(rooms.iter().all(|room| *room == Room::Whole));
}
