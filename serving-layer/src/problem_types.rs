//! `GET /problems/{code}`: what the `type` of a problem leads to.

use axum::{Json, Router, extract::Path, routing::get};
use serde_json::{Value, json};

use crate::{app::AppState, problem::ApiError};

/// Every code of a problem, with what it means and what to do.
pub(crate) const PROBLEM_TYPES: [(&str, &str); 41] = [
    ("bad_request", "The request is not valid HTTP, or not what the route takes."),
    (
        "batch_failed",
        "Recomputing or auditing failed and will fail again; the journal of the server has the cause under the request id.",
    ),
    ("batch_unavailable", "The object store or landing does not answer now. Try again."),
    ("body_interrupted", "The connection broke before the body was complete; nothing was stored. Send it again."),
    ("body_timeout", "The body took too long to arrive; nothing was stored. Send it again, in smaller parts over a slow line."),
    ("body_too_large", "The body breaks a limit of bytes, as sent or when decompressed; nothing was stored. Send it in parts."),
    (
        "broken_compression",
        "The body does not decompress; nothing was stored. Check that content-encoding says how it was compressed.",
    ),
    (
        "disk_full",
        "The disk of the server is full; nothing was acknowledged. Make room on the disk of the data directory, then send all of it again.",
    ),
    ("events_rejected", "Every event broke a limit of bytes; none was stored. `errors` says which limit."),
    ("history_unavailable", "The master dataset does not answer now. Try again."),
    ("internal", "A defect of the server; the journal has the cause under the request id."),
    ("invalid_body", "The body is not the JSON that the route takes; `detail` says where."),
    ("invalid_parameter", "A query parameter is not known or cannot be read; `errors` names it."),
    ("log_damaged", "The log holds what cannot be read; the operator must restore it."),
    (
        "log_misconfigured",
        "A topic or a setting of the log would break a promise; nothing was acknowledged. The journal of the server says what to set.",
    ),
    ("log_unavailable", "Events cannot be made durable now; nothing was acknowledged. Send all of them again."),
    (
        "malformed_json",
        "The body is no JSON array, so its events cannot be told apart; nothing was stored. Send one event a line to have each judged alone.",
    ),
    ("method_not_allowed", "The path exists, but not with this method; see the header `allow`."),
    ("not_acceptable", "No format that `accept` asks for is written by this route."),
    ("not_found", "Nothing is served at this path; see /openapi.json."),
    (
        "not_lost",
        "A range that is to be accepted as lost is not what landing waits for; nothing was accepted. `detail` says what is. Look again.",
    ),
    (
        "other_role",
        "The process was started with roles that do not include the one that serves this path; `detail` names it. Ask a process that has it.",
    ),
    ("overloaded", "More is in flight than a limit allows; nothing was stored. Try again after `retry-after` seconds."),
    ("run_in_progress", "A run of the stream is under way. Wait for it, or try again later."),
    ("starting", "The process has started and waits for what it needs; /readyz names it. Try again after `retry-after` seconds."),
    ("store_damaged", "The object store holds what cannot be read; the operator must restore it."),
    ("too_many_events", "The body holds more events than one request may; nothing was stored. Send it in parts."),
    ("unknown_run", "No run has this id, or it is so old that it is no longer remembered."),
    ("unknown_stream", "No stream has this name; /v1/streams lists them."),
    ("unknown_view", "No view has this name; /v1/views lists them."),
    ("unsupported_encoding", "The content encoding is not read; send gzip, zstd or identity."),
    ("invalid_sql", "The SQL is wrong; `detail` says where. Correct it."),
    ("sql_not_allowed", "The SQL does what queries may not do. Only one SELECT over views and streams is let through."),
    ("unknown_table", "The query reads what is neither a view nor a stream; `detail` names those that are."),
    ("query_too_large", "The query or its answer breaks a limit, which `detail` names. Ask for fewer rows or columns."),
    ("query_timeout", "The query took too long. Read fewer windows, or filter by a dimension."),
    (
        "query_out_of_memory",
        "The query needs more memory than is left of memory_max. Group by fewer columns, or read fewer windows.",
    ),
    ("too_many_queries", "As many queries run as may. Try again after `retry-after` seconds."),
    ("query_failed", "A value of the query could not be computed; `detail` says which."),
    ("unavailable", "Something that the query reads does not answer now. Try again."),
    ("unsupported_media_type", "The content type is not read; `detail` lists those that are."),
];

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/problems/{code}", get(get_problem_type))
}

async fn get_problem_type(Path(code): Path<String>) -> Result<Json<Value>, ApiError> {
    let found = PROBLEM_TYPES.iter().find(|(known, _)| *known == code);
    let (code, meaning) = found.ok_or(ApiError::NoRoute)?;
    Ok(Json(json!({"code": code, "meaning": meaning})))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes are string literals of two files: behind the functions that make kinds, and in `QueryError::code`.
    #[test]
    fn every_code_has_a_meaning() {
        let source = include_str!("problem.rs");
        let mut codes = std::collections::BTreeSet::new();
        for maker in ["permanent(", "passing("] {
            let literals = source.split(maker).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
            codes.extend(literals.filter_map(|rest| rest.split('"').next()));
        }
        let of_query = include_str!("query/error.rs").split("fn status").next().unwrap_or_default();
        codes.extend(of_query.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()));
        let known: std::collections::BTreeSet<_> = PROBLEM_TYPES.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, known);
    }
}
