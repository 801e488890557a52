//! Certificate authorities of the operator, and the certificates that they sign.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// How long an authority is valid.
const AUTHORITY_LIFETIME: Duration = Duration::days(3650);
/// How long a certificate is valid.
pub(crate) const LIFETIME: Duration = Duration::days(90);
/// A certificate is renewed once no more than this is left.
pub(crate) const RENEW_BEFORE: Duration = Duration::days(30);
/// Clocks of nodes and clients may be behind by this.
const SKEW: Duration = Duration::minutes(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[error("failed to make a certificate: {0}")]
pub(crate) struct Error(#[from] rcgen::Error);

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// What a certificate may be used for.
#[derive(Clone, Copy)]
pub(crate) enum Usage {
    Server,
    Client,
}

/// Signs certificates.
pub(crate) struct Authority {
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority; its pair is to be stored.
    pub(crate) fn create(common_name: &str) -> Result<Pair, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = OffsetDateTime::now_utc() - SKEW;
        params.not_after = params.not_before + AUTHORITY_LIFETIME;
        Ok(Pair { cert: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// Takes up a stored authority.
    pub(crate) fn load(pair: &Pair) -> Result<Self, Error> {
        let issuer = Issuer::from_ca_cert_pem(&pair.cert, KeyPair::from_pem(&pair.key)?)?;
        Ok(Self { cert: pair.cert.clone(), issuer })
    }

    /// The authority's own certificate, which clients trust.
    pub(crate) fn cert(&self) -> &str {
        &self.cert
    }

    /// Signs a certificate for these names (host names or addresses), valid until `expires`.
    pub(crate) fn issue(
        &self,
        names: &[String],
        usage: Usage,
        expires: OffsetDateTime,
    ) -> Result<Pair, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        let common_name = names.first().map_or("berth", String::as_str);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        params.not_before = OffsetDateTime::now_utc() - SKEW;
        params.not_after = expires;
        Ok(Pair { cert: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() })
    }
}
