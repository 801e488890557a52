//! What clients were told, by where it is: what has to be true after a kill.

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
};

use bytes::Bytes;
use oci::Digest;

use super::tags::Written;

/// Where everything is pushed to.
pub(super) const REPOSITORY: &str = "crash/test";
/// Where some of it is mounted to.
pub(super) const OTHER: &str = "crash/other";

pub(super) fn blob(repository: &str, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// Also of a tag.
pub(super) fn manifest(repository: &str, reference: impl Display) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// What the server said is stored or deleted. Blobs count from the moment on in which a manifest needs them: a collection
/// without grace may take them before.
#[derive(Default)]
pub(super) struct Acknowledged {
    /// Images that stay.
    pub(super) images: usize,
    pub(super) there: HashMap<String, Digest>,
    /// All that was done to tags, also what was under way at the end.
    pub(super) written: Vec<Written>,
    /// Deleted tags, manifests and blobs.
    pub(super) gone: HashSet<String>,
    /// Tags and manifests that were deleted and are there again.
    pub(super) back: HashSet<String>,
    /// Uploads that were under way at the end.
    pub(super) cut: Vec<Cut>,
}

/// A session in the middle.
pub(super) struct Cut {
    pub(super) location: String,
    pub(super) content: Bytes,
    pub(super) digest: Digest,
    /// Bytes that were acknowledged.
    pub(super) received: usize,
    /// Whether it may be a blob by now.
    pub(super) is_closing: bool,
}

impl Acknowledged {
    pub(super) fn add(&mut self, more: Self) {
        self.images += more.images;
        self.there.extend(more.there);
        self.written.extend(more.written);
        self.gone.extend(more.gone);
        self.back.extend(more.back);
        self.cut.extend(more.cut);
    }

    /// How much of each kind.
    pub(super) fn counts(&self) -> String {
        let count = |part: &str| self.there.keys().filter(|path| path.contains(part)).count();
        let gone = |part: &str| self.gone.iter().filter(|path| path.contains(part)).count();
        let digests = gone("/manifests/sha") + self.back.iter().filter(|path| path.contains("/sha")).count();
        format!(
            "{} images, {} blobs and {} manifests in all, of them {} by sha512 and {} in another repository, \
             {} changes of tags, {digests} manifests deleted by digest, {} blobs deleted, {} uploads cut",
            self.images,
            count("/blobs/"),
            count("/manifests/"),
            count("sha512:"),
            count(OTHER),
            self.written.len(),
            gone("/blobs/"),
            self.cut.len(),
        )
    }

    /// Whether there was something of everything.
    pub(super) fn is_of_every_kind(&self) -> bool {
        let there = |part: &str| self.there.keys().any(|path| path.contains(part));
        let gone = |part: &str| self.gone.iter().any(|path| path.contains(part));
        there(OTHER)
            && there("/blobs/sha512:")
            && there("/manifests/sha512:")
            && gone("/manifests/sha256:")
            && gone("/manifests/e")
            && gone("/blobs/")
            && self.back.iter().any(|path| path.contains("/manifests/sha"))
    }
}
