//! Certificates for services that speak TLS: a CA of one test and what it has signed, as PEM files in a directory of their own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tempfile::TempDir;

use crate::error::{Doing, ServiceError};

/// Certificates are good until this year, or were.
const FAR_YEAR: i32 = 4_000;
const PAST_YEAR: i32 = 2_020;

/// A CA, a server's certificate for `localhost` and `127.0.0.1`, and a client's certificate.
#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// New keys, and certificates that a new CA has signed. No two of these trust each other.
    ///
    /// # Errors
    /// [`ServiceError::Io`] when keys cannot be made or files cannot be written.
    pub fn generate() -> Result<Self, ServiceError> {
        Self::generate_until(FAR_YEAR)
    }

    /// As [`Self::generate`], but the server's certificate has long expired.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn expired() -> Result<Self, ServiceError> {
        Self::generate_until(PAST_YEAR)
    }

    fn generate_until(year: i32) -> Result<Self, ServiceError> {
        let directory = TempDir::with_prefix("riomar-certificates-").doing(|| "creating a directory".to_owned())?;
        let certificates = Self { directory };
        certificates.sign_all(year).map_err(io::Error::other).doing(|| "generating certificates".to_owned())??;
        Ok(certificates)
    }

    /// The CA's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The server's certificate.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.path("server.pem")
    }

    /// The key of the server's certificate.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.path("server.key")
    }

    /// The client's certificate.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.path("client.pem")
    }

    /// The key of the client's certificate.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.path("client.key")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn sign_all(&self, servers_end: i32) -> Result<Result<(), ServiceError>, rcgen::Error> {
        let mut params = CertificateParams::default();
        // Each with a name of its own: one of the same name and another key is refused in another way.
        let name = self.directory.path().file_name().unwrap_or_default().to_string_lossy();
        params.distinguished_name.push(DnType::CommonName, format!("CA of {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        // Nodes of a cluster show the server's certificate to each other on both ends.
        let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let server = sign(&ca, &["localhost", "127.0.0.1"], both, servers_end)?;
        let client = sign(&ca, &[], vec![ExtendedKeyUsagePurpose::ClientAuth], FAR_YEAR)?;
        let files = [
            (self.ca(), ca.pem()),
            (self.server(), server.0),
            (self.server_key(), server.1),
            (self.client(), client.0),
            (self.client_key(), client.1),
        ];
        Ok(files.iter().try_for_each(|(path, text)| write(path, text)))
    }
}

/// A certificate for these names, which is good until a year begins, and its key.
fn sign(
    ca: &CertifiedIssuer<'_, KeyPair>,
    names: &[&str],
    usages: Vec<ExtendedKeyUsagePurpose>,
    end: i32,
) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("a client"));
    params.extended_key_usages = usages;
    params.not_after = date_time_ymd(end, 1, 1);
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, ca)?.pem(), key.serialize_pem()))
}

fn write(path: &Path, text: &str) -> Result<(), ServiceError> {
    fs::write(path, text).doing(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_pem_and_goes_with_its_owner() {
        let certificates = Certificates::generate().unwrap_or_else(|error| panic!("{error}"));
        for path in [certificates.ca(), certificates.server(), certificates.client()] {
            assert!(fs::read_to_string(&path).expect("a file").starts_with("-----BEGIN CERTIFICATE-----"), "{path:?}");
        }
        for path in [certificates.server_key(), certificates.client_key()] {
            assert!(fs::read_to_string(&path).expect("a file").contains("PRIVATE KEY-----"), "{path:?}");
        }
        let ca = certificates.ca();
        drop(certificates);
        assert!(!ca.exists());
    }
}
