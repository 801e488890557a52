//! A blob that is open for reading: its bytes stay readable whatever happens to its name.
//!
//! Guarantees:
//! - The first time since the start that a file is served whole, it is compared with its digest meanwhile; its last
//!   bytes are held back until that is done, and where it does not match they are never sent. From then on it is
//!   trusted while its inode, size and times stay.
//! - A body ends with an error where the file turns out shorter.

use std::{
    fs::{File, Metadata},
    io::{self, IoSliceMut},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use oci::{Digest, Hasher};
use rustix::{fs::Advice, io::ReadWriteFlags};

use super::{fs::Store, objects::OpenObject};
use crate::sendfile::{self, FileQueue};

/// Read at once, and so held in memory for each reader.
const PIECE: usize = 256 << 10;
/// The same where there are many readers.
const SMALL_PIECE: usize = 64 << 10;
const MANY: usize = 16;
/// And where there are so many that most of them must be waiting for their clients.
const SMALLEST_PIECE: usize = 16 << 10;
const CROWD: usize = 256;
/// Buffers kept for the next reader.
const SPARE: usize = 8;
/// Read from the disk ahead of sending.
const AHEAD: u64 = 4 << 20;

/// An open blob, of the size that it should have.
#[derive(Debug)]
pub(crate) struct Blob {
    content: Content,
    size: u64,
}

#[derive(Debug)]
enum Content {
    Held(Bytes),
    File(Arc<OpenFile>),
    Object(Arc<OpenObject>),
}

/// A blob's file, with what it was when it was opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    digest: Digest,
    stamp: Stamp,
    is_trusted: AtomicBool,
    /// Which itself remembers open files.
    store: Weak<Store>,
}

/// Changes with everything that is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl sendfile::Source for OpenFile {
    fn file(&self) -> &File {
        &self.file
    }
}

impl OpenFile {
    pub(super) fn new(file: File, digest: Digest, store: &Arc<Store>) -> io::Result<Self> {
        let stamp = Stamp::from(&file.metadata()?);
        let is_trusted = AtomicBool::new(store.cache.is_trusted(&(&digest, stamp)));
        Ok(Self { file, digest, stamp, is_trusted, store: Arc::downgrade(store) })
    }

    /// Whether it is still what it was: also when it lost its name it is not.
    pub(super) fn is_as_it_was(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| Stamp::from(&metadata) == self.stamp)
    }

    /// Blocks, where it must.
    fn judge(&self, hasher: Hasher) -> io::Result<()> {
        let store = self.store.upgrade();
        if hasher.finish() == self.digest {
            if let Some(store) = store {
                store.cache.trust(&(&self.digest, self.stamp));
            }
            self.is_trusted.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if let Some(store) = store {
            store.is_damaged(&self.digest, &self.file);
        }
        Err(io::Error::other("the content does not match its digest"))
    }
}

impl Blob {
    pub(super) fn held(bytes: Bytes) -> Self {
        Self { size: bytes.len() as u64, content: Content::Held(bytes) }
    }

    pub(super) fn file(file: Arc<OpenFile>) -> Self {
        Self { size: file.stamp.size, content: Content::File(file) }
    }

    pub(super) fn object(object: Arc<OpenObject>) -> Self {
        Self { size: object.size(), content: Content::Object(object) }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes from `first`, `length` of them, over a connection that may be able to send files.
    pub(crate) fn into_body(self, first: u64, length: u64, files: Option<FileQueue>) -> Body {
        match (self.content, files) {
            (Content::Held(bytes), _) => {
                let range = usize::try_from(first).and_then(|first| {
                    let length = usize::try_from(length)?;
                    Ok(first..first + length)
                });
                range.map_or_else(|_| Body::empty(), |range| Body::from(bytes.slice(range)))
            }
            (Content::Object(object), _) => Body::from_stream(object.stream(first, length)),
            (Content::File(file), _) if length == self.size && !file.is_trusted.load(Ordering::Relaxed) => {
                Body::from_stream(compare(file))
            }
            (Content::File(file), Some(files)) if length >= sendfile::SMALLEST => {
                Body::from_stream(send(file, first, length, files))
            }
            (Content::File(file), _) => Body::from_stream(read(file, first, length)),
        }
    }
}

/// Announces the file to the connection.
fn send(
    file: Arc<OpenFile>,
    first: u64,
    length: u64,
    files: FileQueue,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let end = first + length;
    futures::stream::try_unfold((file, files, first), move |(file, files, offset)| async move {
        if offset >= end {
            return Ok(None);
        }
        let length = piece(sendfile::PIECE, offset, end);
        let file = warm(file, offset, length).await?;
        let placeholder = files.announce(Arc::clone(&file) as Arc<dyn sendfile::Source>, offset, length);
        Ok::<_, io::Error>(Some((placeholder, (file, files, offset + length as u64))))
    })
}

/// Waits for the disk here rather than in the connection, where others would wait too.
async fn warm(file: Arc<OpenFile>, offset: u64, length: usize) -> io::Result<Arc<OpenFile>> {
    let last = offset + length as u64 - 1;
    if at_once(&file.file, &mut [0], offset) != Some(1) || at_once(&file.file, &mut [0], last) != Some(1) {
        let mut buffer = Buffer::take();
        blocking(move || {
            // Advice that is not taken costs nothing but time.
            let _ = rustix::fs::fadvise(&file.file, offset, AHEAD.try_into().ok(), Advice::WillNeed);
            let mut offset = offset;
            while offset <= last {
                let part = piece(buffer.len(), offset, last + 1);
                file.file.read_exact_at(&mut buffer.as_mut()[..part], offset)?;
                offset += part as u64;
            }
            Ok(file)
        })
        .await
    } else {
        Ok(file)
    }
}

/// Reads the file into memory, a piece at a time.
fn read(file: Arc<OpenFile>, first: u64, length: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let end = first + length;
    futures::stream::try_unfold((file, first), move |(file, offset)| async move {
        if offset >= end {
            return Ok(None);
        }
        let mut buffer = Buffer::take();
        let length = piece(buffer.len(), offset, end);
        // What is in memory is copied faster than another thread is woken.
        let hot = at_once(&file.file, &mut buffer.as_mut()[..length], offset).unwrap_or_default();
        let (file, buffer) = if hot == length {
            (file, buffer)
        } else {
            blocking(move || {
                file.file.read_exact_at(&mut buffer.as_mut()[hot..length], offset + hot as u64)?;
                Ok((file, buffer))
            })
            .await?
        };
        Ok::<_, io::Error>(Some((buffer.freeze(length), (file, offset + length as u64))))
    })
}

/// Reads the whole file and compares it with its digest before the last piece is handed out.
fn compare(file: Arc<OpenFile>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let end = file.stamp.size;
    let hasher = Hasher::new(file.digest.algorithm());
    futures::stream::try_unfold((file, hasher, 0), move |(file, mut hasher, offset)| async move {
        if offset >= end {
            return Ok(None);
        }
        // Taken here: of the threads that may block there are many, and each keeps memory of its own.
        let mut buffer = Buffer::take();
        let step = blocking(move || {
            let length = piece(buffer.len(), offset, end);
            let bytes = &mut buffer.as_mut()[..length];
            file.file.read_exact_at(bytes, offset)?;
            hasher.update(bytes);
            let offset = offset + length as u64;
            if offset == end {
                file.judge(hasher.clone())?;
            }
            Ok((buffer.freeze(length), (file, hasher, offset)))
        });
        step.await.map(Some)
    })
}

/// As many bytes as come before `end`, at most `most`.
fn piece(most: usize, offset: u64, end: u64) -> usize {
    usize::try_from(end - offset).map_or(most, |left| left.min(most))
}

/// What is in memory, without waiting for a disk; none where nothing is or this can't be known.
fn at_once(file: &File, buffer: &mut [u8], offset: u64) -> Option<usize> {
    rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT).ok()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Memory for one piece, used again and again.
struct Buffer(Box<[u8]>);

static SPARES: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());
static IN_USE: AtomicUsize = AtomicUsize::new(0);

impl Buffer {
    fn take() -> Self {
        match IN_USE.fetch_add(1, Ordering::Relaxed) {
            ..MANY => {}
            MANY..CROWD => return Self(vec![0; SMALL_PIECE].into()),
            CROWD.. => return Self(vec![0; SMALLEST_PIECE].into()),
        }
        let spare = SPARES.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(spare.unwrap_or_else(|| vec![0; PIECE].into()))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The first bytes; the buffer is free again when they are.
    fn freeze(self, length: usize) -> Bytes {
        Bytes::from_owner(self).slice(..length)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        IN_USE.fetch_sub(1, Ordering::Relaxed);
        let mut spares = SPARES.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.len() == PIECE && spares.len() < SPARE {
            spares.push(std::mem::take(&mut self.0));
        }
    }
}
