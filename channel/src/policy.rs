//! What the operator tells every replica of a registry, and what a replica answers.
//!
//! `PUT /v1/policy` with a [`Policy`] → 200 and a [`ReplicaStatus`]; `GET /v1/status` → [`ReplicaStatus`].

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// Who may do what in one registry. Applied whole or refused whole.
///
/// A field that a registry does not know makes it refuse the policy, so that a newer operator never believes that an
/// older registry enforces something it has never heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Logins by username and password, each username once.
    #[serde(default)]
    pub logins: Vec<Login>,
}

impl Policy {
    /// Names this policy by its content: the same policy has the same revision on every operator and after every
    /// restart. 64 hexadecimal digits.
    #[must_use]
    pub fn revision(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(Sha256::digest(json))
    }
}

/// One username, the secrets that open it and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Login {
    /// The username, as sent in basic authentication; must not contain a colon.
    pub username: String,
    /// Hashes of the secrets accepted now; several while a rotation overlaps.
    pub secrets: Vec<SecretHash>,
    /// What the login may do, in every repository of the registry.
    pub role: Role,
}

/// What a login may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Pull and list.
    Reader,
    /// Pull, list, push and delete.
    Admin,
}

/// SHA-256 of a generated secret. Fast hashing is enough only because such secrets carry 256 bits; passwords that
/// people choose never come this way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Hashes a secret's bytes.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// The 32 bytes, for a comparison in constant time.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

impl Serialize for SecretHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| D::Error::custom("a secret hash is 64 hexadecimal digits"))?;
        Ok(Self(bytes))
    }
}

/// How a replica is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// Version of the registry binary.
    pub version: String,
    /// [`Policy::revision`] of the policy that decides now; none before the first.
    pub policy_revision: Option<String>,
    /// Bytes taken on the volume's file system.
    pub used_bytes: u64,
    /// Size in bytes of the volume's file system.
    pub total_bytes: u64,
    /// Number of repositories that hold something.
    pub repositories: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            logins: vec![Login {
                username: "admin".into(),
                secrets: vec![SecretHash::of(b"s3cret")],
                role: Role::Admin,
            }],
        }
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
}
