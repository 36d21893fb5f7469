//! A Redis Cluster for one test: three masters on loopback, each with a replica if wanted. Slots can be moved step by step.

use std::{process::Command, sync::Arc, time::Duration};

use super::{RedisOptions, RedisServer};
use crate::{certificates::Certificates, error::ServiceError, process::wait_until};

const PROGRAM: &str = "redis-server";
const MASTERS: usize = 3;
const SLOTS: u16 = 16_384;
/// For a cluster to come to agree, and for a replica to take its master's place.
const DEADLINE: Duration = Duration::from_secs(60);
/// After this long without a word from a node, the others begin to call it dead, in milliseconds.
const NODE_TIMEOUT_MS: &str = "2000";
/// For one command to a node that is asked over and over.
const ASK_DEADLINE: Duration = Duration::from_secs(1);
/// For moving a key, in milliseconds.
const MIGRATE_TIMEOUT_MS: &str = "10000";

/// How a cluster is set up.
#[derive(Debug, Clone, Default)]
pub struct RedisClusterOptions {
    /// Whether each master has a replica, which takes its place when it dies.
    pub replicas: bool,
    /// The password of the user `default` of each node.
    pub password: Option<String>,
    /// More users of each node, as in [`RedisOptions::users`].
    pub users: Vec<String>,
    /// Clients use TLS, and so do the nodes among each other.
    pub tls: Option<Arc<Certificates>>,
}

/// A cluster whose nodes are killed when this value is dropped. Nodes 0 to 2 begin as masters; with replicas, node 3 + *n* begins as
/// the replica of node *n*.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    options: RedisClusterOptions,
}

/// A slot on its way from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotMove {
    /// The slot.
    pub slot: u16,
    /// The node that it leaves.
    pub from: usize,
    /// The node that it goes to.
    pub to: usize,
}

/// A node's own line of `CLUSTER NODES`.
#[derive(Debug, PartialEq, Eq)]
struct Myself {
    id: String,
    is_master: bool,
    config_epoch: u64,
    slots: Vec<(u16, u16)>,
}

impl Myself {
    fn read(nodes: &str) -> Option<Self> {
        let line = nodes.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")))?;
        let words: Vec<_> = line.split_whitespace().collect();
        let slots = words.iter().skip(8).filter(|word| !word.starts_with('[')).filter_map(|word| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        Some(Self {
            id: (*words.first()?).to_owned(),
            is_master: words.get(2)?.contains("master"),
            config_epoch: words.get(6)?.parse().ok()?,
            slots: slots.collect(),
        })
    }

    fn serves(&self, slot: u16) -> bool {
        self.is_master && self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

impl RedisCluster {
    /// Starts three masters, and waits until they serve all slots.
    ///
    /// # Errors
    /// As [`RedisServer::start`]; [`ServiceError::Deadline`] when the nodes do not come to agree.
    pub fn start() -> Result<Self, ServiceError> {
        Self::start_with(RedisClusterOptions::default())
    }

    /// Starts a cluster with these options, and waits until it serves all slots and its replicas have their copies.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(options: RedisClusterOptions) -> Result<Self, ServiceError> {
        let count = if options.replicas { 2 * MASTERS } else { MASTERS };
        let node = || {
            let RedisClusterOptions { password, users, tls, .. } = options.clone();
            RedisServer::start_as(RedisOptions { password, users, tls, ..RedisOptions::default() }, true)
        };
        let nodes = (0..count).map(|_| node()).collect::<Result<Vec<_>, _>>()?;
        let cluster = Self { nodes, options };
        cluster.join()?;
        cluster.wait_until_ok()?;
        Ok(cluster)
    }

    /// The address for clients, with the first three nodes: `redis-cluster://127.0.0.1:{port},…`, or `rediss-cluster://` with TLS; with
    /// the password, if there is one.
    #[must_use]
    pub fn url(&self) -> String {
        let login = self.options.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        self.url_with(&login)
    }

    /// The address for clients that are another user than `default`.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        self.url_with(&format!("{user}:{password}@"))
    }

    /// A node.
    ///
    /// # Panics
    /// When there is none of this number.
    #[must_use]
    pub fn node(&self, number: usize) -> &RedisServer {
        &self.nodes[number]
    }

    /// A node, to be killed, frozen or started again.
    ///
    /// # Panics
    /// When there is none of this number.
    pub fn node_mut(&mut self, number: usize) -> &mut RedisServer {
        &mut self.nodes[number]
    }

    /// The slot of a key.
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`] when no node runs, or what a node says.
    pub fn slot(&self, key: &str) -> Result<u16, ServiceError> {
        let (_, node) = self.running().next().ok_or_else(not_running)?;
        node.command(&["CLUSTER", "KEYSLOT", key])?.parse().map_err(|_| ServiceError::Refused("no slot".to_owned()))
    }

    /// The master of a slot, as it says itself: of several, the one that was chosen last.
    #[must_use]
    pub fn master(&self, slot: u16) -> Option<usize> {
        let claims = self.running().filter_map(|(number, node)| Some((number, myself(node)?)));
        let masters = claims.filter(|(_, myself)| myself.serves(slot));
        masters.max_by_key(|(_, myself)| myself.config_epoch).map(|(number, _)| number)
    }

    /// Waits until another node than `old` is the master of a slot, and says which.
    ///
    /// # Errors
    /// [`ServiceError::Deadline`].
    pub fn wait_for_another_master(&self, slot: u16, old: usize) -> Result<usize, ServiceError> {
        let found = wait_until(DEADLINE, || Ok(self.master(slot).filter(|master| *master != old)))?;
        found.ok_or_else(|| late("choose another master"))
    }

    /// Waits until all nodes that run say that the cluster is well, and their replicas have their copies.
    ///
    /// # Errors
    /// [`ServiceError::Deadline`].
    pub fn wait_until_ok(&self) -> Result<(), ServiceError> {
        let count = format!("cluster_known_nodes:{}", self.nodes.len());
        let is_ok = |node: &RedisServer| {
            let says = |command: &[&str], lines: &[&str]| {
                ask(node, command).is_some_and(|reply| lines.iter().all(|wanted| reply.lines().any(|line| line == *wanted)))
            };
            says(&["CLUSTER", "INFO"], &["cluster_state:ok", &count])
                && (says(&["INFO", "replication"], &["role:master"])
                    || says(&["INFO", "replication"], &["role:slave", "master_link_status:up"]))
        };
        let all = wait_until(DEADLINE, || Ok((self.running().all(|(_, node)| is_ok(node)) && self.agree()).then_some(())))?;
        all.ok_or_else(|| late("serve all slots"))
    }

    /// Begins to move a slot: from now on a key is on one node or the other.
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`] when the slot has no master, or what a node says.
    pub fn begin_move(&self, slot: u16, to: usize) -> Result<SlotMove, ServiceError> {
        let from = self.master(slot).ok_or_else(not_running)?;
        let name = slot.to_string();
        self.nodes[to].command(&["CLUSTER", "SETSLOT", &name, "IMPORTING", &self.id(from)?])?;
        self.nodes[from].command(&["CLUSTER", "SETSLOT", &name, "MIGRATING", &self.id(to)?])?;
        Ok(SlotMove { slot, from, to })
    }

    /// The keys of a moving slot that have not been moved.
    ///
    /// # Errors
    /// What the node says.
    pub fn keys_left(&self, moving: &SlotMove) -> Result<Vec<String>, ServiceError> {
        let keys = self.nodes[moving.from].command(&["CLUSTER", "GETKEYSINSLOT", &moving.slot.to_string(), "1000"])?;
        Ok(keys.lines().map(str::to_owned).collect())
    }

    /// Moves one key of a moving slot, over one of the same name.
    ///
    /// # Errors
    /// What the node says.
    pub fn move_key(&self, moving: &SlotMove, key: &str) -> Result<(), ServiceError> {
        let port = self.nodes[moving.to].client_port().to_string();
        let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", MIGRATE_TIMEOUT_MS, "REPLACE"];
        if let Some(password) = &self.options.password {
            command.extend(["AUTH", password]);
        }
        command.extend(["KEYS", key]);
        self.nodes[moving.from].command(&command).map(drop)
    }

    /// Moves the keys that are left, gives the slot to its new master, and waits until every node has heard of it: Redis does not
    /// bear another move before that, and the nodes would send clients back and forth for ever.
    ///
    /// # Errors
    /// What a node says; [`ServiceError::Deadline`] when they do not come to agree.
    pub fn end_move(&self, moving: &SlotMove) -> Result<(), ServiceError> {
        for key in self.keys_left(moving)? {
            self.move_key(moving, &key)?;
        }
        let (slot, id) = (moving.slot.to_string(), self.id(moving.to)?);
        // The new master first: should the others learn of it late, they are redirected to it.
        for number in [moving.to, moving.from] {
            self.nodes[number].command(&["CLUSTER", "SETSLOT", &slot, "NODE", &id])?;
        }
        wait_until(DEADLINE, || Ok(self.agree().then_some(())))?.ok_or_else(|| late("agree on a slot that was moved"))
    }

    /// Whether all nodes that run know the same masters, with the same slots and config epochs.
    fn agree(&self) -> bool {
        let mut known = self.running().map(|(_, node)| ask(node, &["CLUSTER", "NODES"]).map(|nodes| masters(&nodes)));
        let first = known.next();
        first.as_ref().is_some_and(Option::is_some) && known.all(|masters| Some(masters) == first)
    }

    /// The nodes that run and are not frozen.
    fn running(&self) -> impl Iterator<Item = (usize, &RedisServer)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.service.goes_on())
    }

    fn id(&self, number: usize) -> Result<String, ServiceError> {
        self.nodes[number].command(&["CLUSTER", "MYID"])
    }

    /// Gives the masters their slots, introduces the nodes to each other, and tells the replicas whom to copy.
    fn join(&self) -> Result<(), ServiceError> {
        for (number, node) in self.nodes.iter().enumerate() {
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        }
        for (number, node) in self.nodes.iter().take(MASTERS).enumerate() {
            let bound = |number: usize| number * usize::from(SLOTS) / MASTERS;
            let (first, last) = (bound(number).to_string(), (bound(number + 1) - 1).to_string());
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
        }
        for node in &self.nodes[1..] {
            let (port, bus) = (node.client_port().to_string(), node.ports.bus.unwrap_or_default().to_string());
            self.nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        }
        for (number, replica) in self.nodes.iter().skip(MASTERS).enumerate() {
            let master = self.id(number)?;
            let told = wait_until(DEADLINE, || Ok(ask(replica, &["CLUSTER", "REPLICATE", &master])))?;
            told.ok_or_else(|| late("meet their replicas"))?;
        }
        Ok(())
    }

    fn url_with(&self, login: &str) -> String {
        let scheme = if self.options.tls.is_some() { "rediss-cluster" } else { "redis-cluster" };
        let servers: Vec<_> = self.nodes.iter().take(MASTERS).map(|node| format!("127.0.0.1:{}", node.client_port())).collect();
        format!("{scheme}://{login}{}", servers.join(","))
    }
}

/// What makes a server a node of a cluster.
pub(super) fn add_arguments(command: &mut Command, bus_port: u16, tls: bool) {
    command.args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", &bus_port.to_string()]);
    command.args(["--cluster-node-timeout", NODE_TIMEOUT_MS]);
    // A replica takes its master's place however old its copy is: a test may want it old.
    command.args(["--cluster-replica-validity-factor", "0"]);
    if tls {
        command.args(["--tls-cluster", "yes", "--tls-replication", "yes"]);
    }
}

/// A node's answer, if it gives one that is no error.
fn ask(node: &RedisServer, command: &[&str]) -> Option<String> {
    node.ask(command, ASK_DEADLINE).ok().and_then(Result::ok)
}

fn myself(node: &RedisServer) -> Option<Myself> {
    Myself::read(&ask(node, &["CLUSTER", "NODES"])?)
}

/// Each master's id, config epoch and slots, in order; without the slots that are on their way.
fn masters(nodes: &str) -> Vec<String> {
    let lines = nodes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let masters = lines.filter(|words| words.get(2).is_some_and(|flags| flags.contains("master")));
    let mut masters: Vec<_> = masters
        .map(|words| {
            let slots = words.iter().skip(8).filter(|word| !word.starts_with('['));
            [words.first(), words.get(6)].into_iter().flatten().chain(slots).copied().collect::<Vec<_>>().join(" ")
        })
        .collect();
    masters.sort_unstable();
    masters
}

fn not_running() -> ServiceError {
    ServiceError::NotRunning { program: PROGRAM.to_owned() }
}

fn late(what: &str) -> ServiceError {
    let (program, output) = (PROGRAM.to_owned(), String::new());
    ServiceError::Deadline { program, what: what.to_owned(), waited: DEADLINE, output }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_own_line_is_read() {
        let nodes = "aa 127.0.0.1:1@2 master - 0 1 7 connected 0-5460\n\
                     bb 127.0.0.1:3@4 myself,master - 0 2 9 connected 5461-10922 16000 [5461->-cc]\n";
        let myself = Myself::read(nodes).expect("a line");
        let expected =
            Myself { id: "bb".to_owned(), is_master: true, config_epoch: 9, slots: vec![(5461, 10922), (16000, 16000)] };
        assert_eq!(myself, expected);
        assert!(myself.serves(16000) && !myself.serves(5460));
        assert_eq!(Myself::read("aa 127.0.0.1:1@2 master - 0 1 7 connected\n"), None);
        assert_eq!(masters(nodes), ["aa 7 0-5460", "bb 9 5461-10922 16000"]);
    }
}
