//! What must hold of the parsers here, see [`crate::fuzzing`].
#![expect(clippy::missing_panics_doc, reason = "to panic is how these say that something does not hold")]

use std::time::{Duration, UNIX_EPOCH};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use channel::policy::{Action, Visibility};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use oci::RepoName;

use super::{
    Origin, Rules, Scopes, ask,
    basic::{bearer, credentials},
    htpasswd,
    jwt::presented,
    scope::catalog,
    token::{Signer, Subject},
    who::Who,
};

const ACTIONS: [Action; 5] = [
    Action::ContentRead,
    Action::ContentWrite,
    Action::ContentDelete,
    Action::MetadataRead,
    Action::MetadataWrite,
];

/// The Authorization header.
pub fn authorization(bytes: &[u8]) {
    let Ok(header) = HeaderValue::from_bytes(bytes) else { return };
    let credentials = credentials(&header);
    assert!(credentials.is_none() || bearer(&header).is_none(), "both at once");
    if let Some(presented) = credentials {
        assert!(!presented.username.contains(&b':'));
        let pair = [&presented.username[..], b":", &presented.secret].concat();
        let again = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)));
        let again = again.ok().and_then(|header| super::basic::credentials(&header));
        assert!(again.is_some_and(|again| {
            (again.username, again.secret) == (presented.username, presented.secret)
        }));
    }
}

/// Bearer tokens: none that we did not sign, and all that we did.
pub fn token(bytes: &[u8]) {
    let signer = Signer::new(b"a key");
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(signer.check(&text, now), None, "forged");
    let subject = Subject { user: text.clone().into_owned(), credential: text.clone().into_owned() };
    let given = signer.sign(Some(subject.clone()), &text, now + Duration::from_secs(300));
    let claims = signer.check(&given, now);
    assert!(claims.is_some_and(|claims| claims.subject == Some(subject) && claims.scope == text));
    // Whatever is put in, in front or behind.
    for changed in [format!("{given}{text}"), format!("{text}{given}"), given.replacen('.', &text, 1)] {
        assert!(changed == given || signer.check(&changed, now).is_none(), "forged");
    }
}

/// ServiceAccounts' tokens, by what stands in them: only what names an account, and is for us, is taken for one.
pub fn account_token(bytes: &[u8]) {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let wrapped = format!("e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(bytes));
    for secret in [bytes, wrapped.as_bytes()] {
        let Some(presented) = presented(secret, "berth.dev/apps/demo", now) else { continue };
        assert_eq!(presented.token.as_bytes(), secret);
        let name = presented.claimed.name();
        assert!(name.starts_with("system:serviceaccount:") && !name.contains(char::is_whitespace), "{name}");
        assert!(presented.left.is_zero() || now.checked_add(presented.left).is_some());
    }
}

/// What tokens are asked for.
pub fn scope(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(scopes) = Scopes::parse([&*text]) else { return };
    assert_eq!(
        Scopes::parse([scopes.as_str()]).as_ref(),
        Ok(&scopes),
        "it reads differently the second time"
    );
    assert_eq!(scopes.cover_catalog(), text.split_whitespace().any(|scope| scope == catalog()));
    let covers = |name: &str| {
        let name: Option<RepoName> = name.parse().ok();
        name.is_some_and(|name| ACTIONS.iter().any(|&action| scopes.cover(action, &name)))
    };
    // Only what is named.
    assert!(!covers("else") || text.contains("repository:else:"));
}

/// Where clients see us: a host as four headers say it, a line each.
pub fn origin(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    let names = ["host", "x-forwarded-host", "x-forwarded-proto", "forwarded"];
    for (name, value) in names.into_iter().zip(bytes.split(|&byte| byte == b'\n')) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    for tls in [false, true] {
        let origin = Origin::of(&headers, &Uri::from_static("/v2/"), tls);
        let challenge = ask(origin.as_ref(), Some("repository:a:pull"), None);
        let parts: Vec<_> = challenge.to_str().unwrap_or_default().split('"').collect();
        if origin.is_none() {
            assert_eq!(challenge, super::BASIC);
            continue;
        }
        // Nothing that comes in may add a parameter, or send clients to anything but a host.
        let ["Bearer realm=", realm, ",service=", "berth", ",scope=", "repository:a:pull", ""] = parts[..]
        else {
            panic!("{challenge:?}");
        };
        let host = realm.split_once("://").and_then(|(_, rest)| rest.strip_suffix("/token"));
        assert!(host.is_some_and(|host| !host.contains(['/', '@', '?', '#', '\\', ' '])), "{realm}");
        assert!(realm.starts_with("https://") || realm.starts_with("http://"), "{realm}");
    }
}

/// Policies in YAML or JSON.
pub fn policy(bytes: &[u8]) {
    let Ok(policy) = crate::policy_file::parse(bytes) else { return };
    let Ok(rules) = Rules::new(&policy) else { return };
    assert_eq!(rules.revision(), policy.revision());
    for name in ["team/app", "team/web", "a"].into_iter().filter_map(|name| name.parse::<RepoName>().ok()) {
        for action in ACTIONS {
            let allowed = rules.allow(&Who::Nobody, action, &name);
            let reading = matches!(action, Action::ContentRead | Action::MetadataRead);
            let guests = policy.primaries.iter().flat_map(|primary| &primary.repositories);
            let public = policy.repositories.iter().map(|rule| rule.visibility);
            let public = public.chain(guests.map(|rule| rule.visibility)).any(|it| it == Visibility::Public);
            assert!(!allowed || (reading && public), "nobody may do {action:?} in {name}");
        }
    }
}

/// Files of passwords.
pub fn password_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for entry in htpasswd::parse(&text).flatten() {
        assert!(!entry.username.is_empty() && !entry.username.contains([':', '\n']));
        assert!((4..=16).contains(&entry.cost) && entry.hash.starts_with('$'), "{}", entry.hash);
    }
}
