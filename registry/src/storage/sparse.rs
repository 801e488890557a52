//! Manifests that come before, or without, what they name.

use clap::ValueEnum;
use oci::{Digest, Manifest};

/// What may be pushed although some of it is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sparse {
    /// Nothing: what is there can be pulled whole.
    #[default]
    Nothing,
    /// Indexes without some of their manifests, but only as copies: where a few platforms of what another registry has
    /// whole are mirrored by `berth-registry replicate`.
    CopiedIndexes,
    /// The same from whoever pushes.
    Indexes,
    /// Images without some of their blobs, too.
    All,
}

impl Sparse {
    /// Whether a manifest may be stored while this is missing. A copy is what keeps another registry's stamp, or was taken
    /// before.
    pub(super) fn allows(self, manifest: &Manifest, missing: &[Digest], is_copy: bool) -> bool {
        match self {
            _ if missing.is_empty() => true,
            Self::Nothing => false,
            Self::CopiedIndexes => manifest.blobs.is_empty() && is_copy,
            Self::Indexes => manifest.blobs.is_empty(),
            Self::All => true,
        }
    }
}
