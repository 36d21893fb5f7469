//! What the platform of a configuration stands on.
//!
//! With the embedded log nothing else is needed, and everything is in one data directory:
//!
//! ```text
//! {data}/log/        the embedded log
//! {data}/objects/    master dataset and generations, unless master.url names another place
//! {data}/spill/      what queries and recomputes cannot hold in memory
//! ```

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use riomar_batch_layer::FreshIds;
use riomar_event_log::{
    Clock, EmbeddedLog, KafkaClientCertificate, KafkaLog, KafkaLogin, KafkaSecurity, KafkaSettings, KafkaTls, Log, LogError,
    SaslMechanism,
};
use riomar_schemas::Catalog;
use riomar_serving_layer::{
    roles::{Role, Roles},
    starting::{Start, Step},
};
use riomar_speed_layer::{MemoryStore, RealtimeStore, RedisClientCertificate, RedisLimits, RedisStore, RedisTls};

use super::{Parts, Platform, PlatformError, Settings, deployment::Deployment, later_realtime::LaterRealtime};
use crate::{
    config::{self, Config, LogKind, RealtimeKind},
    objects,
    own_folder::OwnFolder,
};

/// The folder of the embedded log.
pub const LOG: &str = "log";
/// The folder for what does not fit into memory.
const SPILL: &str = "spill";

/// The wait before a log that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What belongs to this process alone, for as long as it runs.
pub(super) struct Own {
    /// The embedded log, to be closed at the end.
    pub log: Option<Arc<EmbeddedLog>>,
    /// The folder for what does not fit into memory, which is its own as long as this is held.
    _spill: OwnFolder,
    /// The directory that all of it is in.
    pub data: PathBuf,
    /// Whose realtime states these are.
    pub deployment: Arc<Deployment>,
}

/// What a start waits for after its data directory.
const OBJECT_STORE: Step = Step {
    name: "object store",
    meaning: "it is asked for the first time; where it does not answer, the start soon goes on without it",
};
/// And then.
const LOG_ANSWERS: Step = Step {
    name: "log",
    meaning: "it is asked for the topics of every stream; where it does not answer, the process waits for it before it begins",
};

impl Platform {
    /// Opens the platform that a configuration describes, for these roles. Waits while an embedded log recovers what was written
    /// last, and while Kafka does not answer; `start` says so to whoever asks. An object store that does not answer is not waited for.
    ///
    /// # Errors
    /// Roles that the configuration has no room for; a directory that cannot be used, that another process uses, or that holds
    /// damaged files; an object store that refuses.
    pub async fn configured(
        config: &Config,
        roles: Roles,
        catalog: Arc<Catalog>,
        clock: Arc<dyn Clock>,
        start: &Start,
    ) -> Result<Self, PlatformError> {
        check(config, &roles)?;
        let (embedded, spill) = {
            let (config, clock) = (config.clone(), Arc::clone(&clock));
            let opened = tokio::task::spawn_blocking(move || open_data(&config, clock)).await;
            opened.map_err(|error| LogError::Unavailable(error.to_string()))??
        };
        let log: Arc<dyn Log> = match &embedded {
            Some(log) => log.clone(),
            None => Arc::new(KafkaLog::connect(kafka(config), Arc::clone(&clock))?),
        };
        start.waits_for(OBJECT_STORE);
        let objects = objects::open(config).await?;
        let fresh_ids = FreshIds::random();
        let fresh = fresh_ids.next().simple().to_string();
        let deployment = Arc::new(Deployment::new(Arc::clone(&objects), Arc::clone(&clock), fresh));
        let realtime: Arc<dyn RealtimeStore> = match config.realtime.kind {
            RealtimeKind::Memory => Arc::new(MemoryStore::new()),
            RealtimeKind::Redis => {
                Arc::new(LaterRealtime::new(config.realtime.url.address().clone(), tls(config)?, Arc::clone(&deployment))?)
            }
        };
        let mut settings = Settings {
            roles,
            host: host(),
            spill: Some(spill.path().to_owned()),
            process_id: fresh_ids.next().as_u64_pair().0,
            ..Settings::of(config)
        };
        settings.batch.shared = embedded.is_none();
        start.waits_for(LOG_ANSWERS);
        let parts = Parts { catalog, log, objects, realtime, clock, settings };
        let (opened, ()) = tokio::try_join!(open(parts), deployment.begin())?;
        let own = Own { log: embedded, _spill: spill, data: config.data.clone(), deployment };
        Ok(Self { own: Some(own), ..opened })
    }
}

/// Opens a platform. Like the object store, a log that is shared with others and down when a process starts is waited for.
async fn open(parts: Parts) -> Result<Platform, PlatformError> {
    let mut waiting = false;
    loop {
        match Platform::open(parts.clone()).await {
            Err(PlatformError::Log(LogError::Unavailable(cause))) if parts.settings.batch.shared => {
                if !waiting {
                    tracing::warn!(cause, "the log does not answer; the platform waits for it before it starts");
                }
                waiting = true;
                parts.clock.sleep(ASK_AGAIN).await;
            }
            opened => {
                if waiting && opened.is_ok() {
                    tracing::info!("the log answers; the platform starts");
                }
                return opened;
            }
        }
    }
}

/// The log of a configuration, for whoever only looks.
///
/// # Errors
/// [`LogError::Locked`] where a running process has the embedded log open; what opening it reports.
pub async fn log(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn Log>, LogError> {
    match config.log.kind {
        LogKind::Embedded => {
            let directory = config.data.join(LOG);
            let opened = tokio::task::spawn_blocking(move || EmbeddedLog::open(&directory, clock)).await;
            Ok(Arc::new(opened.map_err(|error| LogError::Unavailable(error.to_string()))??))
        }
        LogKind::Kafka => Ok(Arc::new(KafkaLog::connect(kafka(config), clock)?)),
    }
}

/// The realtime store of a configuration, for the deployment of this id.
///
/// # Errors
/// Certificates that cannot be used.
pub fn realtime(config: &Config, deployment: &str) -> Result<Arc<dyn RealtimeStore>, PlatformError> {
    Ok(match config.realtime.kind {
        RealtimeKind::Memory => Arc::new(MemoryStore::new()),
        RealtimeKind::Redis => {
            Arc::new(RedisStore::connect(config.realtime.url.address(), &tls(config)?, deployment, RedisLimits::default())?)
        }
    })
}

/// Opens the data directory: the embedded log, if it is that one, and the folder for what does not fit into memory. The log first: its
/// lock keeps every other process away from the directory.
fn open_data(config: &Config, clock: Arc<dyn Clock>) -> Result<(Option<Arc<EmbeddedLog>>, OwnFolder), PlatformError> {
    let data = &config.data;
    DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(directory(data))?;
    let log = match config.log.kind {
        LogKind::Embedded => Some(Arc::new(EmbeddedLog::open(&data.join(LOG), clock)?)),
        LogKind::Kafka => None,
    };
    let spill = data.join(SPILL);
    Ok((log, OwnFolder::take(&spill).map_err(directory(&spill))?))
}

/// The name of this host, as the kernel or the environment has it.
fn host() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

/// Refuses roles that could not work together with those of other processes.
fn check(config: &Config, roles: &Roles) -> Result<(), PlatformError> {
    let refused = |reason| Err(PlatformError::Roles { roles: roles.clone(), reason });
    if roles.are_all() {
        return Ok(());
    }
    if config.log.kind == LogKind::Embedded {
        return refused("the embedded log belongs to one process. Set log.kind = \"kafka\", or start every role in one process");
    }
    let reads_or_writes = roles.has(Role::Speed) || roles.has(Role::Serve);
    if config.realtime.kind == RealtimeKind::Memory && reads_or_writes {
        return refused("realtime views in memory are seen by one process alone. Set realtime.kind = \"redis\"");
    }
    Ok(())
}

fn kafka(config: &Config) -> KafkaSettings {
    let log = &config.log;
    KafkaSettings {
        topic_prefix: log.topic_prefix.clone(),
        replication: u16::try_from(log.replication).unwrap_or(u16::MAX),
        retention_ms: log.topic_retain.milliseconds(),
        security: kafka_security(log),
        ..KafkaSettings::new(log.brokers.clone())
    }
}

/// What is set beside the protection that was chosen was refused with the configuration.
fn kafka_security(log: &config::Log) -> KafkaSecurity {
    let client = || {
        let (certificate, key) = (log.client_certificate.path()?, log.client_key.path()?);
        Some(KafkaClientCertificate { certificate_file: certificate.to_owned(), key_file: key.to_owned() })
    };
    let tls = || KafkaTls { ca_file: log.ca_file.path().map(Path::to_owned), client: client() };
    let login = || KafkaLogin {
        mechanism: match log.sasl_mechanism {
            config::SaslMechanism::Plain => SaslMechanism::Plain,
            config::SaslMechanism::ScramSha256 => SaslMechanism::ScramSha256,
            config::SaslMechanism::ScramSha512 => SaslMechanism::ScramSha512,
        },
        user: log.user.clone(),
        password: log.password.text().unwrap_or_default().to_owned(),
    };
    KafkaSecurity { tls: log.security.has_tls().then(tls), login: log.security.has_user().then(login) }
}

fn tls(config: &Config) -> Result<RedisTls, PlatformError> {
    let realtime = &config.realtime;
    let client = match (realtime.client_certificate.path(), realtime.client_key.path()) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            Some(RedisClientCertificate { certificate_file: certificate.to_owned(), key_file: key.to_owned() })
        }
        _ => return Err(PlatformError::HalfACertificate),
    };
    Ok(RedisTls { ca_file: realtime.ca_file.path().map(Path::to_owned), client })
}

fn directory(path: &Path) -> impl FnOnce(io::Error) -> PlatformError {
    let path: PathBuf = path.to_owned();
    move |source| PlatformError::Directory { path, source }
}

#[cfg(test)]
mod tests {
    use riomar_event_log::SystemClock;
    use riomar_infra::{
        Certificates, KafkaBroker, KafkaOptions,
        kafka::{PASSWORD, USER},
    };

    use super::*;

    /// The defaults, with these values.
    fn configuration(pairs: &[(&str, &str)]) -> Config {
        let mut config = Config::new();
        for (name, value) in pairs {
            let key = config::KEYS.iter().find(|key| key.name == *name).expect("a key");
            (key.set)(&mut config, value).expect("valid");
        }
        config
    }

    #[test]
    fn brokers_are_reached_as_the_configuration_says() {
        let set = |pairs: &[(&str, &str)]| kafka(&configuration(pairs)).security;
        assert_eq!(set(&[]), KafkaSecurity::default());
        assert_eq!(set(&[("log.security", "tls")]), KafkaSecurity { tls: Some(KafkaTls::default()), login: None });
        let user = [("log.security", "sasl_plaintext"), ("log.user", "me"), ("log.password", "hunter2")];
        let login = KafkaLogin { mechanism: SaslMechanism::ScramSha512, user: "me".to_owned(), password: "hunter2".to_owned() };
        assert_eq!(set(&user), KafkaSecurity { tls: None, login: Some(login.clone()) });
        let all = [
            ("log.security", "sasl_tls"),
            ("log.ca_file", "ca.pem"),
            ("log.client_certificate", "c.pem"),
            ("log.client_key", "k.pem"),
            ("log.sasl_mechanism", "plain"),
        ];
        let client = Some(KafkaClientCertificate { certificate_file: "c.pem".into(), key_file: "k.pem".into() });
        let tls = Some(KafkaTls { ca_file: Some("ca.pem".into()), client });
        let login = Some(KafkaLogin { mechanism: SaslMechanism::Plain, ..login });
        assert_eq!(set(&[&user[1..], &all].concat()), KafkaSecurity { tls, login });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broker_that_refuses_is_told_as_what_it_is() {
        let certificates = Arc::new(Certificates::generate().expect("certificates"));
        let options = KafkaOptions { tls: Some(certificates.clone()), login: true, ..KafkaOptions::default() };
        let broker = KafkaBroker::start_with(options).unwrap_or_else(|error| panic!("{error}"));
        let (brokers, ca_file) = (broker.bootstrap(), certificates.ca().display().to_string());
        let ask = async |password: &str| {
            let config = configuration(&[
                ("log.kind", "kafka"),
                ("log.brokers", &brokers),
                ("log.security", "sasl_tls"),
                ("log.ca_file", &ca_file),
                ("log.user", USER),
                ("log.password", password),
            ]);
            let log = log(&config, Arc::new(SystemClock)).await.expect("connecting asks nothing");
            log.partitions(&riomar_schemas::Name::new("page_views").expect("valid")).await
        };
        assert_eq!(ask(PASSWORD).await.expect("answers"), 0);
        let error = ask("not-hunter2").await.expect_err("is refused").to_string();
        assert!(error.contains("it refuses the user or the password") && !error.contains("hunter2"), "{error}");
        let missing = [("log.kind", "kafka"), ("log.security", "tls"), ("log.ca_file", "missing.pem")];
        let error = log(&configuration(&missing), Arc::new(SystemClock)).await.expect_err("no such file").to_string();
        assert!(error.contains("missing.pem, which is for Kafka, cannot be read"), "{error}");
    }

    #[test]
    fn roles_that_could_not_meet_are_refused() {
        let mut config = Config::new();
        let check = |config: &Config, roles: &str| check(config, &roles.parse().expect("roles"));
        check(&config, "all").expect("one process is the whole platform");
        for roles in ["ingest", "speed", "batch", "serve", "ingest,speed,batch"] {
            let error = check(&config, roles).expect_err(roles).to_string();
            assert!(error.contains(roles) && error.contains("log.kind = \"kafka\""), "{error}");
        }
        config.log.kind = LogKind::Kafka;
        for (roles, refused) in
            [("ingest", false), ("batch,ingest", false), ("speed", true), ("serve,ingest", true), ("all", false)]
        {
            assert_eq!(check(&config, roles).is_err(), refused, "{roles}");
        }
        config.realtime.kind = RealtimeKind::Redis;
        check(&config, "speed").expect("realtime views in Redis are seen by all");
    }
}
