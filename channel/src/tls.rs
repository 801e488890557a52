//! TLS servers whose certificates are files that may change at any time, as mounted Secrets do.
//!
//! New connections use the new certificate within [`RELOAD_INTERVAL`]; those that are open stay open. Files that
//! can't be used are reported once and the former certificate stays.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::serve::Listener;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How often the files are looked at.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// A client that does not finish its handshake in this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once. Where there are more, the oldest ends: a client takes milliseconds for one, and
/// whoever holds one open must not keep others out.
const MAX_HANDSHAKES: usize = 1024;
/// The same for one address, which may stand for many clients.
const MAX_HANDSHAKES_OF_ONE: usize = 512;

/// Where a server's certificate lies, PEM each.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate and what leads to its issuer.
    pub cert: PathBuf,
    /// The private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// Given: only clients with a certificate that these sign are let in (mutual TLS).
    pub client_ca: Option<PathBuf>,
}

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read.
    #[error("failed to read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not PEM, or not what it should hold.
    #[error("failed to read PEM in {}: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or are of a kind that rustls does not take.
    #[error("failed to set up TLS: {0}")]
    Setup(String),
}

/// A certificate that follows its files.
#[derive(Debug)]
pub struct Reloading {
    files: Files,
    current: ArcSwap<ServerConfig>,
    seen: Mutex<Contents>,
}

type Contents = Vec<Vec<u8>>;

impl Reloading {
    /// Reads the files for the first time.
    pub fn load(files: Files) -> Result<Arc<Self>, Error> {
        let contents = read(&files)?;
        let config = configure(&files, &contents)?;
        Ok(Arc::new(Self { files, current: ArcSwap::from_pointee(config), seen: Mutex::new(contents) }))
    }

    /// Of a certificate and its key in memory, PEM each.
    pub fn of(cert: &str, key: &str) -> Result<Arc<Self>, Error> {
        let (files, contents) = in_memory(cert, key);
        let config = configure(&files, &contents)?;
        Ok(Arc::new(Self { files, current: ArcSwap::from_pointee(config), seen: Mutex::new(contents) }))
    }

    /// Replaces them, for connections that are still to come.
    pub fn replace(&self, cert: &str, key: &str) -> Result<(), Error> {
        let (files, contents) = in_memory(cert, key);
        self.current.store(Arc::new(configure(&files, &contents)?));
        Ok(())
    }

    /// Follows the files; never ends.
    pub async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.reload()).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => tracing::info!(cert = %self.files.cert.display(), "certificate reloaded"),
                Ok(Err(error)) => {
                    tracing::error!(%error, "the new certificate can't be used, the former one stays");
                }
                Err(error) => tracing::error!(%error, "failed to look at the certificate"),
            }
        }
    }

    /// Looks at the files now; true where they had changed and are in use.
    pub fn reload(&self) -> Result<bool, Error> {
        let contents = read(&self.files)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == contents {
            return Ok(false);
        }
        // Remembered before it is tried, so that a bad file is reported once.
        seen.clone_from(&contents);
        self.current.store(Arc::new(configure(&self.files, &contents)?));
        Ok(true)
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

fn in_memory(cert: &str, key: &str) -> (Files, Contents) {
    let name = PathBuf::from("memory");
    let files = Files { cert: name.clone(), key: name, client_ca: None };
    (files, vec![cert.as_bytes().to_vec(), key.as_bytes().to_vec()])
}

fn read(files: &Files) -> Result<Contents, Error> {
    [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source }))
        .collect()
}

fn configure(files: &Files, contents: &[Vec<u8>]) -> Result<ServerConfig, Error> {
    let certs = certificates(&files.cert, &contents[0])?;
    let key = PrivateKeyDer::from_pem_slice(&contents[1])
        .map_err(|source| Error::Pem { path: files.key.clone(), source })?;
    let builder = ServerConfig::builder();
    let builder = match files.client_ca.as_ref().zip(contents.get(2)) {
        None => builder.with_no_client_auth(),
        Some((path, pem)) => {
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots(certificates(path, pem)?)?));
            builder.with_client_cert_verifier(verifier.build().map_err(setup)?)
        }
    };
    let mut config = builder.with_single_cert(certs, key).map_err(setup)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &std::path::Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| Error::Pem { path: path.to_owned(), source })
}

/// Trusts exactly these certificates.
pub(crate) fn roots(certs: Vec<CertificateDer<'static>>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for cert in certs {
        roots.add(cert).map_err(setup)?;
    }
    Ok(roots)
}

pub(crate) fn setup(error: impl std::fmt::Display) -> Error {
    Error::Setup(error.to_string())
}

/// Accepts TLS connections for `axum::serve`. Handshakes run beside each other: a slow client holds up nobody, and many
/// that never finish don't either.
#[derive(Debug)]
pub struct TlsListener {
    tcp: TcpListener,
    certificate: Arc<Reloading>,
    handshakes: JoinSet<io::Result<(TlsStream<TcpStream>, SocketAddr)>>,
    /// The oldest first.
    pending: VecDeque<(IpAddr, AbortHandle)>,
    most: usize,
    of_one: usize,
}

impl TlsListener {
    /// Serves what arrives at `tcp` with `certificate`.
    #[must_use]
    pub fn new(tcp: TcpListener, certificate: Arc<Reloading>) -> Self {
        let (handshakes, pending) = (JoinSet::new(), VecDeque::new());
        let (most, of_one) = (MAX_HANDSHAKES, MAX_HANDSHAKES_OF_ONE);
        Self { tcp, certificate, handshakes, pending, most, of_one }
    }

    /// With so many handshakes under way, in all and from one address.
    #[must_use]
    pub fn with_handshakes(self, most: usize, of_one: usize) -> Self {
        Self { most, of_one, ..self }
    }

    fn start_handshake(&mut self, stream: TcpStream, peer: SocketAddr) {
        let source = network(peer.ip());
        self.make_place(source);
        let acceptor = self.certificate.acceptor();
        let handshake = self.handshakes.spawn(async move {
            stream.set_nodelay(true)?;
            let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
            Ok((stream, peer))
        });
        self.pending.push_back((source, handshake));
    }

    /// The oldest of the source that has most.
    fn oldest_of_crowd(&self) -> Option<usize> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (of, _) in &self.pending {
            *counts.entry(*of).or_default() += 1;
        }
        let (crowd, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        self.pending.iter().position(|(of, _)| *of == crowd)
    }

    fn make_place(&mut self, source: IpAddr) {
        self.pending.retain(|(_, handshake)| !handshake.is_finished());
        let mut of_same = self.pending.iter().enumerate().filter(|(_, (of, _))| *of == source);
        let oldest = of_same.next().map(|(index, _)| index).filter(|_| 1 + of_same.count() >= self.of_one);
        let is_full = self.pending.len() >= self.most;
        if let Some(index) = oldest.or_else(|| if is_full { self.oldest_of_crowd() } else { None })
            && let Some((_, handshake)) = self.pending.remove(index)
        {
            handshake.abort();
        }
    }
}

/// What counts as one address: one machine has as many as it likes in its IPv6 network.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Ok(accepted)) => return accepted,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(error) if error.is_cancelled() => tracing::debug!("TLS handshake made place for another"),
                    Err(error) => tracing::error!(%error, "TLS handshake ended early"),
                },
                (stream, peer) = Listener::accept(&mut self.tcp) => self.start_handshake(stream, peer),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_one_address() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), "10.0.0.1");
    }
}
