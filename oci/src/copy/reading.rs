//! A blob as it comes from the source. Where the target would not find out by itself what is damaged, it is verified on the
//! way: then the last piece is given out only once everything has the right digest. It can go back to where the target wants
//! it again.

use std::sync::Arc;

use bytes::Bytes;

use super::{Error, pace::Pace};
use crate::{
    Descriptor, Digest, Hasher, RepoName,
    client::{Client, Download},
};

/// How far apart it can be taken up again; what lies between is read twice.
const STRIDE: u64 = 8 << 20;

pub(super) struct Reading {
    source: Client,
    repository: RepoName,
    digest: Digest,
    size: u64,
    download: Download,
    /// None where that is for the target.
    check: Option<Check>,
    /// What may be given out, and waits for its time.
    ready: Bytes,
    pace: Option<Arc<Pace>>,
}

/// Finds out whether everything is right.
struct Check {
    hasher: Hasher,
    /// Bytes that the hasher has.
    position: u64,
    /// Where the target wants the next byte from.
    wanted: u64,
    /// Hashers at earlier positions, the first one at 0.
    marks: Vec<(u64, Hasher)>,
    /// The latest piece.
    held: Option<Bytes>,
}

impl Reading {
    pub(super) fn new(
        source: &Client,
        repository: &RepoName,
        blob: &Descriptor,
        pace: Option<Arc<Pace>>,
    ) -> Self {
        let (digest, size) = (&blob.digest, blob.size);
        Self {
            source: source.clone(),
            repository: repository.clone(),
            digest: digest.clone(),
            size,
            download: source.download(repository, digest, size, 0),
            check: None,
            ready: Bytes::new(),
            pace,
        }
    }

    /// Begins anew, and verifies what comes.
    pub(super) fn verify(&mut self) {
        self.check = Some(Check::new(&self.digest));
        self.rewind(0);
    }

    pub(super) fn is_verified(&self) -> bool {
        self.check.is_some()
    }

    /// Goes on from this byte, which lies behind, or where it is.
    pub(super) fn rewind(&mut self, to: u64) {
        self.ready = Bytes::new();
        let from = self.check.as_mut().map_or(to, |check| check.rewind(to));
        self.download = self.source.download(&self.repository, &self.digest, self.size, from);
    }

    /// The next piece that the target wants; none after the last one, and then all was right, where that was looked at.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.ready.is_empty() {
            let piece = self.download.next().await.map_err(Error::Source)?;
            let ready = match (&mut self.check, piece) {
                (None, piece) => piece,
                (Some(check), Some(piece)) => Some(check.take(&piece)),
                (Some(check), None) => check.last(&self.digest)?,
            };
            let Some(ready) = ready else { return Ok(None) };
            self.ready = ready;
        }
        Ok(Some(self.paced().await))
    }

    /// As much of what is ready as may go at once.
    async fn paced(&mut self) -> Bytes {
        let Some(pace) = &self.pace else { return std::mem::take(&mut self.ready) };
        let piece = self.ready.split_to(pace.piece().min(self.ready.len()));
        pace.take(piece.len()).await;
        piece
    }
}

impl Check {
    fn new(digest: &Digest) -> Self {
        let hasher = Hasher::new(digest.algorithm());
        Self { marks: vec![(0, hasher.clone())], hasher, position: 0, wanted: 0, held: None }
    }

    /// From where it has to be read again, so that the target gets all from `to` on.
    fn rewind(&mut self, to: u64) -> u64 {
        self.held = None;
        self.wanted = to;
        let mark = self.marks.iter().rev().find(|(at, _)| *at <= to);
        if let Some((at, hasher)) = mark {
            (self.position, self.hasher) = (*at, hasher.clone());
        }
        let position = self.position;
        self.marks.retain(|(at, _)| *at <= position);
        position
    }

    /// Takes a piece in; gives out what came before it, as far as that is wanted.
    fn take(&mut self, piece: &Bytes) -> Bytes {
        let skipped = usize::try_from(self.wanted.saturating_sub(self.position)).unwrap_or(usize::MAX);
        self.hasher.update(piece);
        self.position += piece.len() as u64;
        if self.marks.last().is_none_or(|(at, _)| self.position - at >= STRIDE) {
            self.marks.push((self.position, self.hasher.clone()));
        }
        let piece = piece.slice(skipped.min(piece.len())..);
        if piece.is_empty() { piece } else { self.held.replace(piece).unwrap_or_default() }
    }

    /// The last piece, if everything was right; none where it was given out.
    fn last(&mut self, digest: &Digest) -> Result<Option<Bytes>, Error> {
        let actual = self.hasher.clone().finish();
        if actual == *digest {
            Ok(self.held.take())
        } else {
            Err(Error::Corrupt { digest: digest.clone(), actual })
        }
    }
}
