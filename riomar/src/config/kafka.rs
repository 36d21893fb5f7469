//! How brokers of Kafka are reached: settings that go together, or not.

use super::{
    Config, Fault, Origin, Resolved,
    setting::{Notation, Setting},
    units::Interval,
};

/// How connections to brokers are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Plaintext,
    /// With TLS.
    Tls,
    /// With a user, and no TLS.
    SaslPlaintext,
    /// With TLS and a user.
    SaslTls,
}

impl Security {
    /// Whether connections use TLS.
    #[must_use]
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::SaslTls)
    }

    /// Whether this process logs in.
    #[must_use]
    pub fn has_user(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslTls)
    }
}

/// How a password is shown to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// As it is.
    Plain,
    /// By a proof that does not give it away, with SHA-256.
    ScramSha256,
    /// By a proof that does not give it away, with SHA-512.
    ScramSha512,
}

/// How long Kafka itself keeps a record, whether it has landed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicRetain {
    /// Until Riomar trims it, once it has landed.
    Forever,
    /// For so long at the most.
    For(Interval),
}

impl TopicRetain {
    /// The same in milliseconds; `None` for ever.
    #[must_use]
    pub fn milliseconds(self) -> Option<u64> {
        match self {
            Self::Forever => None,
            Self::For(interval) => Some(interval.as_millis().unsigned_abs()),
        }
    }
}

impl Setting for TopicRetain {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "forever" => Ok(Self::Forever),
            _ => Interval::read(text).map(Self::For).map_err(|error| format!("{error}; or write \"forever\"")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Forever => "forever".to_owned(),
            Self::For(interval) => interval.show(),
        }
    }
}

impl Setting for Security {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "plaintext" => Ok(Self::Plaintext),
            "tls" => Ok(Self::Tls),
            "sasl_plaintext" => Ok(Self::SaslPlaintext),
            "sasl_tls" => Ok(Self::SaslTls),
            _ => Err(format!("'{text}' is no protection: use \"plaintext\", \"tls\", \"sasl_plaintext\" or \"sasl_tls\"")),
        }
    }

    fn show(&self) -> String {
        let text = match self {
            Self::Plaintext => "plaintext",
            Self::Tls => "tls",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslTls => "sasl_tls",
        };
        text.to_owned()
    }
}

impl Setting for SaslMechanism {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "plain" => Ok(Self::Plain),
            "scram-sha-256" => Ok(Self::ScramSha256),
            "scram-sha-512" => Ok(Self::ScramSha512),
            _ => Err(format!(
                "'{text}' is no mechanism that this build knows: use \"scram-sha-512\", \"scram-sha-256\" or \"plain\""
            )),
        }
    }

    fn show(&self) -> String {
        let text = match self {
            Self::Plain => "plain",
            Self::ScramSha256 => "scram-sha-256",
            Self::ScramSha512 => "scram-sha-512",
        };
        text.to_owned()
    }
}

/// A key that says something about TLS, or about the user: whether it is of use, and with what.
struct Belongs {
    key: &'static str,
    of_use: fn(Security) -> bool,
    with: &'static str,
}

const WITH_TLS: &str = "\"tls\" or \"sasl_tls\"";
const WITH_USER: &str = "\"sasl_tls\" or \"sasl_plaintext\"";

const BELONGS: [Belongs; 6] = [
    Belongs { key: "log.ca_file", of_use: Security::has_tls, with: WITH_TLS },
    Belongs { key: "log.client_certificate", of_use: Security::has_tls, with: WITH_TLS },
    Belongs { key: "log.client_key", of_use: Security::has_tls, with: WITH_TLS },
    Belongs { key: "log.sasl_mechanism", of_use: Security::has_user, with: WITH_USER },
    Belongs { key: "log.user", of_use: Security::has_user, with: WITH_USER },
    Belongs { key: "log.password", of_use: Security::has_user, with: WITH_USER },
];

/// What contradicts itself, and what is missing.
pub fn check(resolved: &Resolved) -> Vec<Fault> {
    let log = &resolved.config.log;
    let origin = |key: &str| resolved.origins.get(key).filter(|origin| **origin != Origin::Default).cloned();
    let fault = |key: &str, origin, message: String| Fault { origin, key: Some(key.to_owned()), message };
    let mut faults = Vec::new();
    let differs = |key: &str| {
        let shown = |config: &Config| super::KEYS.iter().find(|known| known.name == key).map(|known| (known.get)(config));
        shown(&resolved.config) != shown(&Config::new())
    };
    for Belongs { key, of_use, with } in BELONGS {
        // A connection without the protection that somebody thought of is worse than none.
        if !of_use(log.security) && differs(key) {
            let message = format!(
                "it does nothing while log.security is \"{}\": set that to {with}, or leave this out",
                log.security.show()
            );
            faults.push(fault(key, origin(key), message));
        }
    }
    if log.security.has_user() {
        for (key, empty) in [("log.user", log.user.is_empty()), ("log.password", log.password.text().is_none())] {
            if empty {
                let message = format!("log.security = \"{}\" needs it: set {key}", log.security.show());
                faults.push(fault(key, origin("log.security"), message));
            }
        }
    }
    if log.client_certificate.path().is_some() != log.client_key.path().is_some() {
        let (key, other) = match log.client_certificate.path() {
            Some(_) => ("log.client_certificate", "log.client_key"),
            None => ("log.client_key", "log.client_certificate"),
        };
        faults.push(fault(key, origin(key), format!("it goes with {other}: set both, or neither")));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};

    fn faults(pairs: &[(&str, &str)]) -> Vec<String> {
        let variable = |(key, value): &(&str, &str)| (format!("RIOMAR_LOG_{key}"), (*value).to_owned());
        let sources = Sources { environment: pairs.iter().map(variable).collect(), ..Sources::default() };
        let faults = resolve(Config::new(), &sources).map(|_| Vec::new()).unwrap_or_else(|error| error.faults);
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn topics_keep_records_for_ever_or_for_a_time() {
        assert_eq!(Config::new().log.topic_retain.milliseconds(), None, "what has not landed is nobody's to delete");
        for (text, shown, milliseconds) in
            [("forever", "forever", None), ("7d", "7d", Some(604_800_000)), ("90s", "1m30s", Some(90_000))]
        {
            let retain = TopicRetain::read(text).expect(text);
            assert_eq!((retain.show().as_str(), retain.milliseconds()), (shown, milliseconds));
            assert_eq!(TopicRetain::read(shown), Ok(retain));
        }
        for text in ["0s", "-1", "Forever", "never", ""] {
            assert!(TopicRetain::read(text).expect_err(text).contains("\"forever\""), "{text}");
        }
    }

    #[test]
    fn what_goes_together_is_taken() {
        let login = [("USER", "me"), ("PASSWORD", "hunter2")];
        let client = [("CLIENT_CERTIFICATE", "c.pem"), ("CLIENT_KEY", "k.pem")];
        let cases: [(&str, Vec<(&str, &str)>); 6] = [
            ("plaintext", vec![]),
            ("tls", vec![]),
            ("tls", [("CA_FILE", "ca.pem")].into_iter().chain(client).collect()),
            ("sasl_plaintext", login.into_iter().chain([("SASL_MECHANISM", "plain")]).collect()),
            ("sasl_tls", login.to_vec()),
            ("sasl_tls", login.into_iter().chain(client).chain([("SASL_MECHANISM", "scram-sha-256")]).collect()),
        ];
        for (security, mut pairs) in cases {
            pairs.push(("SECURITY", security));
            assert_eq!(faults(&pairs), Vec::<String>::new(), "{pairs:?}");
        }
    }

    #[test]
    fn what_contradicts_itself_or_is_missing_is_named_with_what_to_do() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: [Case<'_>; 8] = [
            (
                &[("CA_FILE", "ca.pem")],
                &[
                    "RIOMAR_LOG_CA_FILE: log.ca_file: it does nothing while log.security is \"plaintext\": set that to \"tls\" or \
                   \"sasl_tls\", or leave this out",
                ],
            ),
            (
                &[("SECURITY", "tls"), ("USER", "me"), ("PASSWORD", "hunter2")],
                &[
                    "RIOMAR_LOG_USER: log.user: it does nothing while log.security is \"tls\": set that to \"sasl_tls\" or \
                     \"sasl_plaintext\", or leave this out",
                    "RIOMAR_LOG_PASSWORD: log.password: it does nothing while log.security is \"tls\": set that to \"sasl_tls\" or \
                     \"sasl_plaintext\", or leave this out",
                ],
            ),
            (
                &[("SASL_MECHANISM", "plain")],
                &[
                    "RIOMAR_LOG_SASL_MECHANISM: log.sasl_mechanism: it does nothing while log.security is \"plaintext\": set that to \
                   \"sasl_tls\" or \"sasl_plaintext\", or leave this out",
                ],
            ),
            (
                &[("SECURITY", "sasl_tls")],
                &[
                    "RIOMAR_LOG_SECURITY: log.user: log.security = \"sasl_tls\" needs it: set log.user",
                    "RIOMAR_LOG_SECURITY: log.password: log.security = \"sasl_tls\" needs it: set log.password",
                ],
            ),
            (
                &[("SECURITY", "tls"), ("CLIENT_KEY", "k.pem")],
                &["RIOMAR_LOG_CLIENT_KEY: log.client_key: it goes with log.client_certificate: set both, or neither"],
            ),
            (
                &[("SECURITY", "tls"), ("CLIENT_CERTIFICATE", "c.pem")],
                &["RIOMAR_LOG_CLIENT_CERTIFICATE: log.client_certificate: it goes with log.client_key: set both, or neither"],
            ),
            (
                &[("SECURITY", "ssl")],
                &[
                    "RIOMAR_LOG_SECURITY: log.security: 'ssl' is no protection: use \"plaintext\", \"tls\", \"sasl_plaintext\" or \
                   \"sasl_tls\"",
                ],
            ),
            (
                &[("SASL_MECHANISM", "GSSAPI")],
                &["RIOMAR_LOG_SASL_MECHANISM: log.sasl_mechanism: 'GSSAPI' is no mechanism that this build knows: use \
                   \"scram-sha-512\", \"scram-sha-256\" or \"plain\""],
            ),
        ];
        for (pairs, expected) in cases {
            let found = faults(pairs);
            assert_eq!(found, expected, "{pairs:?}");
            assert!(!found.iter().any(|fault| fault.contains("hunter2")), "{found:?}");
        }
    }
}
