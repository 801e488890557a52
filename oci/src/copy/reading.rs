//! A blob as it comes from the source, verified on the way. The last piece is given out only once everything has the
//! right digest. It can go back to where the target wants it again.

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
    hasher: Hasher,
    /// Bytes that the hasher has.
    position: u64,
    /// Where the target wants the next byte from.
    wanted: u64,
    /// Hashers at earlier positions, the first one at 0.
    marks: Vec<(u64, Hasher)>,
    /// The latest piece.
    held: Option<Bytes>,
    /// What may be given out, and waits for its time.
    ready: Bytes,
    pace: Option<Arc<Pace>>,
}

impl Reading {
    pub(super) fn new(
        source: &Client,
        repository: &RepoName,
        blob: &Descriptor,
        pace: Option<Arc<Pace>>,
    ) -> Self {
        let (digest, size) = (&blob.digest, blob.size);
        let hasher = Hasher::new(digest.algorithm());
        Self {
            source: source.clone(),
            repository: repository.clone(),
            digest: digest.clone(),
            size,
            download: source.download(repository, digest, size, 0),
            marks: vec![(0, hasher.clone())],
            hasher,
            position: 0,
            wanted: 0,
            held: None,
            ready: Bytes::new(),
            pace,
        }
    }

    /// Goes on from this byte, which lies behind, or where it is.
    pub(super) fn rewind(&mut self, to: u64) {
        (self.held, self.ready) = (None, Bytes::new());
        self.wanted = to;
        let mark = self.marks.iter().rev().find(|(at, _)| *at <= to);
        if let Some((at, hasher)) = mark {
            (self.position, self.hasher) = (*at, hasher.clone());
        }
        let position = self.position;
        self.marks.retain(|(at, _)| *at <= position);
        self.download = self.source.download(&self.repository, &self.digest, self.size, position);
    }

    /// The next piece that the target wants; none after the last one, and then all was right.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if !self.ready.is_empty() {
                return Ok(Some(self.paced().await));
            }
            let Some(piece) = self.download.next().await.map_err(Error::Source)? else {
                self.verify()?;
                let Some(last) = self.held.take() else { return Ok(None) };
                self.ready = last;
                continue;
            };
            let before = self.position;
            self.take_in(&piece);
            let skipped = usize::try_from(self.wanted.saturating_sub(before)).unwrap_or(usize::MAX);
            let piece = piece.slice(skipped.min(piece.len())..);
            if piece.is_empty() {
                continue;
            }
            self.ready = self.held.replace(piece).unwrap_or_default();
        }
    }

    fn take_in(&mut self, piece: &Bytes) {
        self.hasher.update(piece);
        self.position += piece.len() as u64;
        if self.marks.last().is_none_or(|(at, _)| self.position - at >= STRIDE) {
            self.marks.push((self.position, self.hasher.clone()));
        }
    }

    fn verify(&self) -> Result<(), Error> {
        let actual = self.hasher.clone().finish();
        let digest = self.digest.clone();
        if actual == digest { Ok(()) } else { Err(Error::Corrupt { digest, actual }) }
    }

    /// As much of what is ready as may go at once.
    async fn paced(&mut self) -> Bytes {
        let Some(pace) = &self.pace else { return std::mem::take(&mut self.ready) };
        let piece = self.ready.split_to(pace.piece().min(self.ready.len()));
        pace.take(piece.len()).await;
        piece
    }
}
