//! The configuration of a broker, as its file `server.properties`.

use std::{fs, path::Path};

use super::{KafkaOptions, PASSWORD, Ports, USER};
use crate::{
    certificates::Certificates,
    error::{Doing, ServiceError},
};

const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule";
const PLAIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule";

/// A broker that is a node of a cluster, which may be the only one.
pub(super) struct Node<'a> {
    pub(super) options: &'a KafkaOptions,
    pub(super) directory: &'a Path,
    /// Which node it is, from 1.
    pub(super) number: usize,
    pub(super) ports: Ports,
    /// The controllers' ports of all nodes, in their order.
    pub(super) controllers: &'a [u16],
}

impl Node<'_> {
    /// What its file says; what that names is written beside it.
    pub(super) fn properties(&self) -> Result<String, ServiceError> {
        let mut properties = self.cluster();
        properties.push_str(WITH_LITTLE);
        if let Some(certificates) = &self.options.tls {
            properties.push_str(&self.tls(certificates)?);
        }
        if self.options.login {
            properties.push_str(&login());
        }
        Ok(properties)
    }

    /// Who and where the nodes are. What Kafka keeps for itself is on all of them, and has to be on all but one.
    fn cluster(&self) -> String {
        let Ports { clients, inside, controller } = self.ports;
        let voter = |(number, port): (usize, &u16)| format!("{number}@127.0.0.1:{port}");
        let voters: Vec<_> = (1..).zip(self.controllers).map(voter).collect();
        let (copies, in_sync) = (self.controllers.len(), self.controllers.len().saturating_sub(1).max(1));
        // A node that is dead is missed soon; but three on a busy machine are not to miss each other all the time.
        let (heartbeat_ms, session_ms) = if copies > 1 { (500, 4_000) } else { (300, 1_500) };
        let protocol = match (&self.options.tls, self.options.login) {
            (None, false) => "PLAINTEXT",
            (None, true) => "SASL_PLAINTEXT",
            (Some(_), false) => "SSL",
            (Some(_), true) => "SASL_SSL",
        };
        format!(
            "process.roles=broker,controller\n\
             node.id={}\n\
             controller.quorum.voters={}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=CLIENTS://127.0.0.1:{clients},INSIDE://127.0.0.1:{inside},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=CLIENTS://127.0.0.1:{clients},INSIDE://127.0.0.1:{inside}\n\
             listener.security.protocol.map=CLIENTS:{protocol},INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=INSIDE\n\
             log.dirs={}\n\
             offsets.topic.replication.factor={copies}\n\
             transaction.state.log.replication.factor={copies}\n\
             transaction.state.log.min.isr={in_sync}\n\
             broker.heartbeat.interval.ms={heartbeat_ms}\n\
             broker.session.timeout.ms={session_ms}\n",
            self.number,
            voters.join(","),
            self.directory.join("data").display(),
        )
    }

    fn tls(&self, certificates: &Certificates) -> Result<String, ServiceError> {
        let read = |path: &Path| fs::read_to_string(path).doing(|| format!("reading {}", path.display()));
        let keys = self.directory.join("keys.pem");
        let text = read(&certificates.server_key())? + &read(&certificates.server())?;
        fs::write(&keys, text).doing(|| format!("writing {}", keys.display()))?;
        let auth = if self.options.client_certificates { "required" } else { "none" };
        Ok(format!(
            "listener.name.clients.ssl.keystore.type=PEM\n\
             listener.name.clients.ssl.keystore.location={}\n\
             listener.name.clients.ssl.truststore.type=PEM\n\
             listener.name.clients.ssl.truststore.location={}\n\
             listener.name.clients.ssl.client.auth={auth}\n",
            keys.display(),
            certificates.ca().display(),
        ))
    }
}

/// Quick to let members join and leave, and with little memory.
const WITH_LITTLE: &str = "offsets.topic.num.partitions=1\n\
     transaction.state.log.num.partitions=1\n\
     group.initial.rebalance.delay.ms=0\n\
     group.min.session.timeout.ms=500\n\
     num.network.threads=2\n\
     num.io.threads=4\n\
     num.recovery.threads.per.data.dir=1\n\
     log.cleaner.threads=1\n\
     log.cleaner.dedupe.buffer.size=4194304\n";

/// The user is known to SCRAM by the data directory, and to PLAIN by its configuration.
fn login() -> String {
    format!(
        "listener.name.clients.sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN\n\
         listener.name.clients.scram-sha-512.sasl.jaas.config={SCRAM} required;\n\
         listener.name.clients.scram-sha-256.sasl.jaas.config={SCRAM} required;\n\
         listener.name.clients.plain.sasl.jaas.config={PLAIN} required user_{USER}=\"{PASSWORD}\";\n"
    )
}
