//! The streams and partitions of an open log, in memory.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use riomar_schemas::{Name, Offset, PartitionId};
use tokio::sync::watch;

use super::{closed, codec::PartitionKey};
use crate::{
    error::LogError,
    log::PartitionBounds,
    membership::{Membership, Share},
};

/// A stream: the number the log gave it, and its partitions.
#[derive(Debug, Clone)]
pub struct StreamState {
    /// The number.
    pub id: u32,
    /// The partitions, by their number.
    pub partitions: Vec<Arc<Partition>>,
}

/// A partition: its key, and the bounds that readers wait on. Only the committer moves them.
#[derive(Debug)]
pub struct Partition {
    key: PartitionKey,
    held: watch::Sender<Held>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    bounds: PartitionBounds,
    closed: bool,
}

impl Held {
    fn open(self) -> Result<PartitionBounds, LogError> {
        if self.closed { Err(closed()) } else { Ok(self.bounds) }
    }
}

impl Partition {
    /// A partition with these bounds.
    pub fn new(key: PartitionKey, bounds: PartitionBounds) -> Self {
        Self { key, held: watch::Sender::new(Held { bounds, closed: false }) }
    }

    /// Its key.
    pub fn key(&self) -> PartitionKey {
        self.key
    }

    /// What it holds.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] once the log is closed.
    pub fn bounds(&self) -> Result<PartitionBounds, LogError> {
        self.held.borrow().open()
    }

    /// Waits until the partition holds a record at `offset`, and tells what it holds then.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] once the log is closed.
    pub async fn grown_beyond(&self, offset: Offset) -> Result<PartitionBounds, LogError> {
        let mut receiver = self.held.subscribe();
        let grown = receiver.wait_for(|held| held.closed || held.bounds.end > offset).await;
        grown.map_err(|_| closed())?.open()
    }

    /// What it holds, closed or not: the committer has the last word.
    pub fn latest(&self) -> PartitionBounds {
        self.held.borrow().bounds
    }

    /// Moves the end, and wakes those who wait for it.
    pub fn set_end(&self, end: Offset) {
        self.held.send_modify(|held| held.bounds.end = end);
    }

    /// Moves the start.
    pub fn set_start(&self, start: Offset) {
        self.held.send_modify(|held| held.bounds.start = start);
    }
}

/// All streams by name.
#[derive(Debug, Default)]
pub struct Streams {
    by_name: RwLock<HashMap<Name, StreamState>>,
    /// Who has to be told of a new partition. Locked behind `by_name` where both are.
    members: Mutex<Members>,
}

/// The members, as long as the log is open.
#[derive(Debug)]
enum Members {
    Open(Vec<Member>),
    Closed,
}

impl Default for Members {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}

/// Someone who works on all partitions of some streams.
#[derive(Debug)]
struct Member {
    streams: BTreeSet<Name>,
    share: watch::Sender<Share>,
}

impl Member {
    fn tell(&self, by_name: &HashMap<Name, StreamState>) {
        let wanted = self.streams.iter().filter_map(|name| Some((name, by_name.get(name)?)));
        let share: Share = wanted
            .flat_map(|(name, stream)| stream.partitions.iter().map(|partition| (name.clone(), partition.key.partition)))
            .collect();
        self.share.send_if_modified(|told| {
            let changed = *told != share;
            *told = share;
            changed
        });
    }
}

impl Streams {
    /// Adds or replaces a stream.
    pub fn put(&self, name: Name, stream: StreamState) {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(name, stream);
        if let Members::Open(members) = &mut *self.members.lock().unwrap_or_else(PoisonError::into_inner) {
            members.retain(|member| member.share.receiver_count() > 0);
            members.iter().for_each(|member| member.tell(&by_name));
        }
    }

    /// Makes someone a member who works on all partitions of these streams.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] once the log is closed.
    pub fn join(&self, streams: &[Name]) -> Result<Membership, LogError> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let Members::Open(members) = &mut *self.members.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Err(closed());
        };
        let (share, told) = watch::channel(Share::new());
        let member = Member { streams: streams.iter().cloned().collect(), share };
        member.tell(&by_name);
        members.push(member);
        Ok(Membership::new(told, (), None))
    }

    /// A stream.
    pub fn get(&self, name: &Name) -> Option<StreamState> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The number that a new stream gets.
    pub fn next_id(&self) -> u32 {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().map(|stream| stream.id + 1).max().unwrap_or_default()
    }

    /// One partition of a stream.
    pub fn partition(&self, name: &Name, partition: PartitionId) -> Option<Arc<Partition>> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.get(name)?.partitions.get(usize::try_from(partition.0).ok()?).cloned()
    }

    /// How many partitions a stream has; 0 where there is none of that name.
    pub fn partitions(&self, name: &Name) -> u32 {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.get(name).and_then(|stream| u32::try_from(stream.partitions.len()).ok()).unwrap_or_default()
    }

    /// Wakes everyone who waits on a partition, with the news that the log is closed, and takes their share from the members.
    pub fn close(&self) {
        let members = std::mem::replace(&mut *self.members.lock().unwrap_or_else(PoisonError::into_inner), Members::Closed);
        if let Members::Open(members) = members {
            members.iter().for_each(|member| drop(member.share.send_replace(Share::new())));
        }
        for stream in self.by_name.read().unwrap_or_else(PoisonError::into_inner).values() {
            for partition in &stream.partitions {
                partition.held.send_modify(|held| held.closed = true);
            }
        }
    }
}
