//! How connections to brokers are protected: TLS, and who this process says it is.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use crate::error::LogError;

/// How connections to brokers are protected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KafkaSecurity {
    /// TLS. Default: none, and everything goes over the network as it is.
    pub tls: Option<KafkaTls>,
    /// Who this process says it is. Default: nobody, or whom its certificate names.
    pub login: Option<KafkaLogin>,
}

/// Certificates for connections with TLS. A broker's certificate must be for the host that it is reached at.
///
/// The files are read when a client is made. The one that appends lasts as long as its log, so a certificate that replaces an older one
/// counts from the next start on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KafkaTls {
    /// A PEM file of the CA certificates that are trusted, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What this process shows a broker that asks for a certificate.
    pub client: Option<KafkaClientCertificate>,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaClientCertificate {
    /// A PEM file of the certificate, and of those between it and the broker's CA.
    pub certificate_file: PathBuf,
    /// A PEM file of its private key, which has no password.
    pub key_file: PathBuf,
}

/// A user, and how its password is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaLogin {
    /// How the password is shown.
    pub mechanism: SaslMechanism,
    /// The user.
    pub user: String,
    /// The password, which is printed nowhere.
    pub password: String,
}

/// How a password is shown (SASL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// As it is: whoever reads the connection has it, so only with TLS.
    Plain,
    /// By a proof that does not give it away (RFC 7677), with SHA-256.
    ScramSha256,
    /// As [`Self::ScramSha256`], with SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    /// Its registered name.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl fmt::Debug for KafkaLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mechanism, user) = (&self.mechanism, &self.user);
        f.debug_struct("KafkaLogin").field("mechanism", mechanism).field("user", user).field("password", &"***").finish()
    }
}

impl KafkaSecurity {
    /// What a client is told.
    ///
    /// # Errors
    /// [`LogError::Misconfigured`] where a file cannot be read or holds something else.
    pub(super) fn properties(&self) -> Result<Vec<(&'static str, String)>, LogError> {
        let protocol = match (&self.login, &self.tls) {
            (None, None) => "plaintext",
            (None, Some(_)) => "ssl",
            (Some(_), None) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        let mut properties = vec![("security.protocol", protocol.to_owned())];
        if let Some(tls) = &self.tls {
            properties.extend(tls.properties()?);
        }
        if let Some(KafkaLogin { mechanism, user, password }) = &self.login {
            properties.push(("sasl.mechanism", mechanism.name().to_owned()));
            properties.extend([("sasl.username", user.clone()), ("sasl.password", password.clone())]);
        }
        Ok(properties)
    }
}

impl KafkaTls {
    fn properties(&self) -> Result<Vec<(&'static str, String)>, LogError> {
        let ca = match &self.ca_file {
            Some(path) => pem(path, "CERTIFICATE")?,
            // OpenSSL comes with the program and knows no place of this system: librdkafka looks at those that are usual.
            None => "probe".to_owned(),
        };
        let mut properties = vec![("ssl.ca.location", ca)];
        if let Some(KafkaClientCertificate { certificate_file, key_file }) = &self.client {
            properties.push(("ssl.certificate.location", pem(certificate_file, "CERTIFICATE")?));
            properties.push(("ssl.key.location", pem(key_file, "PRIVATE KEY")?));
        }
        Ok(properties)
    }
}

/// The path of a file that has such a part: librdkafka names neither the file nor what it lacks.
fn pem(path: &Path, what: &str) -> Result<String, LogError> {
    let unusable = |why: String| LogError::Misconfigured(format!("{}, which is for Kafka, {why}", path.display()));
    let text = fs::read(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    let end = format!("{what}-----");
    let is_it = |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&end);
    if !String::from_utf8_lossy(&text).lines().any(is_it) {
        return Err(unusable(format!("is no PEM file with a {what}")));
    }
    path.to_str().map(str::to_owned).ok_or_else(|| unusable("has a name that is not Unicode: rename it".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(mechanism: SaslMechanism) -> Option<KafkaLogin> {
        Some(KafkaLogin { mechanism, user: "me".to_owned(), password: "hunter2".to_owned() })
    }

    #[test]
    fn a_client_is_told_no_more_than_it_needs() {
        let tls = || Some(KafkaTls::default());
        let cases: [(KafkaSecurity, &[(&str, &str)]); 4] = [
            (KafkaSecurity::default(), &[("security.protocol", "plaintext")]),
            (KafkaSecurity { tls: tls(), login: None }, &[("security.protocol", "ssl"), ("ssl.ca.location", "probe")]),
            (
                KafkaSecurity { tls: None, login: login(SaslMechanism::Plain) },
                &[
                    ("security.protocol", "sasl_plaintext"),
                    ("sasl.mechanism", "PLAIN"),
                    ("sasl.username", "me"),
                    ("sasl.password", "hunter2"),
                ],
            ),
            (
                KafkaSecurity { tls: tls(), login: login(SaslMechanism::ScramSha256) },
                &[
                    ("security.protocol", "sasl_ssl"),
                    ("ssl.ca.location", "probe"),
                    ("sasl.mechanism", "SCRAM-SHA-256"),
                    ("sasl.username", "me"),
                    ("sasl.password", "hunter2"),
                ],
            ),
        ];
        for (security, expected) in cases {
            let found = security.properties().expect("no file is named");
            let found: Vec<_> = found.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(found, expected);
            assert!(!format!("{security:?}").contains("hunter2"), "{security:?}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let certificates = riomar_infra::Certificates::generate().expect("certificates");
        let missing = directory.path().join("missing.pem");
        let client = |certificate_file: PathBuf, key_file: PathBuf| KafkaTls {
            ca_file: None,
            client: Some(KafkaClientCertificate { certificate_file, key_file }),
        };
        for (tls, expected) in [
            (KafkaTls { ca_file: Some(missing.clone()), client: None }, "missing.pem, which is for Kafka, cannot be read"),
            (
                KafkaTls { ca_file: Some(certificates.server_key()), client: None },
                "server.key, which is for Kafka, is no PEM file",
            ),
            (
                client(certificates.client(), certificates.client()),
                "client.pem, which is for Kafka, is no PEM file with a PRIVATE KEY",
            ),
            (client(missing, certificates.client_key()), "cannot be read"),
        ] {
            let error = tls.properties().expect_err("cannot be used").to_string();
            assert!(error.contains(expected), "{error}");
        }
        let properties = client(certificates.client(), certificates.client_key()).properties().expect("can be used");
        assert_eq!(properties.len(), 3);
    }
}
