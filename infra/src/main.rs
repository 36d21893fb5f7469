//! Starts the real services on this machine, without Docker: Kafka, Redis and an S3 server, on free loopback ports, until Ctrl-C.
//! What they hold goes with them.

use std::process::ExitCode;

use riomar_infra::{KafkaBroker, RedisServer, S3Server, ServiceError};

/// The services; stopped when dropped.
struct Services {
    kafka: KafkaBroker,
    redis: RedisServer,
    s3: S3Server,
}

impl Services {
    fn start() -> Result<Self, ServiceError> {
        Ok(Self { kafka: KafkaBroker::start()?, redis: RedisServer::start()?, s3: S3Server::start()? })
    }

    /// The variables that a process of Riomar needs to find them.
    fn variables(&self) -> Vec<(String, String)> {
        let own = [
            ("RIOMAR_LOG_KIND", "kafka".to_owned()),
            ("RIOMAR_LOG_BROKERS", self.kafka.bootstrap()),
            ("RIOMAR_REALTIME_KIND", "redis".to_owned()),
            ("RIOMAR_REALTIME_URL", self.redis.url()),
            ("RIOMAR_MASTER_URL", format!("s3://{}/riomar", self.s3.bucket())),
            ("RIOMAR_MASTER_S3_ENDPOINT", self.s3.endpoint()),
        ];
        own.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(self.s3.environment()).collect()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    eprintln!("starting Kafka, Redis and an S3 server; the first start fetches Kafka");
    let services = match Services::start() {
        Ok(services) => services,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for (name, value) in services.variables() {
        println!("export {name}={value}");
    }
    eprintln!("Set these variables, then start `riomar up --role …`. Ctrl-C stops the services, and what they hold is gone.");
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("Ctrl-C cannot be waited for: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
