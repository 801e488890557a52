//! Collection: the same as in a folder, beside requests of any number of instances and other collections.
//!
//! Content goes in two runs: one says that nobody holds it, another one that comes [`LONGEST`] later, or after the grace
//! time where that is longer, looks again and deletes it. Graves go when they are as old. Memory does not grow with what
//! is there; time grows by a few requests for each blob of a repository and each content.

use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::{ObjectMeta, path::Path};
use oci::{Digest, RepoName};

use super::{
    Objects,
    blobs::Membership,
    bucket::{LEAST_VALUE, LONGEST},
    contents::Content,
    keys,
    sessions::{LEASE, Session},
};
use crate::storage::{
    Collected, Collecting, Deleted, Error, UploadId,
    fs::CollectedKind as Kind,
    walk::{Walk, everything},
};

/// Clients pause between the requests of a session: no grace time is shorter than this.
const LEAST: Duration = Duration::from_secs(600);

struct Run<'a> {
    objects: &'a Objects,
    how: Collecting,
    report: &'a mut dyn FnMut(Collected),
    go_on: &'a mut dyn FnMut() -> bool,
}

impl Objects {
    pub(crate) fn collect(
        &self,
        how: Collecting,
        report: &mut dyn FnMut(Collected),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        self.runtime.block_on(self.collect_here(how, report, go_on))
    }

    pub(super) async fn collect_here(
        &self,
        how: Collecting,
        report: &mut dyn FnMut(Collected),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        let mut run = Run { objects: self, how, report, go_on };
        run.uploads().await?;
        run.repositories().await?;
        run.contents().await
    }
}

impl Run<'_> {
    fn report(&mut self, kind: Kind, key: &Path, bytes: u64) {
        (self.report)(Collected { kind, path: key.to_string(), bytes });
    }

    fn is_past(&self, since: u64, time: Duration) -> bool {
        self.objects.bucket.is_past(since, time)
    }

    /// Takes away what is left of a value that is long buried, and says whether it is: then nothing is there.
    async fn is_grave(&self, found: &ObjectMeta) -> Result<bool, Error> {
        if found.size >= LEAST_VALUE {
            return Ok(false);
        }
        let buried = u64::try_from(found.last_modified.timestamp()).unwrap_or_default();
        if !self.how.dry_run && self.is_past(buried, LONGEST) {
            self.objects.bucket.remove_grave(&found.location).await?;
        }
        Ok(true)
    }

    async fn uploads(&mut self) -> Result<(), Error> {
        let mut found = self.objects.bucket.list(&keys::UPLOADS.into());
        while let Some(found) = found.try_next().await? {
            if !(self.go_on)() {
                return Ok(());
            }
            let Some((id, name)) = keys::parse_entry(&found.location) else { continue };
            let (Ok(id), is_session) = (id.parse::<UploadId>(), name == "session") else { continue };
            if is_session {
                self.session(id, &found).await?;
            } else if !self.how.dry_run
                && self.objects.bucket.read(&keys::session(id)).await?.content.is_none()
            {
                // Sessions never come back.
                self.objects.bucket.forget([found.location]).await;
            }
        }
        Ok(())
    }

    async fn session(&mut self, id: UploadId, found: &ObjectMeta) -> Result<(), Error> {
        let objects = self.objects;
        let slot = objects.bucket.read(&found.location).await?;
        let Some(session) = slot.json::<Session>()? else {
            let buried = u64::try_from(found.last_modified.timestamp()).unwrap_or_default();
            if !self.how.dry_run && self.is_past(buried, LONGEST) {
                // What a request that was under way then wrote after all.
                objects.clean_up(id, None).await?;
                objects.bucket.delete(&found.location).await?;
            }
            return Ok(());
        };
        let lease_ended = session.lease.as_ref().is_none_or(|lease| self.is_past(lease.until, LONGEST));
        let grace = if session.finishing.is_some() { LONGEST + LEASE } else { self.how.grace.max(LEAST) };
        if !lease_ended || !self.is_past(session.touched, grace) {
            return Ok(());
        }
        if let Some(digest) = &session.finishing
            && self.stands_for(id, digest).await?
        {
            if self.how.dry_run {
                return Ok(());
            }
            objects.forget_tails(id).await?;
            return objects.bucket.delete(&found.location).await;
        }
        if !self.how.dry_run {
            if !objects.bucket.bury(&slot).await? {
                return Ok(());
            }
            objects.clean_up(id, Some(&session)).await?;
        }
        self.report(Kind::Upload, &keys::upload(id), session.received);
        Ok(())
    }

    /// Whether a session's data is what has the content of a digest, or is known there to have to go.
    async fn stands_for(&self, id: UploadId, digest: &Digest) -> Result<bool, Error> {
        let content = self.objects.bucket.read(&keys::content(digest)).await?.json::<Content>()?;
        let id = id.to_string();
        Ok(content.is_some_and(|content| {
            content.data.is_some_and(|data| data.id == id)
                || content.former.contains(&id)
                || content.damaged.contains(&id)
        }))
    }

    async fn repositories(&mut self) -> Result<(), Error> {
        let mut walk = Walk::after(None);
        while let Some(repository) = walk.next_in(self.objects, everything).await? {
            for part in ["_manifests", "_tags"] {
                let mut found = self.objects.bucket.list(&keys::within(&repository, part));
                while let Some(found) = found.try_next().await? {
                    if !(self.go_on)() {
                        return Ok(());
                    }
                    self.is_grave(&found).await?;
                }
            }
            let mut blobs = self.objects.bucket.list(&keys::within(&repository, "_blobs"));
            while let Some(found) = blobs.try_next().await? {
                if !(self.go_on)() {
                    return Ok(());
                }
                if !self.is_grave(&found).await?
                    && let Some(digest) = keys::digest_of(&found.location)
                {
                    self.blob(&repository, &digest).await?;
                }
            }
        }
        Ok(())
    }

    async fn blob(&mut self, repository: &RepoName, digest: &Digest) -> Result<(), Error> {
        let (objects, how) = (self.objects, self.how);
        let key = keys::blob(repository, digest);
        let may_go = |membership: &Membership| objects.bucket.is_past(membership.touched, how.grace);
        // A look costs less than a word that is taken back.
        let membership = objects.bucket.read(&key).await?.json::<Membership>()?;
        let would_go = membership.is_some_and(|membership| may_go(&membership))
            && objects.needed_by(repository, digest).await?.is_none();
        let went =
            would_go && (how.dry_run || objects.leave(repository, digest, may_go).await? == Deleted::Done);
        if went {
            self.report(Kind::Blob, &key, 0);
        }
        Ok(())
    }

    async fn contents(&mut self) -> Result<(), Error> {
        let mut found = self.objects.bucket.list(&keys::CONTENTS.into());
        while let Some(found) = found.try_next().await? {
            if !(self.go_on)() {
                return Ok(());
            }
            if !self.is_grave(&found).await?
                && let Some(digest) = keys::digest_of(&found.location)
            {
                self.content(&digest).await?;
            }
        }
        Ok(())
    }

    async fn content(&mut self, digest: &Digest) -> Result<(), Error> {
        let bucket = &self.objects.bucket;
        let key = keys::content(digest);
        let slot = bucket.read(&key).await?;
        let Some(content) = slot.json::<Content>()? else { return Ok(()) };
        let is_held = self.is_held(digest).await?;
        let wait = self.how.grace.max(LONGEST);
        let bytes = content.data.as_ref().map_or(0, |data| data.size);
        match (is_held, content.unheld_since) {
            (true, None) if content.former.is_empty() => {}
            // Nothing but what was found damaged: it stays for whoever wants to know why.
            (false, None) if content.data.is_none() && !content.damaged.is_empty() => {}
            (false, None) if !self.is_past(content.touched, self.how.grace) => {}
            (false, Some(since)) if self.is_past(since, wait) => {
                if !self.how.dry_run {
                    let former = content.data.iter().map(|data| data.id.clone()).chain(content.former);
                    let going = Content { data: None, former: former.collect(), ..content };
                    let Some(gone) = bucket.swap_json(&slot, &going).await? else { return Ok(()) };
                    for id in &going.former {
                        bucket.delete(&keys::data(id)).await?;
                    }
                    if going.damaged.is_empty() {
                        bucket.bury(gone.slot()).await?;
                    } else {
                        let kept = Content { former: Vec::new(), unheld_since: None, ..going };
                        bucket.swap_json(gone.slot(), &kept).await?;
                    }
                }
                self.report(Kind::Content, &key, bytes);
            }
            _ if self.how.dry_run => {}
            _ => {
                for id in &content.former {
                    bucket.delete(&keys::data(id)).await?;
                }
                let unheld_since = content.unheld_since.filter(|_| !is_held);
                let unheld_since =
                    if is_held { None } else { unheld_since.or_else(|| Some(bucket.clock.now())) };
                let marked = Content { unheld_since, former: Vec::new(), ..content.clone() };
                if marked != content {
                    // Whoever was faster knows better.
                    bucket.swap_json(&slot, &marked).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether a repository has the content as a blob, or is about to. Entries of which neither is true go.
    async fn is_held(&self, digest: &Digest) -> Result<bool, Error> {
        let holders = keys::holders(digest);
        let mut entries = self.objects.bucket.list(&holders);
        while let Some(entry) = entries.try_next().await? {
            let Some((repository, nonce)) = keys::parse_holder(&holders, &entry.location) else { continue };
            // Once an entry is stale it is known for good whether it is true.
            if self.objects.is_holder(&repository, digest, &nonce).await?
                || !self.objects.bucket.is_stale(&entry.location).await?
                || self.objects.is_holder(&repository, digest, &nonce).await?
            {
                return Ok(true);
            }
            if !self.how.dry_run {
                self.objects.bucket.forget([entry.location]).await;
            }
        }
        Ok(false)
    }
}
