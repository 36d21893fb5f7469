//! `GET /v1/streams/{stream}/quarantine`: the events that were not accepted, with the reason.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use riomar_event_log::{LogError, quarantine::QuarantineEntry};
use riomar_schemas::{Name, Offset};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    app::{AppState, Services},
    extract::Parameters,
    problem::ApiError,
    time::with_times,
};

/// Entries on one page, unless the client asks for another number.
pub const PAGE_ENTRIES: u64 = 100;
/// Entries on one page at the most.
pub const PAGE_ENTRIES_MAX: u64 = 1000;
/// A page ends behind the entry that brings it to this many bytes of raw events.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Entries that are read at once.
const READ_ENTRIES: usize = 16;

/// One page of a stream's quarantine, the oldest entries first.
#[derive(Debug, Serialize)]
struct Page {
    entries: Vec<PageEntry>,
    /// The path of the next page; `null` when there is none yet.
    next: Option<String>,
}

/// One entry with its place in quarantine.
#[derive(Debug, Serialize)]
struct PageEntry {
    /// Its place; `after={offset}` begins behind it.
    offset: Offset,
    #[serde(flatten)]
    entry: Value,
}

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v1/streams/{stream}/quarantine", get(get_quarantine))
}

async fn get_quarantine(
    State(state): State<AppState>,
    Path(stream): Path<String>,
    mut parameters: Parameters,
) -> Result<Json<Page>, ApiError> {
    let stream = state.stream(&stream)?;
    let after = parameters.take_number("after", u64::MAX - 1)?;
    let limit = parameters.take_number("limit", PAGE_ENTRIES_MAX)?.unwrap_or(PAGE_ENTRIES);
    parameters.finish(&["after", "limit"])?;
    let from = after.map_or(Offset(0), |offset| Offset(offset).next());
    let entries = read_page(&state, &stream.name, from, usize::try_from(limit).unwrap_or(usize::MAX)).await?;
    let last = entries.last().map(|entry| entry.offset);
    let next = last.map(|Offset(offset)| format!("/v1/streams/{}/quarantine?after={offset}&limit={limit}", stream.name));
    Ok(Json(Page { entries, next }))
}

async fn read_page(services: &Services, stream: &Name, mut from: Offset, limit: usize) -> Result<Vec<PageEntry>, ApiError> {
    let mut page = Vec::new();
    let mut bytes = 0;
    while page.len() < limit && bytes < PAGE_BYTES_MAX {
        let entries = match services.quarantine.read(stream, from, READ_ENTRIES.min(limit - page.len())).await {
            Ok(entries) => entries,
            // Retention took what stood here: the page begins with the oldest entry there is.
            Err(LogError::OutOfRange { start, .. }) if from < start => {
                from = start;
                continue;
            }
            // Nothing is that far yet.
            Err(LogError::OutOfRange { .. }) => break,
            Err(error) => return Err(error.into()),
        };
        let Some((last, _)) = entries.last() else { break };
        from = last.next();
        for (offset, entry) in entries {
            bytes += entry.raw.as_ref().or(entry.raw_base64.as_ref()).map_or(0, String::len);
            page.push(PageEntry { offset, entry: shown(&entry) });
        }
    }
    Ok(page)
}

/// An entry as it is sent: times as text, and its position in the log with names.
fn shown(entry: &QuarantineEntry) -> Value {
    let mut value = with_times(serde_json::to_value(entry).unwrap_or_default());
    if let Some((partition, offset)) = entry.position {
        value["position"] = json!({"partition": partition, "offset": offset});
    }
    value
}
