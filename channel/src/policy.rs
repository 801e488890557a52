//! What the operator tells every replica of a registry, and what a replica answers.
//!
//! `PUT /v1/policy` with a [`Policy`] → 200 and a [`ReplicaStatus`]; `GET /v1/status` → [`ReplicaStatus`].

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// Who may do what in one registry. Applied whole or refused whole, but for logins: one that can't be used is left
/// out, so that it does not hold up that others go, and [`ReplicaStatus::left_out`] says why.
///
/// A field that a registry does not know makes it refuse the policy, so that a newer operator never believes that an
/// older registry enforces something it has never heard of. For the same reason what is not used is not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Robots: logins by username and generated secret, each username once.
    #[serde(default)]
    pub logins: Vec<Login>,
    /// People: logins by username and a password of their own.
    #[serde(default, skip_serializing_if = "Htpasswd::is_empty")]
    pub htpasswd: Htpasswd,
    /// Who may do what where, each path once. The most specific path decides alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Repository>,
    /// Who may do what in repositories that no path covers: nobody, unless named here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undeclared: Vec<Access>,
    /// ServiceAccounts of the cluster may log in; none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccounts>,
    /// Registries that this one stands in for, each name once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub primaries: Vec<Primary>,
}

impl Policy {
    /// Names this policy by its content: the same policy has the same revision on every operator and after every
    /// restart. 64 hexadecimal digits.
    #[must_use]
    pub fn revision(&self) -> String {
        crate::revision(self)
    }
}

/// One username and the secrets that open it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Login {
    /// The username, as sent in basic authentication; must not contain a colon.
    pub username: String,
    /// Hashes of the secrets accepted now; several while a rotation overlaps.
    pub secrets: Vec<SecretHash>,
    /// Until when some of them are, so that they end also where nobody can tell the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<End>,
    /// What the login may do in every repository of the registry, whatever else is said of the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// When a secret is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct End {
    /// Hash of the secret.
    pub secret: SecretHash,
    /// From when on it is accepted no longer (RFC 3339).
    pub until: String,
}

/// ServiceAccounts log in with tokens of their own, which the cluster checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccounts {
    /// What tokens must be for: `berth.dev/<namespace>/<registry>`. All others are refused.
    pub audience: String,
    /// The ServiceAccount whose tokens are the nodes' credentials, as `system:serviceaccount:<namespace>:<name>`. It reads
    /// what is public or visible to the cluster and may do nothing else, whatever rules say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
}

/// A registry that this one stands in for. Whom it names may read here what it says, beside what all else in the policy
/// gives to others; nobody may do anything but read because of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Primary {
    /// What it is called: `<namespace>/<name>`, without a colon.
    pub name: String,
    /// Its robots, each username once. They are strangers to this registry's own logins and to other primaries', also
    /// where the username is the same: the secret tells whose it is. A role gives them nothing here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<Login>,
    /// What can be read, each path once. The most specific path decides alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Readable>,
}

/// Who may read one repository of a primary, or all below a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Readable {
    /// As in [`Repository::path`].
    pub path: String,
    /// Who may read without being named.
    #[serde(default, skip_serializing_if = "Visibility::is_private")]
    pub visibility: Visibility,
    /// Usernames of the primary's logins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<String>,
}

/// The rules of one repository, or of all below a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Repository {
    /// `team/app` is that repository, `team/*` is everything below `team/`, `*` is everything.
    pub path: String,
    /// Who may read without being named.
    #[serde(default, skip_serializing_if = "Visibility::is_private")]
    pub visibility: Visibility,
    /// Who may do what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<Access>,
    /// Which tags stay where they are.
    #[serde(default, skip_serializing_if = "Tags::is_default")]
    pub tags: Tags,
    /// Bytes that distinct blobs and manifests of the path may have together; no limit without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
}

/// Which tags stay where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tags {
    /// What holds for all of them.
    #[serde(default, skip_serializing_if = "Mutability::is_mutable")]
    pub mutability: Mutability,
    /// Patterns of tags that may move all the same; `*` is anything, also nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

impl Tags {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether tags may move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutability {
    /// Whoever may push may move them.
    #[default]
    Mutable,
    /// They neither move nor go, but by who has all actions of [`Role::Admin`]. Tags under which clients keep signatures
    /// and referrers (`sha256-<digest>`, with or without a suffix) move all the same.
    Immutable,
}

impl Mutability {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
    fn is_mutable(&self) -> bool {
        *self == Self::Mutable
    }
}

/// Who may read a repository without being named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    /// Nobody.
    #[default]
    Private,
    /// The cluster's nodes, so that its pods need no pull secret; see [`ServiceAccounts::nodes`].
    Cluster,
    /// Whoever reaches the registry, without credentials too.
    Public,
}

impl Visibility {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
    fn is_private(&self) -> bool {
        *self == Self::Private
    }
}

/// What one subject may do. A subject that is named several times may do all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// The subject: a username of a login or of the password file. Or, with colons, which those never have:
    /// `system:serviceaccount:<namespace>:<name>` is a ServiceAccount, `system:serviceaccounts:<namespace>` are all of a
    /// namespace, `system:serviceaccounts` are all.
    pub user: String,
    /// Usual actions under one name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Single actions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Action>,
}

/// Actions that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Pull and list: content/read, metadata/read.
    Reader,
    /// Pull, list and push: a reader's, content/write, metadata/write.
    Writer,
    /// Everything: a writer's, content/delete.
    Admin,
}

impl Role {
    /// The actions that it stands for.
    #[must_use]
    pub fn actions(self) -> &'static [Action] {
        match self {
            Self::Reader => &[Action::ContentRead, Action::MetadataRead],
            Self::Writer => {
                &[Action::ContentRead, Action::MetadataRead, Action::ContentWrite, Action::MetadataWrite]
            }
            Self::Admin => &[
                Action::ContentRead,
                Action::MetadataRead,
                Action::ContentWrite,
                Action::MetadataWrite,
                Action::ContentDelete,
            ],
        }
    }
}

/// What is decided on: every request is one of these on one repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Read blobs and manifests.
    #[serde(rename = "content/read")]
    ContentRead,
    /// Push blobs and manifests, under tags or without.
    #[serde(rename = "content/write")]
    ContentWrite,
    /// Delete blobs, manifests and tags.
    #[serde(rename = "content/delete")]
    ContentDelete,
    /// List tags and referrers, and see the repository in the catalog.
    #[serde(rename = "metadata/read")]
    MetadataRead,
    /// Set tags on manifests that are there; who may push sets them anyway.
    #[serde(rename = "metadata/write")]
    MetadataWrite,
}

/// A password file as `htpasswd -B` writes it: a line `username:hash` for each user, hashes by bcrypt only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Htpasswd(String);

impl Htpasswd {
    /// Of a file's content. It is the registry that looks at it.
    #[must_use]
    pub fn new(content: String) -> Self {
        Self(content)
    }

    /// The file's content.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Htpasswd(…)")
    }
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
    /// That policy could not be kept yet: it would not decide after a restart. Send it again.
    #[serde(default)]
    pub policy_unsaved: bool,
    /// Why logins of that policy do not count, some of them if there are many.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Bytes taken on the volume's file system.
    pub used_bytes: u64,
    /// Size in bytes of the volume's file system; 0 where that is not known yet.
    pub total_bytes: u64,
    /// Number of repositories that hold something, as it was counted last; none before that.
    pub repositories: Option<u64>,
}

#[cfg(test)]
mod tests;
