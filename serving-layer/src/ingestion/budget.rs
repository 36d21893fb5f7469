//! How much ingestion takes on at once. What does not fit is told to come back; it does not wait in memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::IngestionLimits;
use crate::problem::ApiError;

/// Bytes are reserved in pieces of this size.
const PIECE_BYTES: u64 = 16 << 10;

/// The room for requests and for their bodies.
#[derive(Debug)]
pub struct Budget {
    requests: Arc<Semaphore>,
    pieces: Arc<Semaphore>,
}

impl Budget {
    /// The room that `limits` grants.
    #[must_use]
    pub fn new(limits: &IngestionLimits) -> Self {
        let bytes = limits.bytes_in_flight_max.max(limits.decompressed_bytes_max);
        let pieces = usize::try_from(pieces(bytes)).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Self { requests: Arc::new(Semaphore::new(limits.requests_in_flight_max)), pieces: Arc::new(Semaphore::new(pieces)) }
    }

    /// Lets one request in.
    ///
    /// # Errors
    /// [`ApiError::Overloaded`] where too many are in.
    pub(super) fn request(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.requests)
            .try_acquire_owned()
            .map_err(|_| ApiError::Overloaded("the limit of ingestion requests is reached"))
    }

    /// Room for the body of one request; grows as the body does.
    pub(super) fn bytes(&self) -> Reservation {
        Reservation { budget: Arc::clone(&self.pieces), pieces: 0, permit: None }
    }
}

/// Room that one body holds until this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Semaphore>,
    pieces: u64,
    permit: Option<OwnedSemaphorePermit>,
}

impl Reservation {
    /// Makes the room at least `bytes` large.
    ///
    /// # Errors
    /// [`ApiError::Overloaded`] where that is not free.
    pub(super) fn grow_to(&mut self, bytes: u64) -> Result<(), ApiError> {
        let more = pieces(bytes).saturating_sub(self.pieces);
        let overloaded = ApiError::Overloaded("the limit of bytes in ingestion is reached");
        let Ok(count) = u32::try_from(more) else { return Err(overloaded) };
        if count == 0 {
            return Ok(());
        }
        let permit = Arc::clone(&self.budget).try_acquire_many_owned(count).map_err(|_| overloaded)?;
        self.pieces += more;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

fn pieces(bytes: u64) -> u64 {
    bytes.div_ceil(PIECE_BYTES)
}
