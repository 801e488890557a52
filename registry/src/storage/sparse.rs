//! Manifests that come before, or without, what they name.

use clap::ValueEnum;
use oci::{Digest, Manifest};

/// What may be pushed although some of it is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sparse {
    /// Nothing: what is there can be pulled whole.
    #[default]
    Nothing,
    /// Indexes without some of their manifests, as when only a few platforms are mirrored.
    Indexes,
    /// Images without some of their blobs, too.
    All,
}

impl Sparse {
    /// Whether a manifest may be stored while this is missing.
    pub(super) fn allows(self, manifest: &Manifest, missing: &[Digest]) -> bool {
        match self {
            _ if missing.is_empty() => true,
            Self::Nothing => false,
            Self::Indexes => manifest.blobs.is_empty(),
            Self::All => true,
        }
    }
}
