//! Sharing partitions between processes.

use std::{any::Any, collections::BTreeSet, fmt};

use riomar_schemas::{Name, PartitionId};
use tokio::sync::{oneshot, watch};

use crate::error::LogError;

/// The partitions that one member works on.
pub type Share = BTreeSet<(Name, PartitionId)>;

/// This process's place in a group, until it is dropped or [left](Self::leave).
pub struct Membership {
    share: watch::Receiver<Share>,
    /// What keeps the place; it is given up when this is dropped.
    place: Box<dyn Any + Send + Sync>,
    /// Ends when the others know that the place was given up.
    left: Option<oneshot::Receiver<()>>,
}

impl Membership {
    /// A membership whose share is sent by whoever holds the sender. `place` is dropped with it, and the sender of `left`, if there
    /// is one, a little later.
    #[must_use]
    pub fn new(share: watch::Receiver<Share>, place: impl Send + Sync + 'static, left: Option<oneshot::Receiver<()>>) -> Self {
        Self { share, place: Box::new(place), left }
    }

    /// Leaves the group, and waits until that is done: a process that ends at once would leave its share to nobody for a while.
    pub async fn leave(self) {
        drop(self.place);
        if let Some(left) = self.left {
            // Nothing is ever sent: the sender is dropped when it is done.
            let _ = left.await;
        }
    }

    /// What this member is to work on now: nothing before it was first told. A member that lost its place in the group may keep its share
    /// for a while, until it is told another one: others may be working on it, too.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share.borrow().clone()
    }

    /// Waits until the share is another than at the last call, and returns it. The first call returns at once if there was a
    /// change since the member joined.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] once the log is closed.
    pub async fn changed(&mut self) -> Result<Share, LogError> {
        self.share.changed().await.map_err(|_| LogError::Unavailable("it is closed".to_owned()))?;
        Ok(self.share.borrow_and_update().clone())
    }

    /// Waits until the share is one that is wanted, and returns it.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] once the log is closed.
    pub async fn wait_for(&mut self, wanted: impl FnMut(&Share) -> bool) -> Result<Share, LogError> {
        let share = self.share.wait_for(wanted).await.map_err(|_| LogError::Unavailable("it is closed".to_owned()))?;
        Ok(share.clone())
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("share", &*self.share.borrow()).finish_non_exhaustive()
    }
}
