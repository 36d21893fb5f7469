//! The settings of the layers, from the configuration. Plain data.

use std::{path::PathBuf, sync::Arc, time::Duration};

use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use riomar_batch_layer::{BatchConfig, FreshIds, generations::Retention, landing::LandingLimits, schedule::Schedule};
use riomar_serving_layer::{ingestion::IngestionLimits, query::QueryLimits, roles::Roles, server::ServerLimits};
use riomar_speed_layer::SpeedLimits;

use super::PlatformError;
use crate::config::Config;

/// How long requests under way may take to end when the platform stops. Landing needs the rest of the ten seconds that a stop may take.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Roles, limits and paces of all layers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What this process does.
    pub roles: Roles,
    /// The name of the host, by which people tell processes from each other.
    pub host: String,
    /// The batch layer.
    pub batch: BatchConfig,
    /// When recomputes start by themselves.
    pub schedule: Schedule,
    /// Bytes of memory that recomputes and audits may use together.
    pub memory_bytes: usize,
    /// Bytes of memory that queries may use together.
    pub query_memory_bytes: usize,
    /// Where they put what does not fit; a directory of the system for such files without it.
    pub spill: Option<PathBuf>,
    /// Names of new files and runs.
    pub fresh_ids: FreshIds,
    /// Tells the request ids of this process from those of others.
    pub process_id: u64,
    /// The speed layer.
    pub speed: SpeedLimits,
    /// One query.
    pub query: QueryLimits,
    /// Ingestion.
    pub ingestion: IngestionLimits,
    /// The HTTP server.
    pub server: ServerLimits,
}

impl Settings {
    /// The settings that a configuration describes.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let (batch, speed, serving, ingestion) = (&config.batch, &config.speed, &config.serving, &config.ingestion);
        let landing = LandingLimits {
            buffered_rows: batch.landing_rows_max,
            buffered_bytes: batch.landing_bytes_max.as_usize(),
            buffered_age_ms: batch.landing_age_max.as_millis(),
            ..LandingLimits::default()
        };
        let retention = Retention { generations: batch.generations_kept, ..Retention::default() };
        Self {
            roles: Roles::all(),
            host: "localhost".to_owned(),
            batch: BatchConfig {
                landing,
                retention,
                log_retain_ms: config.log.retain.as_millis(),
                groups_per_view_max: batch.groups_per_view_max,
                ..BatchConfig::default()
            },
            schedule: batch.every.clone(),
            memory_bytes: batch.memory_max.as_usize(),
            query_memory_bytes: serving.memory_max.as_usize(),
            spill: None,
            fresh_ids: FreshIds::random(),
            process_id: 0,
            speed: SpeedLimits {
                batch_records_max: speed.batch_events_max,
                batch_pause: speed.batch_pause.duration(),
                groups_max: speed.groups_per_epoch_max,
                removal_grace: speed.grace.duration(),
                ..SpeedLimits::default()
            },
            query: QueryLimits {
                rows_max: serving.result_rows_max,
                bytes_max: serving.result_bytes_max.as_usize(),
                time_max: serving.query_time_max.duration(),
            },
            ingestion: IngestionLimits {
                body_bytes_max: ingestion.body_bytes_max.bytes(),
                decompressed_bytes_max: ingestion.decompressed_bytes_max.bytes(),
                event_bytes_max: ingestion.event_bytes_max.as_usize(),
                events_max: ingestion.events_max,
                body_seconds_max: ingestion.body_time_max.duration().as_secs().max(1),
                requests_in_flight_max: ingestion.requests_max,
                bytes_in_flight_max: ingestion.requests_bytes_max.bytes(),
            },
            server: ServerLimits { connections_max: serving.connections_max, drain_max: DRAIN_MAX, ..ServerLimits::default() },
        }
    }
}

impl Settings {
    /// The memory of recomputes, and the disk that they and queries share.
    pub(super) fn runtime(&self) -> Result<Arc<RuntimeEnv>, PlatformError> {
        let mut runtime = RuntimeEnvBuilder::new().with_memory_limit(self.memory_bytes, 1.0);
        if let Some(spill) = &self.spill {
            runtime = runtime.with_temp_file_path(spill);
        }
        runtime.build_arc().map_err(|error| PlatformError::Engine(error.to_string()))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&Config::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_layers() {
        let settings = Settings::default();
        assert_eq!(settings.batch, BatchConfig::default());
        assert_eq!(settings.speed, SpeedLimits::default());
        let (query, layer) = (settings.query, QueryLimits::default());
        assert_eq!((query.rows_max, query.bytes_max, query.time_max), (layer.rows_max, layer.bytes_max, layer.time_max));
        assert_eq!(settings.ingestion, IngestionLimits::default());
        assert_eq!(settings.server, ServerLimits { drain_max: DRAIN_MAX, ..ServerLimits::default() });
    }
}
