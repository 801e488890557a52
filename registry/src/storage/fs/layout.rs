//! Where everything lies below the root: paths and nothing else.
//!
//! ```text
//! berth.json                                   the version of this layout
//! lock                                         held by the one process that writes here
//! control.sock                                 where that one, if it is a server, takes `gc` and `check`
//! policy.json                                  the last policy that the operator sent
//! token.key                                    signs tokens; who knows it is whoever they like
//! registry.id                                  the id by which other registries know this one
//! feed/boot                                    in which run of the machine the feed was written, or `clean`
//! feed/<epoch>-<offset>                        what was pushed and deleted, an entry a line, as JSON
//! scrubbed                                     empty: its time is when all content was last found right, or set aside
//! empty                                        what the empty files below have in common: they are links to it
//! blobs/sha256/ab/abcd…                        content, once for all repositories: `sha256sum` gives its name
//! holders/sha256/ab/abcd…/team+app             for each repository that has it as a blob or manifest, an empty file
//! deleting/sha256/abcd…/team+app               this manifest of the repository is gone, with all tags that point to it, and
//!                                              files of these may be left: an empty file
//! journal/{0,1}                                changes that may not be in their places yet; empty after an orderly end
//! quarantine/                                  content that was found damaged; nothing is served from here
//! uploads/<session>/{session.json,data}        what clients are sending; goes away some time after the last byte
//! tmp/                                         files on their way to or from their names, folders for the next uploads; emptied
//!                                              at each start
//! repositories/<name>/_blobs/sha256/abcd…      "this repository has this blob": its size, in decimal
//! repositories/<name>/_manifests/sha256/abcd…  "this repository has this manifest": what it is and needs, as JSON
//! repositories/<name>/_tags/<tag>              the digest that the tag points to; when and where it was set
//! repositories/<name>/_deleted/<tag or digest> "this was deleted": the digest that it had; when and where
//! repositories/<name>/_referrers/sha256/abcd…/ for each manifest whose subject is abcd…, an empty file
//! repositories/<name>/_needed/sha256/abcd…/    for each manifest that needs the blob or manifest abcd…, an empty file
//! repositories/<name>/_tagged/sha256/abcd…/    for each tag that points to the manifest abcd…, an empty file
//! ```
//!
//! No component of a repository's name starts with `_`, so that `a/_tags` is never a repository.

use std::path::{Path, PathBuf};

use oci::{Algorithm, Digest, RepoName, Tag, digest::ALGORITHMS};

use crate::storage::UploadId;

/// Version that this program writes and reads.
pub(crate) const VERSION: u64 = 3;
/// Lacks nothing but stamps and a journal. A root becomes one of this version at its next start, so that programs which
/// know neither leave it alone.
pub(super) const FORMER: u64 = 2;

const BLOBS: &str = "_blobs";
const MANIFESTS: &str = "_manifests";
const TAGS: &str = "_tags";
pub(super) const REFERRERS: &str = "_referrers";
pub(super) const NEEDED: &str = "_needed";
pub(super) const DELETED: &str = "_deleted";
const TAGGED: &str = "_tagged";

/// Folders in a repository that hold one folder for each digest.
pub(super) const INDEXES: [&str; 3] = [REFERRERS, NEEDED, TAGGED];

#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn version(&self) -> PathBuf {
        self.root.join("berth.json")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn policy(&self) -> PathBuf {
        self.root.join("policy.json")
    }

    pub(super) fn token_key(&self) -> PathBuf {
        self.root.join("token.key")
    }

    pub(super) fn id(&self) -> PathBuf {
        self.root.join("registry.id")
    }

    pub(super) fn feed(&self) -> PathBuf {
        self.root.join("feed")
    }

    pub(super) fn scrubbed(&self) -> PathBuf {
        self.root.join("scrubbed")
    }

    pub(super) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    /// Every folder that is there from the start.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![
            self.journal(),
            self.feed(),
            self.tmp(),
            self.uploads(),
            self.quarantine(),
            self.repositories(),
        ];
        for algorithm in ALGORITHMS {
            folders.extend([self.contents(algorithm), self.all_holders(algorithm)]);
        }
        folders
    }

    pub(super) fn upload(&self, id: UploadId) -> PathBuf {
        self.uploads().join(id.to_string())
    }

    pub(super) fn content(&self, digest: &Digest) -> PathBuf {
        sharded(&self.contents(digest.algorithm()), digest)
    }

    pub(super) fn contents(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    pub(super) fn holders(&self, digest: &Digest) -> PathBuf {
        sharded(&self.all_holders(digest.algorithm()), digest)
    }

    pub(super) fn all_holders(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("holders").join(algorithm.as_str())
    }

    pub(super) fn holder(&self, digest: &Digest, repository: &RepoName) -> PathBuf {
        self.holders(digest).join(entry_of(repository))
    }

    pub(super) fn all_deleting(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("deleting").join(algorithm.as_str())
    }

    /// That a manifest is gone, and tags may still point there.
    pub(super) fn deleting(&self, digest: &Digest, repository: &RepoName) -> PathBuf {
        below(&self.root.join("deleting"), digest).join(entry_of(repository))
    }

    pub(super) fn control(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    pub(super) fn repository(&self, name: &RepoName) -> Repository {
        Repository { folder: self.repositories().join(name.as_str()) }
    }
}

/// The folder of one repository.
#[derive(Debug)]
pub(super) struct Repository {
    folder: PathBuf,
}

impl Repository {
    pub(super) fn blobs(&self) -> PathBuf {
        self.folder.join(BLOBS)
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        below(&self.blobs(), digest)
    }

    pub(super) fn manifests(&self, algorithm: Algorithm) -> PathBuf {
        self.folder.join(MANIFESTS).join(algorithm.as_str())
    }

    pub(super) fn manifest(&self, digest: &Digest) -> PathBuf {
        below(&self.folder.join(MANIFESTS), digest)
    }

    pub(super) fn tags(&self) -> PathBuf {
        self.folder.join(TAGS)
    }

    pub(super) fn tag(&self, tag: &Tag) -> PathBuf {
        self.tags().join(tag.as_str())
    }

    pub(super) fn deletions(&self) -> PathBuf {
        self.folder.join(DELETED)
    }

    /// No tag has the colon that every digest has.
    pub(super) fn deletion(&self, name: &str) -> PathBuf {
        self.deletions().join(name)
    }

    pub(super) fn all_referrers(&self) -> PathBuf {
        self.folder.join(REFERRERS)
    }

    pub(super) fn referrers(&self, subject: &Digest) -> PathBuf {
        below(&self.all_referrers(), subject)
    }

    pub(super) fn referrer(&self, subject: &Digest, referrer: &Digest) -> PathBuf {
        self.referrers(subject).join(as_name(referrer))
    }

    pub(super) fn needed(&self, digest: &Digest) -> PathBuf {
        below(&self.folder.join(NEEDED), digest)
    }

    pub(super) fn needed_by(&self, digest: &Digest, manifest: &Digest) -> PathBuf {
        self.needed(digest).join(as_name(manifest))
    }

    pub(super) fn tagged(&self, digest: &Digest) -> PathBuf {
        below(&self.folder.join(TAGGED), digest)
    }

    pub(super) fn tagged_by(&self, digest: &Digest, tag: &Tag) -> PathBuf {
        self.tagged(digest).join(tag.as_str())
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

fn below(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(digest.algorithm().as_str()).join(digest.hex())
}

fn sharded(folder: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    folder.join(&hex[..2]).join(hex)
}

/// A digest as a file name.
pub(super) fn as_name(digest: &Digest) -> String {
    digest.as_str().replace(':', "-")
}

/// The digest that such a file name stands for.
pub(super) fn as_digest(name: &str) -> Option<Digest> {
    name.replacen('-', ":", 1).parse().ok()
}

/// The digest of a file that has only its digits as its name.
pub(super) fn of_hex(algorithm: Algorithm, hex: &str) -> Option<Digest> {
    format!("{}:{hex}", algorithm.as_str()).parse().ok()
}

/// A repository as a file name.
fn entry_of(repository: &RepoName) -> String {
    // No name has a `+`.
    repository.as_str().replace('/', "+")
}

/// The repository that such a file name stands for.
pub(super) fn as_repository(name: &str) -> Option<RepoName> {
    name.replace('+', "/").parse().ok()
}
