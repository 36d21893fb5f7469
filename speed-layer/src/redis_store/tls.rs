//! The certificates of a connection with TLS.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use redis::{ClientTlsConfig, TlsCertificates};

/// Certificates for an address with TLS. They are read again for every new connection, so files may be replaced at any time.
///
/// Without any, the server's certificate must be signed by a CA of the system (the environment's SSL_CERT_FILE names another file).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// A PEM file of the CA certificates that are trusted, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What this process shows a server that asks for a certificate.
    pub client: Option<RedisClientCertificate>,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisClientCertificate {
    /// A PEM file of the certificate, and of those between it and the server's CA.
    pub certificate_file: PathBuf,
    /// A PEM file of its private key.
    pub key_file: PathBuf,
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RedisTlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} is no PEM file with a {what}")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What belongs into it.
        what: &'static str,
    },
    /// What the files hold cannot be used.
    #[error("the certificates cannot be used: {0}")]
    Unusable(String),
    /// There are certificates, and connections would not use them.
    #[error("there are certificates for Redis, and its address is one without TLS: write rediss:// or rediss-cluster://")]
    AddressWithoutTls,
}

impl RedisTls {
    pub(super) fn is_empty(&self) -> bool {
        self.ca_file.is_none() && self.client.is_none()
    }

    /// What the client takes.
    pub(super) fn read(&self) -> Result<TlsCertificates, RedisTlsError> {
        let root_cert = self.ca_file.as_deref().map(|path| read_pem(path, "CERTIFICATE")).transpose()?;
        let client_tls = match &self.client {
            Some(RedisClientCertificate { certificate_file, key_file }) => Some(ClientTlsConfig {
                client_cert: read_pem(certificate_file, "CERTIFICATE")?,
                client_key: read_pem(key_file, "PRIVATE KEY")?,
            }),
            None => None,
        };
        Ok(TlsCertificates { client_tls, root_cert })
    }
}

/// A CA file without a certificate would otherwise be a CA that nothing is trusted by.
fn read_pem(path: &Path, what: &'static str) -> Result<Vec<u8>, RedisTlsError> {
    let text = fs::read(path).map_err(|source| RedisTlsError::File { path: path.to_owned(), source })?;
    let (begin, end) = ("-----BEGIN ", format!("{what}-----"));
    let has_it = String::from_utf8_lossy(&text).lines().any(|line| line.starts_with(begin) && line.trim_end().ends_with(&end));
    if has_it { Ok(text) } else { Err(RedisTlsError::NotPem { path: path.to_owned(), what }) }
}

/// Chooses the cryptography of TLS for the process, where nobody has chosen: several are linked, and rustls panics rather than pick one.
pub(super) fn choose_cryptography() {
    // An error says that a choice was made already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
