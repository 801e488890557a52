//! A blob that is open for reading: its bytes stay readable whatever happens to its name.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;
use futures::Stream;

/// Read at once, and so held in memory for each reader.
const PIECE: u64 = 256 << 10;

/// An open blob, of the size that it should have.
#[derive(Debug)]
pub(crate) struct Blob {
    file: Arc<File>,
    size: u64,
}

impl Blob {
    pub(super) fn new(file: File, size: u64) -> Self {
        Self { file: Arc::new(file), size }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes from `first`, `length` of them. Ends with an error where the file turns out shorter.
    pub(crate) fn read(
        self,
        first: u64,
        length: u64,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let end = first + length;
        futures::stream::try_unfold((self.file, first), move |(file, offset)| async move {
            if offset >= end {
                return Ok(None);
            }
            let length = usize::try_from(PIECE.min(end - offset)).map_err(io::Error::other)?;
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; length];
                file.read_exact_at(&mut piece, offset).map(|()| (file, piece))
            });
            let (file, piece) = read.await.map_err(io::Error::other)??;
            Ok(Some((Bytes::from(piece), (file, offset + length as u64))))
        })
    }
}
