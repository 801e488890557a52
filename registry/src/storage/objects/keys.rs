//! Where everything lies in the bucket: keys and nothing else. The module above says what they hold.

use object_store::path::Path;
use oci::{Digest, RepoName, Tag};

use crate::storage::UploadId;

pub(super) const CONTENTS: &str = "contents";
pub(super) const UPLOADS: &str = "uploads";
pub(super) const REPOSITORIES: &str = "repositories";

pub(super) fn policy() -> Path {
    Path::from("policy.json")
}

pub(super) fn token_key() -> Path {
    Path::from("token.key")
}

/// The bytes that a session brought.
pub(super) fn data(id: &str) -> Path {
    Path::from(format!("data/{id}"))
}

pub(super) fn content(digest: &Digest) -> Path {
    Path::from(format!("{CONTENTS}/{}", of(digest)))
}

pub(super) fn holders(digest: &Digest) -> Path {
    Path::from(format!("holders/{}", of(digest)))
}

pub(super) fn holder(digest: &Digest, nonce: &str, repository: &RepoName) -> Path {
    Path::from(format!("holders/{}/{nonce}/{repository}", of(digest)))
}

pub(super) fn upload(id: UploadId) -> Path {
    Path::from(format!("{UPLOADS}/{id}"))
}

pub(super) fn session(id: UploadId) -> Path {
    Path::from(format!("{UPLOADS}/{id}/session"))
}

pub(super) fn tail(id: UploadId, nonce: &str) -> Path {
    Path::from(format!("{UPLOADS}/{id}/tail-{nonce}"))
}

pub(super) fn blob(repository: &RepoName, digest: &Digest) -> Path {
    within(repository, &format!("_blobs/{}", of(digest)))
}

pub(super) fn manifest(repository: &RepoName, digest: &Digest) -> Path {
    within(repository, &format!("_manifests/{}", of(digest)))
}

pub(super) fn tag(repository: &RepoName, tag: &Tag) -> Path {
    within(repository, &format!("_tags/{tag}"))
}

/// Entries of manifests that need this.
pub(super) fn needed(repository: &RepoName, digest: &Digest) -> Path {
    within(repository, &format!("_needed/{}", of(digest)))
}

/// Entries of manifests whose subject is this.
pub(super) fn referrers(repository: &RepoName, digest: &Digest) -> Path {
    within(repository, &format!("_referrers/{}", of(digest)))
}

/// Entries of tags that point to this.
pub(super) fn tagged(repository: &RepoName, digest: &Digest) -> Path {
    within(repository, &format!("_tagged/{}", of(digest)))
}

/// Something in a repository. No component of a repository's name starts with `_`.
pub(super) fn within(repository: &RepoName, what: &str) -> Path {
    Path::from(format!("{REPOSITORIES}/{repository}/{what}"))
}

/// An entry that says that `name` has to do with what `folder` is about; `nonce` makes it one that was never there.
pub(super) fn entry(folder: &Path, name: &str, nonce: &str) -> Path {
    Path::from(format!("{folder}/{name}/{nonce}"))
}

/// The two last parts of an entry.
pub(super) fn parse_entry(entry: &Path) -> Option<(&str, &str)> {
    let mut parts = entry.as_ref().rsplitn(3, '/');
    let nonce = parts.next()?;
    Some((parts.next()?, nonce))
}

/// The repository and the nonce of an entry among holders.
pub(super) fn parse_holder(holders: &Path, entry: &Path) -> Option<(RepoName, String)> {
    let rest = entry.as_ref().strip_prefix(holders.as_ref())?.strip_prefix('/')?;
    let (nonce, repository) = rest.split_once('/')?;
    Some((repository.parse().ok()?, nonce.to_owned()))
}

/// A digest as one name.
pub(super) fn as_name(digest: &Digest) -> String {
    digest.as_str().replace(':', "-")
}

pub(super) fn as_digest(name: &str) -> Option<Digest> {
    name.replacen('-', ":", 1).parse().ok()
}

/// The digest that the two last parts of a key stand for.
pub(super) fn digest_of(key: &Path) -> Option<Digest> {
    let (algorithm, hex) = parse_entry(key)?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn of(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm().as_str(), digest.hex())
}
