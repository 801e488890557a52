//! A policy in a file, for who runs a registry without an operator. YAML, and so JSON too. The file may change at any
//! time; one that can't be used is reported once and the former policy goes on deciding.

use std::{io, path::PathBuf, time::Duration};

use channel::policy::Policy;

use crate::{
    access::{Access, InvalidPolicy, Rules},
    storage::Storage,
};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long it must stay the same to be taken.
const REST: Duration = Duration::from_millis(100);

/// Why a policy is not used.
#[derive(Debug, thiserror::Error)]
#[error("the policy {} can't be used: {source}", path.display())]
pub struct Error {
    path: PathBuf,
    source: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("failed to read it: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Invalid(#[from] InvalidPolicy),
}

/// What follows the file.
#[derive(Debug)]
pub(crate) struct PolicyFile {
    path: PathBuf,
    access: Access,
    storage: Storage,
    seen: Vec<u8>,
    /// Read errors are reported once too.
    readable: bool,
}

impl PolicyFile {
    /// Reads the file for the first time, and lets it decide.
    pub(crate) fn load(path: PathBuf, access: Access, storage: Storage) -> Result<Self, Error> {
        let mut file = Self { path, access, storage, seen: Vec::new(), readable: true };
        let content = std::fs::read(&file.path).map_err(|error| file.error(error.into()))?;
        file.install(content)?;
        Ok(file)
    }

    /// Follows the file; never ends.
    pub(crate) async fn follow(mut self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let content = tokio::fs::read(&self.path).await;
            // Half of a policy may look like a whole one: what is being written is left until it rests.
            tokio::time::sleep(REST).await;
            if let (Ok(before), Ok(after)) = (&content, tokio::fs::read(&self.path).await)
                && *before != after
            {
                continue;
            }
            if let Err(error) = self.look(content) {
                tracing::error!(%error, "the former policy stays");
            }
        }
    }

    fn look(&mut self, content: io::Result<Vec<u8>>) -> Result<(), Error> {
        match content {
            Ok(content) => {
                self.readable = true;
                if content == self.seen { Ok(()) } else { self.install(content) }
            }
            Err(error) => {
                let reported = !std::mem::replace(&mut self.readable, false);
                if reported { Ok(()) } else { Err(self.error(error.into())) }
            }
        }
    }

    fn install(&mut self, content: Vec<u8>) -> Result<(), Error> {
        let rules = parse(&content).and_then(|policy| Rules::new(&policy));
        // Remembered before it is tried, so that a broken one is reported once.
        self.seen = content;
        let rules = rules.map_err(|error| self.error(error.into()))?;
        self.storage.govern(rules.governing());
        self.access.install(rules);
        Ok(())
    }

    fn error(&self, source: Problem) -> Error {
        Error { path: self.path.clone(), source }
    }
}

/// Errors name line and column.
pub(crate) fn parse(yaml: &[u8]) -> Result<Policy, InvalidPolicy> {
    serde_yaml::from_slice(yaml).map_err(|error| InvalidPolicy::Syntax(error.to_string()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const GOOD: &str = "logins: [{username: ci, secrets: [], role: Reader}]";

    #[test]
    fn yaml_and_json_are_the_same() {
        let yaml =
            "repositories:\n- path: team/*\n  visibility: Public\n  access:\n  - {user: ci, role: Writer}\n";
        let json = r#"{"repositories": [{"path": "team/*", "visibility": "Public",
            "access": [{"user": "ci", "role": "Writer"}]}]}"#;
        assert_eq!(parse(yaml.as_bytes()).unwrap(), parse(json.as_bytes()).unwrap());
        assert_eq!(parse(GOOD.as_bytes()).unwrap().logins.len(), 1);
        assert_eq!(parse(b"{}").unwrap(), Policy::default());
        let digits = format!("logins: [{{username: '1', secrets: [{}]}}]", "1".repeat(64));
        assert_eq!(parse(digits.as_bytes()).unwrap().logins[0].secrets.len(), 1);
    }

    #[rstest]
    #[case("logins: []\nquotas: []\n", "unknown field `quotas`", "line 2")]
    #[case("repositories:\n- path: a\n  visibility: Secret\n", "unknown variant `Secret`", "line 3")]
    #[case("repositories:\n- path: a\n access: []\n", "did not find expected", "line 3")]
    #[case("undeclared:\n- user: ci\n  actions: [content/fly]\n", "content/fly", "line 3")]
    fn refusals_name_the_line(#[case] yaml: &str, #[case] why: &str, #[case] line: &str) {
        let error = parse(yaml.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(line), "{error}");
    }

    #[test]
    fn a_broken_file_is_reported_once_and_the_former_policy_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, "undeclared: []").unwrap();
        let access = Access::without_policy(b"key").unwrap();
        let storage = Storage::open(&folder.path().join("root"), crate::storage::Limits::default()).unwrap();
        let mut file = PolicyFile::load(path, access.clone(), storage.clone()).unwrap();
        let first = access.policy_revision();
        assert!(file.look(Ok(b"nonsense".to_vec())).is_err());
        assert!(file.look(Ok(b"nonsense".to_vec())).is_ok(), "reported already");
        assert!(file.look(Err(io::ErrorKind::NotFound.into())).is_err());
        assert!(file.look(Err(io::ErrorKind::NotFound.into())).is_ok(), "reported already");
        assert_eq!(access.policy_revision(), first);
        file.look(Ok(b"repositories: [{path: a}]".to_vec())).unwrap();
        assert_ne!(access.policy_revision(), first);
        let missing =
            PolicyFile::load(folder.path().join("missing"), access, storage).unwrap_err().to_string();
        assert!(missing.contains("missing") && missing.contains("failed to read"), "{missing}");
    }
}
