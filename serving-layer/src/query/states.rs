//! Realtime states in memory, counted against the memory that queries share.
//!
//! DataFusion counts what its operators hold. The states that a query reads before it is planned are held outside of them, so they
//! are reserved here: a view that does not fit is refused, and takes no memory that nobody counts.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use riomar_schemas::{
    View,
    state_codec::{self, EncodedState},
};
use riomar_speed_layer::RealtimePart;

use super::error::QueryError;

/// The states of a view's partition in [`View::state_schema`], and the memory reserved for them until this is dropped.
#[derive(Debug)]
pub(super) struct States {
    pub(super) batch: RecordBatch,
    _memory: MemoryReservation,
}

/// Decodes states, on a thread where nobody waits for it: a view may have a million of them.
///
/// # Errors
/// [`QueryError::OutOfMemory`] where they do not fit; otherwise states that cannot be read.
pub(super) async fn decode(view: &Arc<View>, part: RealtimePart, pool: &Arc<dyn MemoryPool>) -> Result<States, QueryError> {
    let (view, pool) = (Arc::clone(view), Arc::clone(pool));
    let decoded = tokio::task::spawn_blocking(move || decode_here(&view, part, &pool)).await;
    decoded.map_err(|error| QueryError::Unavailable(format!("decoding realtime states ended early: {error}")))?
}

/// Decodes states; the epochs themselves are of no further use.
fn decode_here(view: &View, part: RealtimePart, pool: &Arc<dyn MemoryPool>) -> Result<States, QueryError> {
    let memory = MemoryConsumer::new(format!("realtime states of {}", view.name())).register(pool);
    // Encoded and decoded states are held side by side for a moment.
    memory.try_grow(part.states.iter().map(encoded_bytes).sum())?;
    let states = part.states.iter().map(|state| (state.epoch, state.key.as_str(), state.state.as_slice()));
    let mut batch = state_codec::decode(view, states)?;
    batch.remove_column(0);
    memory.try_grow(batch.get_array_memory_size())?;
    drop(part);
    memory.try_resize(batch.get_array_memory_size())?;
    Ok(States { batch, _memory: memory })
}

fn encoded_bytes(state: &EncodedState) -> usize {
    size_of::<EncodedState>() + state.key.capacity() + state.state.capacity()
}
