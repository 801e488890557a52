use std::sync::atomic::Ordering;

use super::*;
use crate::access::{
    jwt,
    tests::cluster::{AUDIENCE, CI, Cluster, forged, token_of},
};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const HOUR: Duration = Duration::from_secs(3600);

fn reviews(cluster: Cluster) -> (Arc<Cluster>, Arc<Reviews>) {
    let cluster = Arc::new(cluster);
    let reviews = Reviews::new(Arc::clone(&cluster) as Arc<dyn Reviewer>).unwrap();
    (cluster, Arc::new(reviews))
}

async fn review(reviews: &Arc<Reviews>, token: &str) -> Result<Account, Refusal> {
    review_from(reviews, token, HERE).await
}

async fn review_from(reviews: &Arc<Reviews>, token: &str, source: IpAddr) -> Result<Account, Refusal> {
    let presented = jwt::presented(token.as_bytes(), AUDIENCE, std::time::SystemTime::now()).unwrap();
    reviews.review(&presented, &AUDIENCE.into(), source).await
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_right_counts_for_a_minute() {
    let (cluster, reviews) = reviews(Cluster::default());
    let token = token_of(CI, HOUR);
    for (seconds, asked) in [(0, 1), (59, 1), (2, 2), (58, 2), (3, 3)] {
        pass(seconds).await;
        assert_eq!(&**review(&reviews, &token).await.unwrap().name(), CI);
        assert_eq!(cluster.asked(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn and_never_beyond_the_tokens_own_end() {
    let (cluster, reviews) = reviews(Cluster::default());
    let token = token_of(CI, Duration::from_secs(20));
    review(&reviews, &token).await.unwrap();
    pass(10).await;
    review(&reviews, &token).await.unwrap();
    assert_eq!(cluster.asked(), 1);
    pass(11).await;
    review(&reviews, &token).await.unwrap();
    assert_eq!(cluster.asked(), 2, "the cluster would say no");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_counts_for_ten_seconds_and_what_is_not_known_for_two() {
    let (cluster, reviews) = reviews(Cluster::default());
    let token = forged(CI);
    for (seconds, asked) in [(0, 1), (9, 1), (2, 2)] {
        pass(seconds).await;
        assert_eq!(review(&reviews, &token).await, Err(Refusal::WrongCredentials));
        assert_eq!(cluster.asked(), asked);
    }
    cluster.away.store(true, Ordering::SeqCst);
    let token = token_of(CI, HOUR);
    for (seconds, asked) in [(0, 3), (1, 3), (2, 4)] {
        pass(seconds).await;
        assert_eq!(review(&reviews, &token).await, Err(Refusal::Unchecked));
        assert_eq!(cluster.asked(), asked);
    }
    cluster.away.store(false, Ordering::SeqCst);
    pass(3).await;
    assert!(review(&reviews, &token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn only_names_of_service_accounts_are_right() {
    for says in ["system:admin", "system:node:one", "system:serviceaccount:apps", "alice", ""] {
        let (_, reviews) = reviews(Cluster { says: Some(says), ..Cluster::default() });
        assert_eq!(review(&reviews, &token_of(CI, HOUR)).await, Err(Refusal::WrongCredentials), "{says}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_token_is_asked_about_once_and_sixteen_at_once() {
    let takes = Duration::from_millis(100);
    let (cluster, reviews) = reviews(Cluster { takes, ..Cluster::default() });
    let token = token_of(CI, HOUR);
    let same = futures::future::join_all((0..50).map(|_| review(&reviews, &token))).await;
    assert!(same.iter().all(Result::is_ok));
    assert_eq!((cluster.asked(), cluster.most_at_once.load(Ordering::SeqCst)), (1, 1));
    let tokens: Vec<_> =
        (0..100).map(|n| token_of(&format!("system:serviceaccount:apps:ci-{n}"), HOUR)).collect();
    let different = futures::future::join_all(tokens.iter().map(|token| review(&reviews, token))).await;
    assert!(different.iter().all(Result::is_ok));
    assert_eq!((cluster.asked(), cluster.most_at_once.load(Ordering::SeqCst)), (101, AT_ONCE));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_long() {
    let (_, reviews) = reviews(Cluster { takes: HOUR, ..Cluster::default() });
    let tokens: Vec<_> =
        (0..100).map(|n| token_of(&format!("system:serviceaccount:apps:ci-{n}"), HOUR)).collect();
    let started = Instant::now();
    let all = futures::future::join_all(tokens.iter().map(|token| review(&reviews, token))).await;
    assert!(all.iter().all(|answer| *answer == Err(Refusal::Unchecked)));
    assert!(started.elapsed() < PATIENCE + Duration::from_secs(1));
    assert_eq!(reviews.places.available_permits(), AT_ONCE);
}

#[tokio::test]
async fn many_wrong_ones_are_slowed_and_what_was_right_never_is() {
    let (cluster, reviews) = reviews(Cluster::default());
    let right = token_of(CI, HOUR);
    review(&reviews, &right).await.unwrap();
    // The same one again is no guess.
    let wrong = forged(CI);
    for _ in 0..50 {
        assert_eq!(review(&reviews, &wrong).await, Err(Refusal::WrongCredentials));
    }
    let guess = |n: usize| forged(&format!("system:serviceaccount:apps:{n}"));
    let mut n = 0;
    while !matches!(review(&reviews, &guess(n)).await, Err(Refusal::TooManyAttempts(_))) {
        n += 1;
        assert!(n < 30, "never slowed");
    }
    let asked = cluster.asked();
    let new = token_of("system:serviceaccount:apps:new", HOUR);
    assert!(matches!(review(&reviews, &new).await, Err(Refusal::TooManyAttempts(_))));
    assert_eq!(cluster.asked(), asked);
    assert!(review_from(&reviews, &new, "10.0.0.1".parse().unwrap()).await.is_ok(), "from elsewhere");
    for turn in reviews.known.lock().unwrap().values() {
        turn.try_lock().unwrap().until = Instant::now();
    }
    assert!(review(&reviews, &right).await.is_ok());
    assert_eq!(cluster.asked(), asked + 2, "it was asked again");
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_wait_has_guessed_all_the_same() {
    let takes = Duration::from_millis(100);
    let (_, reviews) = reviews(Cluster { takes, ..Cluster::default() });
    for n in 0..30 {
        let token = forged(&format!("system:serviceaccount:apps:{n}"));
        let _ = tokio::time::timeout(Duration::from_millis(1), review(&reviews, &token)).await;
        pass(1).await;
        tokio::task::yield_now().await;
    }
    assert!(matches!(review(&reviews, &forged(CI)).await, Err(Refusal::TooManyAttempts(_))));
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_and_what_is_in_use_stays() {
    let (_, reviews) = reviews(Cluster::default());
    let end = Instant::now() + HOUR;
    let audience = AUDIENCE;
    let used = reviews.turn("used", audience, end).unwrap();
    for n in 0..MOST + 100 {
        let turn = reviews.turn(&n.to_string(), audience, end).unwrap();
        turn.lock().await.learn(Verdict::Wrong, Instant::now(), end);
    }
    assert_eq!(reviews.known.lock().unwrap().len(), MOST);
    assert!(Arc::ptr_eq(&used, &reviews.turn("used", audience, end).unwrap()));
    let all: Vec<_> = reviews.known.lock().unwrap().values().cloned().collect();
    assert!(reviews.turn("one more", audience, end).is_none(), "all are in use");
    drop(all);
    pass(11).await;
    assert!(reviews.turn("one more", audience, end).is_some());
    assert_eq!(reviews.known.lock().unwrap().len(), 2, "what counts no longer is gone");
}

#[test]
fn tokens_do_not_show_in_debug_output() {
    let (_, reviews) = reviews(Cluster::default());
    assert_eq!(format!("{reviews:?}").split('(').next(), Some("Reviews"));
    assert!(!format!("{reviews:?}").contains("known"));
}
