//! A blob that is read from the bucket while it is sent.
//!
//! The first time that this instance serves it whole, it is compared with its digest meanwhile, and its last bytes are
//! held back until that is done. From then on it is trusted: what lies under its key never changes.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use object_store::{GetOptions, GetRange, ObjectStore as _};
use oci::{Digest, Hasher};

use super::{Objects, contents::Data, keys};

/// Data of a blob that was there, of the size that it should have.
#[derive(Debug)]
pub(crate) struct OpenObject {
    objects: Objects,
    digest: Digest,
    data: Data,
}

impl OpenObject {
    pub(super) fn new(objects: Objects, digest: Digest, data: Data) -> Arc<Self> {
        Arc::new(Self { objects, digest, data })
    }

    pub(in crate::storage) fn size(&self) -> u64 {
        self.data.size
    }

    /// The bytes from `first`, `length` of them, or an error before the last of them.
    pub(in crate::storage) fn stream(
        self: Arc<Self>,
        first: u64,
        length: u64,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send {
        let is_whole = length == self.data.size;
        let hasher = (is_whole && !self.objects.is_trusted(&self.digest, &self.data))
            .then(|| Hasher::new(self.digest.algorithm()));
        let start =
            Reading { blob: self, pieces: None, held: None, hasher, offset: first, end: first + length };
        futures::stream::try_unfold(start, Reading::next)
    }
}

struct Reading {
    blob: Arc<OpenObject>,
    pieces: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    /// Read, and not yet handed out.
    held: Option<Bytes>,
    /// While it is being compared.
    hasher: Option<Hasher>,
    offset: u64,
    end: u64,
}

impl Reading {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let pieces = match &mut self.pieces {
            Some(pieces) => pieces,
            None => self.pieces.insert(self.blob.get(self.offset, self.end).await?),
        };
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(io::Error::other)?;
            self.offset += piece.len() as u64;
            if self.offset > self.end {
                return Err(io::Error::other("the bucket sent more than it was asked for"));
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&piece);
            }
            if let Some(held) = self.held.replace(piece).filter(|held| !held.is_empty()) {
                return Ok(Some((held, self)));
            }
        }
        if self.offset < self.end {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the bucket sent less than it should"));
        }
        if let Some(hasher) = self.hasher.take() {
            self.blob.judge(hasher).await?;
        }
        Ok(self.held.take().filter(|held| !held.is_empty()).map(|held| (held, self)))
    }
}

impl OpenObject {
    async fn get(&self, first: u64, end: u64) -> io::Result<BoxStream<'static, object_store::Result<Bytes>>> {
        let range = Some(GetRange::Bounded(first..end));
        let options = GetOptions { range, ..GetOptions::default() };
        let key = keys::data(&self.data.id);
        let found = self.objects.bucket.store.get_opts(&key, options).await.map_err(io::Error::other)?;
        if found.meta.size == self.data.size {
            return Ok(found.into_stream());
        }
        self.objects.is_damaged(&self.digest, &self.data).await;
        Err(io::Error::other("the object has another size than a moment ago"))
    }

    async fn judge(&self, hasher: Hasher) -> io::Result<()> {
        if hasher.finish() == self.digest {
            self.objects.trust(&self.digest, &self.data);
            return Ok(());
        }
        tracing::error!(digest = %self.digest, data = self.data.id, "content does not match its digest");
        self.objects.is_damaged(&self.digest, &self.data).await;
        Err(io::Error::other("the content does not match its digest"))
    }
}
