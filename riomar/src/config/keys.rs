//! The table of all configuration keys: one line each, and nothing else knows their names.

use super::{
    Config,
    setting::{Notation, Setting},
};

/// One configuration key.
#[derive(Debug)]
pub struct Key {
    /// Its name, with its section: `batch.every`.
    pub name: &'static str,
    /// How its value is written.
    pub notation: Notation,
    /// Sets it from text; the error says what was expected.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
    /// Its value as text.
    pub get: fn(&Config) -> String,
}

impl Key {
    /// The environment variable that sets it: `RIOMAR_BATCH_EVERY`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("RIOMAR_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// The section of `riomar.toml` that it stands in; empty for the few that stand above all sections.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// Its value as `riomar.toml` writes it.
    #[must_use]
    pub fn toml(&self, config: &Config) -> String {
        let value = (self.get)(config);
        match self.notation {
            Notation::String => toml::Value::String(value).to_string(),
            Notation::Integer => value,
        }
    }
}

/// The notation of a field's type.
const fn notation<T: Setting>(_: fn(&Config) -> &T) -> Notation {
    T::NOTATION
}

macro_rules! key {
    ($first:ident $(. $rest:ident)*) => {
        Key {
            name: concat!(stringify!($first) $(, ".", stringify!($rest))*),
            notation: notation(|config| &config.$first $(.$rest)*),
            set: |config, text| {
                config.$first $(.$rest)* = Setting::read(text)?;
                Ok(())
            },
            get: |config| config.$first $(.$rest)*.show(),
        }
    };
}

/// Every key, in the order of `riomar.toml`.
pub static KEYS: &[Key] = &[
    key!(data),
    key!(schemas),
    key!(log.kind),
    key!(log.retain),
    key!(log.brokers),
    key!(log.topic_prefix),
    key!(log.replication),
    key!(log.topic_retain),
    key!(log.security),
    key!(log.ca_file),
    key!(log.client_certificate),
    key!(log.client_key),
    key!(log.sasl_mechanism),
    key!(log.user),
    key!(log.password),
    key!(master.url),
    key!(master.s3_endpoint),
    key!(master.s3_region),
    key!(realtime.kind),
    key!(realtime.url),
    key!(realtime.ca_file),
    key!(realtime.client_certificate),
    key!(realtime.client_key),
    key!(batch.every),
    key!(batch.landing_rows_max),
    key!(batch.landing_bytes_max),
    key!(batch.landing_age_max),
    key!(batch.generations_kept),
    key!(batch.groups_per_view_max),
    key!(batch.memory_max),
    key!(speed.batch_events_max),
    key!(speed.batch_pause),
    key!(speed.groups_per_epoch_max),
    key!(speed.grace),
    key!(serving.http),
    key!(serving.connections_max),
    key!(serving.query_time_max),
    key!(serving.memory_max),
    key!(serving.result_rows_max),
    key!(serving.result_bytes_max),
    key!(ingestion.body_bytes_max),
    key!(ingestion.decompressed_bytes_max),
    key!(ingestion.event_bytes_max),
    key!(ingestion.events_max),
    key!(ingestion.body_time_max),
    key!(ingestion.requests_max),
    key!(ingestion.requests_bytes_max),
];

/// Variables that begin with `RIOMAR_` and are no configuration keys: they have their own flags.
pub const OTHER_VARIABLES: &[&str] = &["RIOMAR_CONFIG", "RIOMAR_URL", "RIOMAR_LOG"];

/// Keys of the design that this build does not hold yet.
pub const NOT_IN_THIS_BUILD: &[&str] = &["serving.postgres", "postgres"];
