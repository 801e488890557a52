use super::*;

fn policy() -> Policy {
    Policy {
        logins: vec![Login {
            username: "admin".into(),
            secrets: vec![SecretHash::of(b"s3cret")],
            ends: Vec::new(),
            role: Some(Role::Admin),
        }],
        ..Policy::default()
    }
}

#[test]
fn what_is_not_used_is_not_sent() {
    let json = serde_json::to_value(policy()).unwrap();
    let secret = hex::encode(SecretHash::of(b"s3cret").as_bytes());
    let login = serde_json::json!({"username": "admin", "secrets": [secret], "role": "Admin"});
    assert_eq!(json, serde_json::json!({"logins": [login]}));
}

#[test]
fn rules_read_as_they_are_documented() {
    let json = serde_json::json!({
        "htpasswd": "alice:$2y$05$hash\n",
        "repositories": [
            {"path": "team/*", "visibility": "Public", "access": [{"user": "ci", "role": "Writer"}]},
            {"path": "team/app", "access": [{"user": "alice", "actions": ["content/read", "metadata/write"]}]},
            {"path": "team/web", "tags": {"mutability": "Immutable", "except": ["latest"]}, "quota": 5},
        ],
        "undeclared": [{"user": "admin", "role": "Admin"}],
    });
    let policy: Policy = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(policy.repositories[0].visibility, Visibility::Public);
    assert_eq!(policy.repositories[1].access[0].actions, [Action::ContentRead, Action::MetadataWrite]);
    let mut back = serde_json::to_value(&policy).unwrap();
    back.as_object_mut().unwrap().remove("logins");
    assert_eq!(back, json);
    assert!(!format!("{policy:?}").contains("$2y"));
    let unknown = r#"{"repositories": [{"path": "a", "quotas": 5}]}"#;
    assert!(
        serde_json::from_str::<Policy>(unknown).unwrap_err().to_string().contains("unknown field `quotas`")
    );
}

#[test]
fn service_accounts_read_as_they_are_documented() {
    let json = serde_json::json!({
        "logins": [],
        "repositories": [{"path": "team/*", "visibility": "Cluster"}],
        "serviceAccounts": {"audience": "berth.dev/apps/demo", "nodes": "system:serviceaccount:berth-system:node"},
    });
    let policy: Policy = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(policy.repositories[0].visibility, Visibility::Cluster);
    assert_eq!(serde_json::to_value(&policy).unwrap(), json);
    let without_nodes: Policy = serde_json::from_str(r#"{"serviceAccounts": {"audience": "a"}}"#).unwrap();
    assert_eq!(without_nodes.service_accounts, Some(ServiceAccounts { audience: "a".into(), nodes: None }));
}

#[test]
fn a_policy_survives_json_and_keeps_its_revision() {
    let json = serde_json::to_string(&policy()).unwrap();
    let back: Policy = serde_json::from_str(&json).unwrap();
    assert_eq!(back, policy());
    assert_eq!(back.revision(), policy().revision());
    assert_ne!(back.revision(), Policy::default().revision());
}

#[test]
fn an_unknown_field_is_refused() {
    let error = serde_json::from_str::<Policy>(r#"{"logins":[],"quotas":[]}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `quotas`"), "{error}");
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    assert!(!format!("{:?}", policy()).contains(&hex::encode(SecretHash::of(b"s3cret").as_bytes())));
}
