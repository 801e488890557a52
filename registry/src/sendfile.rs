//! Files that go from the disk's cache to the network without passing through this program.
//!
//! A body can't give hyper a file. It gives placeholders instead: bytes of one static array, as many as the file's,
//! and puts the file itself into its connection's queue. hyper queues the placeholders and hands them to the
//! connection's [`Socket`](crate::serve::Socket), which knows them by their address and calls `sendfile(2)` for what
//! is first in the queue. Nothing is mapped, so that a file which gets shorter or can't be read breaks a connection
//! and never the process.
//!
//! Guarantees:
//! - Placeholders never reach a client. Were they ever copied, they would no longer be recognized, but what is left
//!   in the queue then breaks the connection before they are sent.
//! - As many bytes are sent as were announced, or the connection breaks.
//!
//! Assumptions: HTTP/1.1 in the clear, where bodies are sent one after the other; the socket says that it writes
//! vectored, so that hyper does not copy small pieces together.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt as _,
    },
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rustix::{io::Errno, net::SendFlags};

/// Largest piece of a file that a body can announce at once.
pub(crate) const PIECE: usize = 1 << 20;
/// Smallest piece but the last. Nothing else that is written while files wait is as large: only headers are.
pub(crate) const SMALLEST: u64 = 64 << 10;

/// At once, where files have to be copied.
const COPIED: usize = 64 << 10;

/// Never written to and never read, so it takes up no memory.
static PLACEHOLDER: [u8; PIECE] = [0; PIECE];

/// The files that one connection is about to send. Clones are the same queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileQueue(Arc<Mutex<VecDeque<Piece>>>);

#[derive(Debug)]
struct Piece {
    file: Arc<dyn Source>,
    offset: u64,
    left: usize,
}

/// What holds an open file.
pub(crate) trait Source: std::fmt::Debug + Send + Sync {
    fn file(&self) -> &File;
}

/// What is to be done with bytes that hyper wants to write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// They are themselves.
    Bytes,
    /// They stand for the file that is first in the queue.
    File,
}

impl FileQueue {
    /// Puts a piece of a file, at most [`PIECE`] bytes, into the queue. The body must hand on exactly these bytes.
    pub(crate) fn announce(&self, file: Arc<dyn Source>, offset: u64, length: usize) -> Bytes {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(Piece { file, offset, left: length });
        Bytes::from_static(&PLACEHOLDER[..length.min(PIECE)])
    }

    /// What these bytes are. Fails where placeholders must have been copied.
    pub(crate) fn look_at(&self, bytes: &[u8]) -> io::Result<Write> {
        if is_placeholder(bytes) {
            return Ok(Write::File);
        }
        if bytes.len() as u64 >= SMALLEST && !self.is_empty() {
            return Err(io::Error::other("placeholders of a file were copied"));
        }
        Ok(Write::Bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Sends of what is first in the queue to a socket that does not block, at most `length` bytes.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>, length: usize) -> io::Result<usize> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = queue.front_mut().ok_or_else(|| io::Error::other("placeholders without a file"))?;
        let length = length.min(piece.left);
        let file = piece.file.file();
        let sent = match rustix::fs::sendfile(socket, file.as_fd(), Some(&mut piece.offset), length) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                copy(socket, file, &mut piece.offset, length)?
            }
            sent => sent?,
        };
        if sent == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
        }
        piece.left -= sent;
        if piece.left == 0 {
            queue.pop_front();
        }
        Ok(sent)
    }
}

/// What `sendfile` does, for file systems that can't: sends less only where the socket takes no more.
fn copy(socket: BorrowedFd<'_>, file: &File, offset: &mut u64, length: usize) -> io::Result<usize> {
    let mut buffer = vec![0; length.min(COPIED)];
    let mut copied = 0;
    while copied < length {
        let most = buffer.len().min(length - copied);
        let read = file.read_at(&mut buffer[..most], *offset)?;
        if read == 0 {
            break;
        }
        match rustix::net::send(socket, &buffer[..read], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => {
                *offset += sent as u64;
                copied += sent;
                if sent < read {
                    break;
                }
            }
            Err(Errno::AGAIN) if copied > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(copied)
}

/// By address, whatever the bytes are.
pub(crate) fn is_placeholder(bytes: &[u8]) -> bool {
    !bytes.is_empty() && PLACEHOLDER.as_ptr_range().contains(&bytes.as_ptr())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    impl Source for File {
        fn file(&self) -> &File {
            self
        }
    }

    fn file(content: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Arc::new(file)
    }

    #[test]
    fn pieces_go_in_order_and_whole() {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        let queue = FileQueue::default();
        let placeholder = queue.announce(file(b"0123456789"), 2, 5);
        queue.announce(file(b"abc"), 0, 3);
        assert_eq!(placeholder.len(), 5);
        assert_eq!(queue.look_at(&placeholder[2..]).unwrap(), Write::File);
        assert_eq!(queue.send(near.as_fd(), 3).unwrap(), 3);
        assert_eq!(queue.send(near.as_fd(), 100).unwrap(), 2, "never past the piece");
        assert_eq!(queue.send(near.as_fd(), 100).unwrap(), 3);
        assert!(queue.is_empty());
        assert!(queue.send(near.as_fd(), 1).is_err(), "nothing was announced");
        drop(near);
        let mut received = String::new();
        far.read_to_string(&mut received).unwrap();
        assert_eq!(received, "23456abc");
    }

    #[test]
    fn copying_does_the_same() {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        let (file, mut offset) = (file(b"0123456789"), 2);
        assert_eq!(copy(near.as_fd(), &file, &mut offset, 5).unwrap(), 5);
        assert_eq!(offset, 7);
        assert_eq!(copy(near.as_fd(), &file, &mut offset, 100).unwrap(), 3);
        assert_eq!(copy(near.as_fd(), &file, &mut offset, 100).unwrap(), 0);
        drop(near);
        let mut received = String::new();
        far.read_to_string(&mut received).unwrap();
        assert_eq!(received, "23456789");
    }

    #[test]
    fn a_file_that_is_shorter_is_an_error() {
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        let queue = FileQueue::default();
        queue.announce(file(b"abc"), 0, 4);
        assert_eq!(queue.send(near.as_fd(), 4).unwrap(), 3);
        assert_eq!(queue.send(near.as_fd(), 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn copied_placeholders_are_noticed() {
        let queue = FileQueue::default();
        let large = vec![0; PIECE];
        assert_eq!(queue.look_at(&large).unwrap(), Write::Bytes);
        let copied = Vec::from(queue.announce(file(b""), 0, PIECE));
        assert_eq!(queue.look_at(b"HTTP/1.1 200 OK").unwrap(), Write::Bytes);
        assert!(queue.look_at(&copied).is_err());
    }
}
