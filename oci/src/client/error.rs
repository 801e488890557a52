//! Why a registry did not do what it was asked.

use std::{error::Error as StdError, io};

use http::StatusCode;

use super::credentials::Unreadable;
use crate::Denial;

/// What went wrong with a request. Each is a sentence for people that names the host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("failed to reach {host}: {reason}")]
    Unreachable {
        /// Who was called.
        host: String,
        /// What kind of trouble it is.
        kind: Trouble,
        /// What went wrong.
        reason: String,
    },
    /// Nothing came or went for a while.
    #[error("{host} stood still for {seconds} s")]
    Silent {
        /// Who was called.
        host: String,
        /// How long.
        seconds: u64,
    },
    /// These credentials do not suffice, or there are none.
    #[error("{host} refused {what}: {message}")]
    Unauthorized {
        /// Who was called.
        host: String,
        /// What was asked.
        what: String,
        /// What it said.
        message: String,
    },
    /// These credentials would suffice, but what was asked for is not possible.
    #[error("{host} refused {what}: {message}")]
    Denied {
        /// Who was called.
        host: String,
        /// What was asked.
        what: String,
        /// Why.
        why: Denial,
        /// What it said.
        message: String,
    },
    /// Any other answer that is no success.
    #[error("{host} answered {what} with {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status {
        /// Who was called.
        host: String,
        /// What was asked.
        what: String,
        /// The HTTP status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// An answer that means nothing.
    #[error("the answer of {host} to {what} can't be used: {reason}")]
    Answer {
        /// Who was called.
        host: String,
        /// What was asked.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A login would have gone to somebody else.
    #[error(
        "{host} wants its login sent to {realm}, which is not its own host: it was not sent. Use a registry whose \
         tokens come from its own host or a domain above it"
    )]
    ForeignRealm {
        /// Who asked.
        host: String,
        /// Where to.
        realm: String,
    },
    /// A login can't be read.
    #[error(transparent)]
    Credentials(#[from] Unreadable),
    /// Certificate authorities that can't be used.
    #[error("failed to use the certificate authorities: {0}")]
    Authorities(String),
}

/// Kinds of connections that there are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody has that name.
    UnknownHost,
    /// Its certificate proves nothing.
    UntrustedCertificate,
    /// Refused, reset, or no way there.
    Connection,
}

impl Error {
    /// Whether another try may do better.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { kind, .. } => *kind != Trouble::UntrustedCertificate,
            Self::Silent { .. } => true,
            Self::Status { status, .. } => is_temporary(*status),
            Self::Unauthorized { .. }
            | Self::Denied { .. }
            | Self::Answer { .. }
            | Self::ForeignRealm { .. }
            | Self::Credentials(_)
            | Self::Authorities(_) => false,
        }
    }

    /// The HTTP status, where it is one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Statuses that may be others soon.
pub(super) fn is_temporary(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// What errors of input and output were made of, which are no sources of each other.
fn innermost<'a>(mut error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    error
}

/// What lies at the bottom of an error of the connection.
pub(super) fn unreachable(host: String, error: &(dyn StdError + 'static)) -> Error {
    let (mut kind, mut reason) = (Trouble::Connection, String::new());
    let mut next = Some(error);
    while let Some(error) = next {
        reason = error.to_string();
        if reason.starts_with("dns error") {
            kind = Trouble::UnknownHost;
        }
        if let Some(rustls::Error::InvalidCertificate(why)) = innermost(error).downcast_ref() {
            reason = format!("its certificate is not trusted: {why}");
            return Error::Unreachable { host, kind: Trouble::UntrustedCertificate, reason };
        }
        next = error.source();
    }
    if kind == Trouble::UnknownHost {
        reason = format!("nobody has this name ({reason})");
    }
    Error::Unreachable { host, kind, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_trusted_is_found_however_deep_it_lies() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature);
        let once = io::Error::new(io::ErrorKind::InvalidData, tls);
        let twice = io::Error::other(io::Error::other(once));
        let Error::Unreachable { kind, reason, .. } = unreachable("a".into(), &twice) else {
            panic!("{twice}")
        };
        assert_eq!(kind, Trouble::UntrustedCertificate);
        assert!(reason.contains("not trusted"), "{reason}");
    }
}
