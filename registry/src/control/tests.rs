use channel::policy::{Login, Role, SecretHash};
use rustix::io::Errno;

use super::*;

fn policy(username: &str) -> Vec<u8> {
    let secrets = vec![SecretHash::of(b"secret")];
    let login = Login { username: username.into(), secrets, ends: Vec::new(), role: Some(Role::Admin) };
    serde_json::to_vec(&Policy { logins: vec![login], ..Policy::default() }).unwrap()
}

fn revision(json: &[u8]) -> String {
    parse(json).unwrap().revision()
}

fn control(root: &std::path::Path) -> Control {
    let storage = Storage::open(root, storage::Limits::default()).unwrap();
    Control::new(Access::without_policy(b"key").unwrap(), storage, CancellationToken::new())
}

#[tokio::test]
async fn a_full_disk_does_not_keep_a_policy_from_deciding() {
    let root = tempfile::tempdir().unwrap();
    let (former, newer) = (policy("leaked"), policy("other"));
    {
        let control = control(root.path());
        control.apply(&former).await.unwrap();
        control.storage.faults().plan(1, usize::MAX, Errno::NOSPC);
        for _ in 0..2 {
            let error = control.apply(&newer).await.unwrap_err();
            assert!(error.to_string().contains("the policy decides, but it can't be kept"), "{error}");
            assert_eq!(error.into_response().status(), StatusCode::INTERNAL_SERVER_ERROR);
            let status = control.report().await;
            assert_eq!((status.policy_revision, status.policy_unsaved), (Some(revision(&newer)), true));
        }
    }
    {
        let control = control(root.path());
        control.load().await.unwrap();
        let status = control.report().await;
        assert_eq!((status.policy_revision, status.policy_unsaved), (Some(revision(&former)), false));
        control.apply(&newer).await.unwrap();
        assert!(!control.report().await.policy_unsaved);
    }
    let control = control(root.path());
    control.load().await.unwrap();
    assert_eq!(control.report().await.policy_revision, Some(revision(&newer)));
}

#[tokio::test]
async fn a_count_that_takes_long_holds_up_neither_policy_nor_status() {
    let root = tempfile::tempdir().unwrap();
    let control = control(root.path());
    assert_eq!(control.report().await.repositories, Some(0));
    let _counting = Arc::clone(&control.repositories.turn).lock_owned().await;
    control.apply(&policy("admin")).await.unwrap();
    let status = tokio::time::timeout(std::time::Duration::from_secs(5), control.report()).await.unwrap();
    assert_eq!((status.policy_revision, status.repositories), (Some(revision(&policy("admin"))), Some(0)));
}
