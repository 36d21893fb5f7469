//! The logs that scenarios run on: the embedded one, or topics of their own in a real Kafka broker.

use std::{path::Path, sync::Arc};

use riomar_event_log::{Clock, EmbeddedLog, KafkaLog, KafkaSettings, Log};
use riomar_infra::KafkaBroker;

/// How long a call of Kafka may take: a machine may be slow, and that is not what scenarios are about.
const PATIENCE_MS: u32 = 60_000;

/// Where the log of a scenario is.
#[derive(Debug)]
pub enum Logs {
    /// In the scenario's own directory.
    Embedded,
    /// In a broker that several scenarios may share, under names that begin like this.
    Kafka {
        /// The broker.
        broker: Arc<KafkaBroker>,
        /// What the names of the scenario's topics, and of no other's, begin with.
        topic_prefix: String,
    },
}

/// A log that is open: for each of two platforms, and for the test itself. In Kafka each has clients of its own.
#[derive(Debug)]
pub(crate) struct OpenLogs {
    pub(crate) platforms: [Arc<dyn Log>; 2],
    pub(crate) own: Arc<dyn Log>,
    embedded: Option<Arc<EmbeddedLog>>,
}

impl Logs {
    /// Opens the log, which goes by this clock; an embedded one stands in this directory.
    ///
    /// # Panics
    /// When the directory cannot be used.
    pub(crate) fn open(&self, directory: &Path, clock: Arc<dyn Clock>) -> OpenLogs {
        match self {
            Self::Embedded => {
                let log = Arc::new(EmbeddedLog::open(directory, clock).expect("the log opens"));
                OpenLogs { platforms: [log.clone(), log.clone()], own: log.clone(), embedded: Some(log) }
            }
            Self::Kafka { broker, topic_prefix } => {
                let connect = || -> Arc<dyn Log> {
                    let settings = KafkaSettings {
                        topic_prefix: topic_prefix.clone(),
                        request_timeout_ms: PATIENCE_MS,
                        delivery_timeout_ms: PATIENCE_MS,
                        ..KafkaSettings::new(broker.bootstrap())
                    };
                    Arc::new(KafkaLog::connect(settings, clock.clone()).expect("clients of Kafka"))
                };
                OpenLogs { platforms: [connect(), connect()], own: connect(), embedded: None }
            }
        }
    }
}

impl OpenLogs {
    /// Closes what is in files.
    ///
    /// # Panics
    /// When that fails.
    pub(crate) async fn close(self) {
        if let Some(log) = self.embedded {
            log.close().await.expect("the log closes");
        }
    }
}
