//! Connections over each protocol that a client may speak, for what goes on in the middle of a request.

use std::{path::Path, process::Command, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{client::Client, pki::Authority, server::Server};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Plain,
    Tls,
    /// HTTP/2 over TLS, as containerd and others agree on.
    Http2,
}

/// How to reach a server over one of them.
pub(crate) struct Wire {
    pub(crate) protocol: Protocol,
    authority: Authority,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Wire {
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self { protocol, authority: Authority::new() }
    }

    /// What a server needs for it; certificates lie in `folder`.
    pub(crate) fn arguments(&self, folder: &Path, command: &mut Command) {
        command.args(["--health-listen", "127.0.0.1:0"]);
        if self.protocol != Protocol::Plain {
            let (cert, key) = self.authority.sign(&["localhost"]).write(folder, "serving");
            command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
        }
    }

    /// One connection a request.
    pub(crate) fn client(&self, server: &Server) -> Client {
        match self.protocol {
            Protocol::Plain => server.client(),
            Protocol::Tls | Protocol::Http2 => server.client().over_tls(self.authority.trusted()),
        }
    }

    /// What requests go into, over a connection.
    pub(crate) async fn wrap(&self, tcp: TcpStream) -> Box<dyn Stream> {
        let config = match self.protocol {
            Protocol::Plain => return Box::new(tcp),
            Protocol::Tls => self.authority.trusted(),
            Protocol::Http2 => {
                let mut config = self.authority.trusted();
                config.alpn_protocols = vec![b"h2".to_vec()];
                config
            }
        };
        let connector = TlsConnector::from(Arc::new(config));
        Box::new(connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap())
    }
}
