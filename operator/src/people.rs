//! The people who can log in to a Registry: those of its password file.

use channel::policy::Htpasswd;
use crds::Registry;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use crate::{
    apply::{self, Applier},
    conditions::Answer,
    desired::told::size,
    names::{self, REGISTRY_LABEL},
};

/// The key of the Secret.
const KEY: &str = "htpasswd";
/// Bytes of a policy that people may take. A Secret of what htpasswd wrote takes less; control characters take six each, and
/// a policy that is too large for replicas would end nobody's login any more.
const MOST: usize = 3 << 19;

/// Who can log in, and whether that is as declared; no answer where nobody is declared.
#[derive(Default)]
pub(crate) struct People {
    pub(crate) htpasswd: Htpasswd,
    pub(crate) answer: Option<Answer>,
}

/// Reads the password file. One that is not there or not as it must be lets nobody in; one that can't be read now may
/// be there, and is an error.
pub(crate) async fn read(registry: &Registry, applier: &Applier) -> Result<People, apply::Error> {
    let identity = registry.spec.identity.as_ref();
    let Some(file) = identity.and_then(|identity| identity.password_file.as_ref()) else {
        return Ok(People::default());
    };
    let secret: Option<Secret> = applier.get(&names::namespace(registry), &file.secret_name).await?;
    Ok(match htpasswd(registry, &file.secret_name, secret.as_ref()) {
        Ok(htpasswd) => People {
            htpasswd,
            answer: Some(Answer::yes(
                "PasswordFile",
                format!("users of Secret {} can log in", file.secret_name),
            )),
        },
        Err(problem) => People { htpasswd: Htpasswd::default(), answer: Some(problem) },
    })
}

/// The label keeps a Registry from being a way to read other Secrets of its namespace, and brings changes to notice.
fn htpasswd(registry: &Registry, name: &str, secret: Option<&Secret>) -> Result<Htpasswd, Answer> {
    let registry = registry.name_any();
    let create = format!(
        "kubectl create secret generic {name} --from-file={KEY}=<file that htpasswd -B wrote>, then kubectl label secret {name} {REGISTRY_LABEL}={registry}"
    );
    let Some(secret) = secret else {
        let sentence = format!("there is no Secret {name}, so no people can log in: {create}");
        return Err(Answer::no("PasswordFileNotFound", sentence));
    };
    if secret.labels().get(REGISTRY_LABEL) != Some(&registry) {
        let sentence = format!(
            "Secret {name} is not meant for this Registry, so no people can log in: kubectl label secret {name} {REGISTRY_LABEL}={registry}"
        );
        return Err(Answer::no("PasswordFileNotLabelled", sentence));
    }
    let content = secret.data.as_ref().and_then(|data| data.get(KEY));
    let content = content.and_then(|content| String::from_utf8(content.0.clone()).ok());
    let content = content.map(Htpasswd::new).ok_or_else(|| {
        let sentence =
            format!("Secret {name} has no text under the key {KEY}, so no people can log in: put the password file there");
        Answer::no("PasswordFileMissing", sentence)
    })?;
    if size(&content) > MOST {
        let sentence = format!(
            "Secret {name} has more under the key {KEY} than a password file, so no people can log in: put there what htpasswd -B wrote, and nothing else"
        );
        return Err(Answer::no("PasswordFileTooLarge", sentence));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing;

    #[rstest]
    #[case::absent(Value::Null, Err("PasswordFileNotFound"))]
    #[case::somebody_elses(json!({"metadata": {}, "data": {"htpasswd": "YTpi"}}), Err("PasswordFileNotLabelled"))]
    #[case::another_registrys(
        json!({"metadata": {"labels": {"berth.dev/registry": "other"}}, "data": {"htpasswd": "YTpi"}}),
        Err("PasswordFileNotLabelled")
    )]
    #[case::without_key(json!({"metadata": {"labels": {"berth.dev/registry": "demo"}}}), Err("PasswordFileMissing"))]
    #[case::right(
        json!({"metadata": {"labels": {"berth.dev/registry": "demo"}}, "data": {"htpasswd": "YTpi"}}),
        Ok("a:b")
    )]
    fn tells_why_nobody_can_log_in(#[case] secret: Value, #[case] expected: Result<&str, &str>) {
        let secret: Option<Secret> = serde_json::from_value(secret).unwrap();
        let file = htpasswd(&testing::registry("demo"), "people", secret.as_ref());
        let said = file.as_ref().map(Htpasswd::as_str).map_err(|answer| answer.reason.as_ref());
        assert_eq!(said, expected);
    }

    #[test]
    fn what_would_make_the_policy_too_large_is_no_password_file() {
        let reason = |content: String| {
            let labels = [(REGISTRY_LABEL.to_owned(), "demo".to_owned())];
            let mut secret = Secret {
                data: Some([(KEY.to_owned(), ByteString(content.into()))].into()),
                ..Secret::default()
            };
            secret.metadata.labels = Some(labels.into());
            htpasswd(&testing::registry("demo"), "people", Some(&secret)).err().map(|answer| answer.reason)
        };
        let line = format!("somebody:{}\n", "$2y$10$".to_owned() + &"a".repeat(53));
        assert_eq!(reason(line.repeat((1 << 20) / line.len())), None);
        assert_eq!(reason("\u{1}".repeat(300_000)).as_deref(), Some("PasswordFileTooLarge"));
    }
}
