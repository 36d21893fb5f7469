//! The logs that scenarios run on: the embedded one, or topics of their own in a real Kafka broker.

use std::{path::Path, sync::Arc};

use riomar_event_log::{Clock, EmbeddedLog, KafkaLog, KafkaSettings, Log, SystemClock};
use riomar_infra::KafkaBroker;

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
    /// Opens the log; an embedded one stands in this directory and goes by this clock.
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
                    let settings = KafkaSettings { topic_prefix: topic_prefix.clone(), ..KafkaSettings::new(broker.bootstrap()) };
                    // What it waits for is another process, which knows nothing of a clock that stands still.
                    Arc::new(KafkaLog::connect(settings, Arc::new(SystemClock)).expect("clients of Kafka"))
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
