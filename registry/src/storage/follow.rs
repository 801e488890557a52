//! Following the feed: an answer waits for the first entry, no longer than it may.

use std::sync::Arc;

use channel::feed::FeedPage;
use oci::RepoName;

use super::{
    Error,
    files::Files,
    fs::{Piece, Position},
};

/// Bytes of the feed that are read for one answer without an entry for it.
const MOST_IN_VAIN: u64 = 4 << 20;

impl Files {
    /// At most `n` entries after a cursor, of repositories that `wanted` accepts; without one none, and the present
    /// cursor. Where there is no entry yet it waits for one, until `end`, or until it has read much in vain. None where
    /// the cursor is not known any more.
    pub(super) async fn follow(
        &self,
        after: Option<String>,
        n: usize,
        wanted: impl Fn(&RepoName) -> bool + Send + Sync + 'static,
        end: impl Future<Output = ()>,
    ) -> Result<Option<FeedPage>, Error> {
        let feed = &self.store().feed;
        let Some(after) = after else {
            return Ok(Some(page(feed.present(), Vec::new())));
        };
        let Some(begin) = feed.position(&after) else { return Ok(None) };
        let mut at = begin;
        let mut changes = feed.changes();
        let wanted = Arc::new(wanted);
        tokio::pin!(end);
        loop {
            changes.mark_unchanged();
            let wanted = Arc::clone(&wanted);
            let turn = feed.turn().await;
            let read = self.run(move |store| {
                let _turn = turn;
                store.feed.read(at, n, &*wanted)
            });
            let Some(Piece { entries, next, is_end }) = read.await? else { return Ok(None) };
            at = next;
            if !entries.is_empty() || at.is_beyond(begin, MOST_IN_VAIN) {
                return Ok(Some(page(at, entries)));
            }
            if is_end {
                tokio::select! {
                    // The feed lasts as long as this does.
                    _ = changes.changed() => {}
                    () = &mut end => return Ok(Some(page(at, Vec::new()))),
                }
            }
        }
    }
}

fn page(at: Position, entries: Vec<channel::feed::Entry>) -> FeedPage {
    FeedPage { cursor: at.cursor(), entries }
}

#[cfg(test)]
mod tests {
    use oci::{Algorithm, Digest, Manifest, manifest};

    use super::*;
    use crate::storage::Limits;

    /// Moves a thousand tags of a repository with a long name; its entries take more than half a megabyte.
    fn move_tags(store: &crate::storage::fs::Store, round: usize) {
        let json = format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"round":"{round}"}}}}"#);
        let manifest = Manifest::parse(Some(manifest::INDEX), json.as_bytes()).unwrap();
        let digest = Digest::of(Algorithm::Sha256, json.as_bytes());
        let tags: Vec<_> = (0..1000).map(|n| format!("{n:0>128}").parse().unwrap()).collect();
        let repository = "a".repeat(250).parse().unwrap();
        store.put_manifest(&repository, manifest, &digest, json.as_bytes(), &tags, None).unwrap();
    }

    #[tokio::test]
    async fn an_answer_reads_only_so_much_in_vain() {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let files = Files::open(root.path(), Limits::default()).unwrap();
        let follow = async |after: Option<String>, sees: bool| {
            files.follow(after, 1, move |_| sees, std::future::ready(())).await.unwrap().unwrap()
        };
        let begin = follow(None, false).await.cursor;
        for round in 0..9 {
            move_tags(files.store(), round);
        }
        assert!(files.store().feed.bytes() > MOST_IN_VAIN + 512 * 1024);
        let page = follow(Some(begin), false).await;
        assert_eq!(page.entries, []);
        assert_eq!(follow(Some(page.cursor.clone()), true).await.entries.len(), 1, "there was more");
        let page = follow(Some(page.cursor), false).await;
        assert_eq!(follow(Some(page.cursor), true).await.entries, [], "it went on from there");
    }
}
