//! `GET /v1/streams`, `GET /v1/streams/{stream}`.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use riomar_batch_layer::{losses::Losses, master::LandedPartition};
use riomar_event_log::{LogError, PartitionBounds};
use riomar_schemas::{Epoch, Name, Offset, PartitionId, Stream};
use serde::Serialize;
use serde_json::Value;

use crate::{
    account::{PartitionCount, StreamAccount},
    app::{AppState, Services},
    losses,
    problem::ApiError,
    time::rfc3339_us,
};

/// How often the facts of a stream are read while the log lets go of records.
const FACTS_ATTEMPTS_MAX: u32 = 4;

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v1/streams", get(list)).route("/v1/streams/{stream}", get(get_stream))
}

/// A stream as it was declared.
#[derive(Debug, Serialize)]
struct Definition {
    name: Name,
    sql: String,
    columns: Vec<ColumnDefinition>,
    event_time: String,
    dedup_by: Option<String>,
    dedup_epochs: u64,
    dedup_ids_max: u64,
    partition_by: Option<String>,
    partitions: u32,
    views: Vec<Name>,
}

#[derive(Debug, Serialize)]
struct ColumnDefinition {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    not_null: bool,
}

/// Where a partition stands.
#[derive(Debug, Serialize)]
struct PartitionState {
    partition: PartitionId,
    /// The lowest offset that the log still holds.
    log_start: Offset,
    /// The offset that the next record gets.
    log_end: Offset,
    /// The next offset that lands.
    landed: Offset,
    /// The epoch that landing is in.
    epoch: Epoch,
    /// The highest event time that has landed.
    event_time_max: Option<String>,
}

/// A stream with its state.
#[derive(Debug, Serialize)]
struct Description {
    #[serde(flatten)]
    definition: Definition,
    json_schema: Value,
    positions: Vec<PartitionState>,
    account: StreamAccount,
    /// What the log lost before it landed.
    losses: Value,
}

impl Definition {
    fn of(services: &Services, stream: &Stream) -> Self {
        let name = |index: usize| stream.columns[index].name.to_string();
        let column = |column: &riomar_schemas::stream::Column| ColumnDefinition {
            name: column.name.to_string(),
            type_name: column.column_type.to_string(),
            not_null: column.not_null,
        };
        Self {
            name: stream.name.clone(),
            sql: stream.sql.clone(),
            columns: stream.columns.iter().map(column).collect(),
            event_time: name(stream.event_time),
            dedup_by: stream.dedup_by.map(name),
            dedup_epochs: stream.dedup_epochs,
            dedup_ids_max: stream.dedup_ids_max,
            partition_by: stream.partition_by.map(name),
            partitions: stream.partitions,
            views: services.catalog.views_of(&stream.name).map(|view| view.name().clone()).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct StreamList {
    streams: Vec<Definition>,
}

async fn list(State(state): State<AppState>) -> Json<StreamList> {
    Json(StreamList { streams: state.catalog.streams().map(|stream| Definition::of(&state, stream)).collect() })
}

async fn get_stream(State(state): State<AppState>, Path(stream): Path<String>) -> Result<Json<Description>, ApiError> {
    let stream = state.stream(&stream)?;
    let (losses, partitions) = facts(&state, &stream).await?;
    let account = add_up(&state, &stream, &partitions).await?;
    Ok(Json(Description {
        definition: Definition::of(&state, &stream),
        json_schema: stream.json_schema(),
        positions: partitions.iter().map(position).collect(),
        account,
        losses: losses::shown(&losses),
    }))
}

/// Where a partition's log begins, how far it has landed, and where the log ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartitionOffsets {
    pub(crate) partition: PartitionId,
    pub(crate) log_start: Offset,
    pub(crate) landed: Offset,
    pub(crate) log_end: Offset,
}

/// The account of a stream at this moment, and the offsets of its partitions.
///
/// # Errors
/// What the log and the master dataset report.
pub(crate) async fn account(services: &Services, stream: &Stream) -> Result<(StreamAccount, Vec<PartitionOffsets>), ApiError> {
    let (_, partitions) = facts(services, stream).await?;
    let account = add_up(services, stream, &partitions).await?;
    let offsets = partitions.iter().map(|(partition, landed, _, bounds)| PartitionOffsets {
        partition: *partition,
        log_start: bounds.start,
        landed: landed.position.offset,
        log_end: bounds.end,
    });
    Ok((account, offsets.collect()))
}

async fn add_up(services: &Services, stream: &Stream, partitions: &[PartitionFacts]) -> Result<StreamAccount, ApiError> {
    let counts: Vec<_> = partitions.iter().map(|(_, landed, count, _)| (*landed, *count)).collect();
    Ok(StreamAccount::of(&counts, services.quarantine.account(&stream.name).await?))
}

type PartitionFacts = (PartitionId, LandedPartition, PartitionCount, PartitionBounds);

/// What landing, the log and its count say of a stream. Read again where the log let go of something in between.
async fn facts(services: &Services, stream: &Stream) -> Result<(Losses, Vec<PartitionFacts>), ApiError> {
    for _ in 0..FACTS_ATTEMPTS_MAX {
        let losses = services.batch.losses(&stream.name).await?;
        match partitions(services, stream, &losses).await {
            Ok(Some(partitions)) => return Ok((losses, partitions)),
            Ok(None) | Err(ApiError::Log(LogError::OutOfRange { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ApiError::Log(LogError::Unavailable(format!("the log of {} lets go of records faster than it is read", stream.name))))
}

/// What is known of each partition, with the log's bounds behind what has landed, so that nothing has landed that its end does not
/// cover; `None` where the log begins elsewhere than what has landed and was lost says.
async fn partitions(services: &Services, stream: &Stream, losses: &Losses) -> Result<Option<Vec<PartitionFacts>>, ApiError> {
    let snapshot = services.batch.master(&stream.name)?.snapshot().await?;
    let mut facts = Vec::new();
    for partition in services.batch.cuts().partitions_with(&snapshot).await? {
        let landed = snapshot.partitions.get(&partition).copied().unwrap_or_default();
        let bounds = services.log.bounds(&stream.name, partition).await?;
        let waiting = losses.waiting.iter().find(|range| range.partition == partition);
        let start = waiting.map_or(landed.position.offset, |range| range.to);
        let is_known = if waiting.is_some() { bounds.start == start } else { bounds.start <= start };
        if !is_known || waiting.is_some_and(|range| range.from != landed.position.offset) {
            return Ok(None);
        }
        let accepted = snapshot.losses_of(partition);
        let count = services.counters.count(&*services.log, &stream.name, partition, &landed, accepted, bounds).await?;
        facts.push((partition, landed, count, bounds));
    }
    Ok(Some(facts))
}

fn position((partition, landed, _, bounds): &PartitionFacts) -> PartitionState {
    PartitionState {
        partition: *partition,
        log_start: bounds.start,
        log_end: bounds.end,
        landed: landed.position.offset,
        epoch: landed.position.epoch,
        event_time_max: landed.event_time_max_us.map(rfc3339_us),
    }
}
