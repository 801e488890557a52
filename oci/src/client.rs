//! A client of any registry: each request is tried again where that may help, proves who calls where that is asked, and
//! gives up when nothing moves. Nothing is held in memory but manifests and pages of lists.
//!
//! ```text
//!   manifests, blobs, uploads, lists, referrers     what a registry can be asked
//!              send, answer                         attempts, redirects, silence
//!   auth (challenge, credentials)     retry
//! ```

mod answer;
mod auth;
mod blobs;
mod challenge;
mod credentials;
mod endpoint;
mod error;
mod link;
mod lists;
mod manifests;
mod referrers;
mod retry;
mod send;
mod uploads;

use std::{fmt, sync::Arc, time::Duration};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use self::{auth::Auth, referrers::Api, retry::Gate, send::Body};
pub use self::{
    auth::Scope,
    blobs::Download,
    challenge::{Challenge, parse as parse_challenge},
    credentials::{Credentials, Login, Unreadable},
    endpoint::{Endpoint, InvalidEndpoint, Origin},
    error::{Error, Trouble},
    lists::Page,
    manifests::{Coming, Found, Put, Removed},
    referrers::{Referrer, Room},
    retry::backoff,
    uploads::{Session, Started, Stream},
};

/// A registry that can't be connected in this time is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(120);
/// Registries end connections that nobody uses after half a minute or more.
const IDLE: Duration = Duration::from_secs(20);
/// What a connection holds of a body that nobody has taken yet.
const BUFFER: usize = 128 << 10;

/// Speaks to one registry. Clones share connections, tokens and what is known of it.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    credentials: Option<Credentials>,
    // hyper-util rather than reqwest: pooled connections are all that is needed, and the workspace has it already.
    http: HttpClient<HttpsConnector<HttpConnector>, Body>,
    auth: Auth,
    gate: Gate,
    patience: Duration,
    referrers_api: Api,
}

/// How to speak to a registry.
#[derive(Debug)]
pub struct Settings {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Who logs in.
    pub credentials: Option<Credentials>,
    /// Certificate authorities (PEM) to trust in place of the public ones.
    pub authorities: Option<Vec<u8>>,
    /// How long nothing may happen before a request is given up.
    pub patience: Duration,
}

impl Settings {
    /// Without credentials, trusting the public authorities.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, credentials: None, authorities: None, patience: PATIENCE }
    }
}

impl Client {
    /// Connects to nothing yet. rustls needs a default provider before.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let Settings { endpoint, credentials, authorities, patience } = settings;
        let roots = match authorities {
            Some(pem) => roots(&pem).map_err(Error::Authorities)?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(BUFFER)
            .build(connector);
        let (auth, gate, referrers_api) = Default::default();
        Ok(Self(Arc::new(Inner { endpoint, credentials, http, auth, gate, patience, referrers_api })))
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Its host, with a port where that is not the usual one.
    #[must_use]
    pub fn host(&self) -> String {
        self.0.endpoint.origin().authority()
    }

    fn credentials(&self) -> Option<&Credentials> {
        self.0.credentials.as_ref()
    }

    fn http(&self) -> &HttpClient<HttpsConnector<HttpConnector>, Body> {
        &self.0.http
    }

    fn auth(&self) -> &Auth {
        &self.0.auth
    }

    fn gate(&self) -> &Gate {
        &self.0.gate
    }

    fn patience(&self) -> Duration {
        self.0.patience
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.0.endpoint)
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added =
            certificate.map_err(|error| error.to_string()).map(|certificate| roots.add(certificate))?;
        added.map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is no certificate".to_owned()) } else { Ok(roots) }
}
