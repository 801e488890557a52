//! Who refers to a manifest: one entry each, written with every push of a manifest that has a subject. Where there are many
//! they are kept in order, so that a page costs what it holds.
//!
//! What clients listed under a fallback tag is in here without looking at the tag: a manifest of the repository that
//! really has this subject got its entry when it was pushed.

use oci::{Descriptor, Digest, RepoName};

use super::{Store, layout};
use crate::storage::{Error, ReferrersPage, model::weigh};

/// Entries looked at for one page, which is shorter, or empty, where a filter wants none of them.
const LOOKS: usize = 2000;

impl Store {
    /// Descriptors of manifests whose subject is `subject`, sorted by digest, after `last`: at most `n`, with
    /// annotations of at most `weight` bytes but for a single one, and perhaps fewer although there are more.
    pub(crate) fn referrers(
        &self,
        repository: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        (n, weight): (usize, usize),
    ) -> Result<ReferrersPage, Error> {
        let folder = self.layout.repository(repository).referrers(subject);
        let last_name = last.map(layout::as_name);
        let (mut names, more) =
            self.steady_page(&folder, last_name.as_deref(), LOOKS, |name, names| names.push(name))?;
        let more = more || names.len() > LOOKS;
        names.truncate(LOOKS);
        let mut page = ReferrersPage::default();
        let mut carried = 0;
        let mut seen = last.cloned();
        for digest in names.iter().filter_map(|name| layout::as_digest(name)) {
            if let Some(descriptor) = self.descriptor(repository, &digest)?
                && artifact_type.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted))
            {
                carried += weigh(&descriptor);
                if page.manifests.len() >= n || (carried > weight && !page.manifests.is_empty()) {
                    page.more_after = seen;
                    return Ok(page);
                }
                page.manifests.push(descriptor);
            }
            seen = Some(digest);
        }
        page.more_after = seen.filter(|_| more);
        Ok(page)
    }

    fn descriptor(&self, repository: &RepoName, digest: &Digest) -> Result<Option<Descriptor>, Error> {
        let record = self.unless_damaged(self.record(repository, digest))?;
        Ok(record.map(|record| Descriptor {
            media_type: record.media_type,
            digest: digest.clone(),
            size: record.size,
            artifact_type: record.artifact_type,
            annotations: record.annotations,
        }))
    }
}
