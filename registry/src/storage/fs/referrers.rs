//! Who refers to a manifest: one entry each, written with every push of a manifest that has a subject.
//!
//! What clients listed under a fallback tag is in here without looking at the tag: a manifest of the repository that
//! really has this subject got its entry when it was pushed.

use oci::{Descriptor, Digest, RepoName};

use super::{Store, folder, layout};
use crate::storage::{Error, ReferrersPage, model::weigh};

/// Entries looked at in one step.
const STEP: usize = 100;

impl Store {
    /// Descriptors of manifests whose subject is `subject`, sorted by digest, after `last`, until they are `n` or
    /// their annotations weigh more than `weight` bytes.
    pub(crate) fn referrers(
        &self,
        repository: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        (n, weight): (usize, usize),
    ) -> Result<ReferrersPage, Error> {
        let folder = self.layout.repository(repository).referrers(subject);
        let mut page = ReferrersPage::default();
        let mut last = last.map(layout::as_name);
        let mut carried = 0;
        loop {
            let (names, more) = folder::page(&folder, last.as_deref(), STEP)?;
            for name in &names {
                let Some(digest) = layout::as_digest(name) else {
                    continue;
                };
                let Some(descriptor) = self.descriptor(repository, &digest)? else {
                    continue;
                };
                if artifact_type.is_some_and(|wanted| descriptor.artifact_type.as_deref() != Some(wanted)) {
                    continue;
                }
                if page.manifests.len() >= n || carried > weight {
                    page.more_after = last.as_deref().and_then(layout::as_digest);
                    return Ok(page);
                }
                carried += weigh(&descriptor);
                page.manifests.push(descriptor);
                last = Some(name.clone());
            }
            if !more {
                return Ok(page);
            }
            last = names.last().cloned();
        }
    }

    fn descriptor(&self, repository: &RepoName, digest: &Digest) -> Result<Option<Descriptor>, Error> {
        let record = self.record(repository, digest)?;
        Ok(record.map(|record| Descriptor {
            media_type: record.media_type,
            digest: digest.clone(),
            size: record.size,
            artifact_type: record.artifact_type,
            annotations: record.annotations,
        }))
    }
}
