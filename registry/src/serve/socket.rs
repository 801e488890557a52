//! What connections are made of: a socket in the clear that sends files by itself, and patience that ends.

use std::{
    future::Future as _,
    io::{self, ErrorKind, IoSlice},
    net::SocketAddr,
    os::fd::AsFd as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use rustix::net::SendFlags;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;

use crate::sendfile::{FileQueue, Write, is_placeholder};

/// A client whose machine does not acknowledge what is sent to it for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// A client whose machine is gone is noticed after about a minute, whether anything is being sent or not.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// What requests can arrive over.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// What is below it.
    fn tcp(&self) -> &TcpStream;

    /// Where files to be sent over it are announced, if it can send files.
    fn files(&self) -> Option<FileQueue>;
}

impl Transport for Socket {
    fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn files(&self) -> Option<FileQueue> {
        Some(self.files.clone())
    }
}

impl Transport for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn files(&self) -> Option<FileQueue> {
        None
    }
}

/// TCP in the clear.
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    files: FileQueue,
}

/// Accepts TCP connections in the clear.
pub(super) struct Plain(pub(super) TcpListener);

impl Listener for Plain {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Socket, SocketAddr) {
        let (tcp, peer) = Listener::accept(&mut self.0).await;
        // Answers are small and wanted at once; without it they are only later.
        let _ = tcp.set_nodelay(true);
        (Socket { tcp, files: FileQueue::default() }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Where one of these fails, the timeouts of the connection itself still hold.
pub(super) fn notice_dead_clients(tcp: &TcpStream) {
    use rustix::net::sockopt;
    let timeout = u32::try_from(WRITE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let _ = sockopt::set_tcp_user_timeout(tcp, timeout);
    let _ = sockopt::set_socket_keepalive(tcp, true);
    let _ = sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_PROBES);
}

impl Socket {
    /// Calls what must not block whenever the socket takes something.
    fn poll_send(
        &self,
        context: &mut Context<'_>,
        send: impl Fn(&Self) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(context))?;
            match self.tcp.try_io(Interest::WRITABLE, || send(self)) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_send_file(&self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(context))?;
            let mut sent = 0;
            let done = self.tcp.try_io(Interest::WRITABLE, || {
                sent = self.files.send(self.tcp.as_fd(), length)?;
                // The socket is full: saying so here saves asking it.
                if sent < length { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match done {
                Ok(()) => return Poll::Ready(Ok(sent)),
                Err(_) if sent > 0 => return Poll::Ready(Ok(sent)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.files.look_at(bytes)? {
            Write::File => self.poll_send_file(context, bytes.len()),
            Write::Bytes => Pin::new(&mut self.tcp).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        for slice in slices {
            if is_placeholder(slice) {
                break;
            }
            self.files.look_at(slice)?;
        }
        match slices.iter().position(|slice| is_placeholder(slice)) {
            None => Pin::new(&mut self.tcp).poll_write_vectored(context, slices),
            Some(0) => self.poll_send_file(context, slices[0].len()),
            // Headers wait in the kernel for the first bytes of the file.
            Some(1) => self.poll_send(context, |this| {
                Ok(rustix::net::send(&this.tcp, &slices[0], SendFlags::MORE | SendFlags::NOSIGNAL)?)
            }),
            Some(bytes) => Pin::new(&mut self.tcp).poll_write_vectored(context, &slices[..bytes]),
        }
    }

    /// hyper would copy pieces together otherwise.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

/// Gives up clients that stop taking what is sent to them.
#[derive(Debug)]
pub(super) struct Patient<T> {
    io: T,
    patience: Duration,
    /// Since when nothing could be written.
    stalled: Option<Instant>,
    /// Set once and moved only when it fires: clients stall all the time, and go on.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    pub(super) fn new(io: T, patience: Duration) -> Self {
        Self { io, patience, stalled: None, alarm: None }
    }

    fn watch<U>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<U>>) -> Poll<io::Result<U>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let deadline = *self.stalled.get_or_insert_with(Instant::now) + self.patience;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        while alarm.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                let error = io::Error::new(ErrorKind::TimedOut, "the client takes nothing any more");
                return Poll::Ready(Err(error));
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(context);
        self.watch(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(context);
        self.watch(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        use tokio::io::AsyncReadExt as _;
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = Patient::new(near, WRITE_TIMEOUT);
        let writing = tokio::spawn(async move { near.write_all(&[0; 100]).await });
        for _ in 0..3 {
            tokio::time::sleep(WRITE_TIMEOUT * 9 / 10).await;
            far.read_exact(&mut [0; 10]).await.unwrap();
        }
        let silent = Instant::now();
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(silent.elapsed() <= WRITE_TIMEOUT + Duration::from_secs(1));
    }
}
