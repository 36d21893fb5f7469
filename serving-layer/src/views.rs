//! `GET /v1/views`, `GET /v1/views/{view}`, `GET /v1/views/{view}/rows`.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::DataType;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
    routing::get,
};
use datafusion::common::ScalarValue;
use riomar_batch_layer::audit::AuditKind;
use riomar_schemas::{Epoch, Name, Offset, PartitionId, Receipt, View, view::Role};
use serde::Serialize;
use serde_json::Value;

use crate::{
    answer::{self, AnswerFormat, type_name},
    app::{AppState, Services},
    audit,
    extract::{Parameters, invalid},
    problem::ApiError,
    query::RowsRequest,
    time::{parse_us, rfc3339_ms},
};

/// Parameters of the rows that are not dimensions. A dimension of such a name is filtered with SQL.
const RESERVED: [&str; 4] = ["from", "to", "columns", "limit"];

pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/v1/views", get(list))
        .route("/v1/views/{view}", get(get_view))
        .route("/v1/views/{view}/rows", get(get_rows))
}

/// A view as it was declared.
#[derive(Debug, Serialize)]
struct Definition {
    name: Name,
    stream: Name,
    sql: String,
    fingerprint: String,
    columns: Vec<ColumnDefinition>,
}

#[derive(Debug, Serialize)]
struct ColumnDefinition {
    name: Name,
    #[serde(rename = "type")]
    type_name: String,
    /// `window_start`, `window_end`, `dimension` or `measure`.
    role: &'static str,
    /// Whether the values come from a sketch.
    approximate: bool,
}

impl Definition {
    fn of(view: &View) -> Self {
        let column = |column: &riomar_schemas::view::ViewColumn| ColumnDefinition {
            name: column.name.clone(),
            type_name: type_name(&column.data_type),
            role: role_name(column.role),
            approximate: column.is_approximate(),
        };
        Self {
            name: view.name().clone(),
            stream: view.stream().name.clone(),
            sql: view.sql().to_owned(),
            fingerprint: view.fingerprint().to_owned(),
            columns: view.columns().iter().map(column).collect(),
        }
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::WindowStart => "window_start",
        Role::WindowEnd => "window_end",
        Role::Dimension => "dimension",
        Role::Measure => "measure",
    }
}

#[derive(Debug, Serialize)]
struct ViewList {
    views: Vec<Definition>,
}

async fn list(State(state): State<AppState>) -> Json<ViewList> {
    Json(ViewList { views: state.catalog.views().map(|view| Definition::of(view)).collect() })
}

/// A view with its state.
#[derive(Debug, Serialize)]
struct Description {
    #[serde(flatten)]
    definition: Definition,
    /// The current generation; `null` before the first.
    generation: Option<GenerationState>,
    freshness: Freshness,
    /// The last audit of an answer in this process; `null` before the first.
    last_audit: Option<Value>,
    /// The last audit of a hand-over in this process; `null` before the first.
    last_hand_over_audit: Option<Value>,
}

/// The current generation of a view.
#[derive(Debug, Serialize)]
struct GenerationState {
    generation: u64,
    cut: Epoch,
    positions: BTreeMap<PartitionId, Offset>,
    groups: u64,
    full: bool,
    created_at: String,
    /// How long ago that was, in seconds.
    age_seconds: i64,
}

/// What a query would be answered with now.
#[derive(Debug, Serialize)]
struct Freshness {
    receipt: Receipt,
    /// Records of the log that the answer would not contain, by partition.
    lag_records: BTreeMap<PartitionId, u64>,
}

async fn get_view(State(state): State<AppState>, Path(view): Path<String>) -> Result<Json<Description>, ApiError> {
    let view = state.view(&view)?;
    let freshness = freshness(&state, &view).await?;
    let generation = state.batch.generations().current(&view).await?.map(|manifest| GenerationState {
        generation: manifest.generation,
        cut: manifest.cut,
        positions: manifest.positions.clone(),
        groups: manifest.groups,
        full: manifest.full,
        created_at: rfc3339_ms(manifest.created_at_ms),
        age_seconds: state.clock.now_ms().saturating_sub(manifest.created_at_ms).max(0) / 1000,
    });
    let audits = state.batch.audits();
    let last_audit = audits.last(view.name(), AuditKind::Answer).await.map(|report| audit::shown(&report));
    let last_hand_over_audit = audits.last(view.name(), AuditKind::HandOver).await.map(|report| audit::shown(&report));
    Ok(Json(Description { definition: Definition::of(&view), generation, freshness, last_audit, last_hand_over_audit }))
}

/// The receipt first, the log's ends after it: a lag may be too large by what came between, never too small.
async fn freshness(services: &Services, view: &Arc<View>) -> Result<Freshness, ApiError> {
    let receipt = services.query.receipt(view).await?;
    let stream = &view.stream().name;
    let mut lag_records = BTreeMap::new();
    for partition in services.batch.cuts().partitions(view.stream()).await? {
        let through = receipt.views.get(view.name()).and_then(|receipt| receipt.through.get(&partition)).copied();
        let end = services.log.bounds(stream, partition).await?.end;
        lag_records.insert(partition, end.0.saturating_sub(through.unwrap_or_default().0));
    }
    Ok(Freshness { receipt, lag_records })
}

async fn get_rows(
    State(state): State<AppState>,
    Path(view): Path<String>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let view = state.view(&view)?;
    let format = AnswerFormat::negotiate(&headers)?;
    let request = rows_request(&view, parameters, state.query_limits.rows_max)?;
    let answer = state.query.rows(&view, request, state.query_limits).await?;
    answer::respond(answer, format)
}

/// The rows that the parameters ask for.
fn rows_request(view: &View, mut parameters: Parameters, rows_max: usize) -> Result<RowsRequest, ApiError> {
    let mut request = RowsRequest {
        from_us: take_time(&mut parameters, "from")?,
        to_us: take_time(&mut parameters, "to")?,
        limit: parameters.take_number("limit", rows_max as u64)?.and_then(|limit| usize::try_from(limit).ok()),
        ..RowsRequest::default()
    };
    if let Some(names) = parameters.take("columns")? {
        request.columns = Some(checked_columns(view, &names)?);
    }
    let dimensions = view.columns().iter().filter(|column| column.role == Role::Dimension);
    let dimensions = dimensions.filter(|column| !RESERVED.contains(&column.name.as_str()));
    let mut allowed = RESERVED.to_vec();
    for column in dimensions {
        let name = column.name.as_str();
        allowed.push(name);
        if let Some(text) = parameters.take(name)? {
            // Nothing is no number and no time: it asks for rows without a value. In VARCHAR it is the empty text.
            let value = match text.is_empty() && column.data_type != DataType::Utf8 {
                true => ScalarValue::try_from(&column.data_type),
                false => ScalarValue::try_from_string(text, &column.data_type),
            };
            let value = value.map_err(|_| {
                invalid(name, format!("expected {}, or nothing for rows without a value", type_name(&column.data_type)))
            })?;
            request.equals.push((name.to_owned(), value));
        }
    }
    parameters.finish(&allowed)?;
    Ok(request)
}

fn take_time(parameters: &mut Parameters, name: &str) -> Result<Option<i64>, ApiError> {
    let Some(text) = parameters.take(name)? else { return Ok(None) };
    // A '+' that was not percent-encoded arrives as a space.
    let time = parse_us(&text.replace(' ', "+"));
    time.map(Some).ok_or_else(|| invalid(name, "expected a time such as 2026-11-20T10:00:00Z"))
}

fn checked_columns(view: &View, names: &str) -> Result<Vec<String>, ApiError> {
    let columns: Vec<_> = names.split(',').map(|name| name.trim().to_owned()).collect();
    match columns.iter().find(|name| view.column(name).is_none()) {
        None => Ok(columns),
        Some(unknown) => {
            let known: Vec<_> = view.columns().iter().map(|column| column.name.as_str()).collect();
            let unknown: String = unknown.chars().take(64).collect();
            Err(invalid("columns", format!("there is no column '{unknown}'; there are {}", known.join(", "))))
        }
    }
}
