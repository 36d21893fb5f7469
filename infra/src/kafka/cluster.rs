//! A Kafka cluster for one test: three brokers on loopback, each of them a controller too.

use std::thread;

use super::{KafkaBroker, KafkaOptions, PORTS_MAX, PROGRAM, Ports};
use crate::error::ServiceError;

const NODES: usize = 3;
/// Memory for the objects of each broker, in MiB.
pub(super) const HEAP_MIB: u32 = 256;

/// A cluster of three brokers, with the ids 1 to 3, that are killed when this value is dropped and when the process ends. They take about
/// 250 MB each. Two of them have to run for anything to be created or led by another broker.
#[derive(Debug)]
pub struct KafkaCluster {
    nodes: Vec<KafkaBroker>,
}

impl KafkaCluster {
    /// Starts three empty brokers at the same time, and waits until all of them answer.
    ///
    /// # Errors
    /// As [`KafkaBroker::start`].
    pub fn start() -> Result<Self, ServiceError> {
        let nodes = (1..=NODES).map(|number| KafkaBroker::prepare(KafkaOptions::default(), number));
        let mut cluster = Self { nodes: nodes.collect::<Result<_, _>>()? };
        let mut attempts = 0;
        loop {
            attempts += 1;
            cluster.choose_ports()?;
            match cluster.start_again() {
                Err(ServiceError::Ended { output, .. }) if output.contains("in use") && attempts < PORTS_MAX => {}
                started => return started.map(|()| cluster),
            }
        }
    }

    /// The addresses for clients, with commas between them.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(KafkaBroker::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// A broker by its id, to be killed, frozen or started again.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] when there is none.
    pub fn node_mut(&mut self, id: i32) -> Result<&mut KafkaBroker, ServiceError> {
        let place = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        let node = place.and_then(|place| self.nodes.get_mut(place));
        node.ok_or_else(|| ServiceError::Refused(format!("no broker has the id {id}")))
    }

    /// Starts those that do not run, or are frozen, again on the same ports and data, at the same time, and waits until they answer.
    ///
    /// # Errors
    /// As [`KafkaBroker::start`].
    pub fn start_again(&mut self) -> Result<(), ServiceError> {
        let down = self.nodes.iter_mut().filter(|node| !node.service.goes_on());
        let started: Vec<Result<(), ServiceError>> = thread::scope(|scope| {
            let starting: Vec<_> = down.map(|node| scope.spawn(|| node.restart())).collect();
            let panicked = || ServiceError::Refused(format!("starting {PROGRAM} panicked"));
            starting.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
        });
        started.into_iter().collect()
    }

    fn choose_ports(&mut self) -> Result<(), ServiceError> {
        for node in &mut self.nodes {
            node.service.make_way();
            node.ports = Ports::free()?;
        }
        let controllers: Vec<_> = self.nodes.iter().map(|node| node.ports.controller).collect();
        self.nodes.iter_mut().for_each(|node| node.controllers.clone_from(&controllers));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_of_a_cluster_come_and_go() {
        let mut cluster = KafkaCluster::start().unwrap_or_else(|error| panic!("{error}"));
        let bootstrap = cluster.bootstrap();
        assert_eq!(bootstrap.split(',').count(), NODES);
        let runs = |cluster: &KafkaCluster| cluster.nodes.iter().map(|node| node.service.goes_on()).collect::<Vec<_>>();
        cluster.node_mut(2).expect("is there").kill().expect("killed");
        cluster.node_mut(3).expect("is there").pause().expect("paused");
        assert_eq!(runs(&cluster), [true, false, false]);
        cluster.start_again().expect("start");
        assert_eq!((runs(&cluster), cluster.bootstrap()), (vec![true; NODES], bootstrap));
        for id in [0, 4, -1] {
            assert!(cluster.node_mut(id).is_err());
        }
    }
}
