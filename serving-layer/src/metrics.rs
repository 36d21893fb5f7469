//! `/metrics`: Prometheus, what its recorder must know beforehand, and what the serving layer records.

use std::collections::BTreeSet;

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use riomar_batch_layer::audit::AuditKind;
use riomar_schemas::{Name, PartitionId, Receipt};

use crate::{
    account::StreamAccount,
    app::{AppState, Services},
    query::DEGRADATION_CODES,
    roles::Role,
    streams::PartitionOffsets,
};

/// Upper bounds of the buckets that durations fall into, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Those of recomputes, which may take an hour.
const RECOMPUTE_SECONDS: [f64; 14] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0];

/// A recorder for the metrics of all layers; whoever starts the process installs it, and runs its upkeep every few seconds.
///
/// # Errors
/// Never, as long as the buckets above are not empty.
pub fn prometheus() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("riomar_recompute_seconds".to_owned()), &RECOMPUTE_SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
}

/// Says what the metrics of this layer mean; call it once the recorder is installed.
pub fn describe() {
    describe_counter!(
        "riomar_ingestion_events_total",
        Unit::Count,
        "Events received, by stream and outcome: accepted, quarantined, rejected"
    );
    describe_counter!("riomar_http_requests_total", Unit::Count, "HTTP requests answered, by method, route and status");
    describe_histogram!(
        "riomar_http_request_seconds",
        Unit::Seconds,
        "Time from a request's head to its response's head, by method and route"
    );
    describe_gauge!("riomar_http_requests_in_flight", Unit::Count, "HTTP requests that are being answered");
    describe_gauge!("riomar_http_connections", Unit::Count, "Open HTTP connections");
    describe_counter!(
        "riomar_http_connections_refused_total",
        Unit::Count,
        "HTTP connections refused because too many were open"
    );
    describe_counter!(
        "riomar_query_degraded_total",
        Unit::Count,
        "Answers that lack what the realtime view should have added, by view and code: the receipt says the same"
    );
    describe_counter!(
        "riomar_audits_total",
        Unit::Count,
        "Audits, by view, kind (answer: asked for; hand_over: of each generation) and outcome: equal, differing, failed"
    );
    describe_gauge!(
        "riomar_hand_over_differing_groups",
        Unit::Count,
        "Groups in which batch and realtime differed over the same events at the last hand-over, by view"
    );
    describe_gauge!(
        "riomar_account_events",
        Unit::Count,
        "The account of a stream since its beginning, by stream and part: received = accepted + quarantined + rejected, \
         accepted = landed + duplicates + in_flight + lost; undecodable is a part of quarantined, late of landed; \
         quarantine_lost counts deleted entries of quarantine, which received, quarantined and rejected lack"
    );
    describe_gauge!("riomar_account_adds_up", "1 while a stream's account adds up, 0 when it does not, by stream");
    describe_gauge!(
        "riomar_stream_offset",
        Unit::Count,
        "Where a stream's log stands, by stream, partition and kind: log_start (the lowest offset that it still holds), landed (the \
         first that has not landed), log_end (the next record's)"
    );
    describe_counter!("riomar_account_errors_total", Unit::Count, "Accounts that could not be taken, by stream");
}

/// Makes the counters of this layer known before they count, those of the roles of this process: a rise from nothing is seen by
/// nobody.
pub fn begin(services: &Services) {
    if services.roles.has(Role::Ingest) {
        for stream in services.catalog.streams() {
            for outcome in ["accepted", "quarantined", "rejected"] {
                received(&stream.name, outcome, 0);
            }
        }
    }
    if services.roles.has(Role::Serve) {
        for stream in services.catalog.streams() {
            account_errors(&stream.name).increment(0);
        }
        for view in services.catalog.views() {
            DEGRADATION_CODES.iter().for_each(|code| answers_degraded(view.name(), code).increment(0));
            for kind in [AuditKind::Answer, AuditKind::HandOver] {
                for outcome in [AuditOutcome::Equal, AuditOutcome::Differing, AuditOutcome::Failed] {
                    audits(view.name(), kind, outcome).increment(0);
                }
            }
        }
    }
}

/// Counts events that ingestion answered for.
pub(crate) fn received(stream: &Name, outcome: &'static str, events: u64) {
    counter!("riomar_ingestion_events_total", "stream" => stream.to_string(), "outcome" => outcome).increment(events);
}

/// Counts an answer once for each view and code that its receipt calls degraded.
pub(crate) fn answered(receipt: &Receipt) {
    let lacks: BTreeSet<_> = receipt.degraded.iter().map(|lack| (&lack.view, lack.code.as_str())).collect();
    for (view, code) in lacks {
        answers_degraded(view, code).increment(1);
    }
}

fn answers_degraded(view: &Name, code: &str) -> metrics::Counter {
    counter!("riomar_query_degraded_total", "view" => view.to_string(), "code" => code.to_owned())
}

/// How an audit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditOutcome {
    /// Both sides are equal.
    Equal,
    /// They are not.
    Differing,
    /// They could not be compared.
    Failed,
}

impl AuditOutcome {
    /// The outcome of an audit that came to its end.
    pub(crate) fn of(is_equal: bool) -> Self {
        if is_equal { Self::Equal } else { Self::Differing }
    }
}

/// Counts an audit.
pub(crate) fn audited(view: &Name, kind: AuditKind, outcome: AuditOutcome) {
    audits(view, kind, outcome).increment(1);
}

fn audits(view: &Name, kind: AuditKind, outcome: AuditOutcome) -> metrics::Counter {
    let kind = match kind {
        AuditKind::Answer => "answer",
        AuditKind::HandOver => "hand_over",
    };
    let outcome = match outcome {
        AuditOutcome::Equal => "equal",
        AuditOutcome::Differing => "differing",
        AuditOutcome::Failed => "failed",
    };
    counter!("riomar_audits_total", "view" => view.to_string(), "kind" => kind, "outcome" => outcome)
}

/// Tells the account of a stream, or withdraws it where it could not be taken: an old account would pass for the true one.
pub(crate) fn account(stream: &Name, account: Option<&StreamAccount>) {
    type Part = fn(&StreamAccount) -> u64;
    let parts: [(&'static str, Part); 11] = [
        ("received", |account| account.received),
        ("accepted", |account| account.accepted),
        ("quarantined", |account| account.quarantined),
        ("rejected", |account| account.rejected),
        ("landed", |account| account.landed),
        ("duplicates", |account| account.duplicates),
        ("undecodable", |account| account.undecodable),
        ("in_flight", |account| account.in_flight),
        ("lost", |account| account.lost),
        ("quarantine_lost", |account| account.quarantine_lost),
        ("late", |account| account.late.count),
    ];
    for (part, events) in parts {
        gauge!("riomar_account_events", "stream" => stream.to_string(), "part" => part)
            .set(account.map_or(f64::NAN, |account| events(account) as f64));
    }
    let adds_up = account.map_or(f64::NAN, |account| f64::from(u8::from(account.adds_up)));
    gauge!("riomar_account_adds_up", "stream" => stream.to_string()).set(adds_up);
    if account.is_none() {
        account_errors(stream).increment(1);
    }
}

/// Tells where the log of a partition stands. Landing tells the same of itself; this is told though nobody lands.
pub(crate) fn offsets(stream: &Name, offsets: &PartitionOffsets) {
    let kinds = [("log_start", offsets.log_start), ("landed", offsets.landed), ("log_end", offsets.log_end)];
    for (kind, offset) in kinds {
        stream_offset(stream, offsets.partition, kind).set(offset.0 as f64);
    }
}

/// Withdraws what was told of a partition, which cannot be known at the time.
pub(crate) fn offsets_unknown(stream: &Name, partition: PartitionId) {
    ["log_start", "landed", "log_end"].into_iter().for_each(|kind| stream_offset(stream, partition, kind).set(f64::NAN));
}

fn stream_offset(stream: &Name, partition: PartitionId, kind: &'static str) -> metrics::Gauge {
    gauge!("riomar_stream_offset", "stream" => stream.to_string(), "partition" => partition.to_string(), "kind" => kind)
}

fn account_errors(stream: &Name) -> metrics::Counter {
    counter!("riomar_account_errors_total", "stream" => stream.to_string())
}

/// All metrics as Prometheus reads them, without those that were withdrawn.
///
/// A gauge is withdrawn by setting it to NaN: its owner lost the partition or the lease that it spoke of. Prometheus ends a series that
/// is missing from a scrape at once, and sums and maxima over processes are right again. The exporter's own idle time-out is no
/// substitute: it would also take away the gauges of a worker that hangs, which is when they are needed.
#[must_use]
pub fn render(metrics: &PrometheusHandle) -> String {
    let text = metrics.render();
    text.split_inclusive('\n').filter(|line| line.starts_with('#') || !line.ends_with(" NaN\n")).collect()
}

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/metrics", get(get_metrics))
}

async fn get_metrics(State(state): State<AppState>) -> Response {
    answer(&state.metrics)
}

/// All metrics as an answer.
pub(crate) fn answer(metrics: &PrometheusHandle) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render(metrics)).into_response()
}

#[cfg(test)]
mod tests {
    use riomar_schemas::{Offset, receipt::Degradation};

    use super::*;

    fn name(name: &str) -> Name {
        Name::new(name).expect("a name")
    }

    #[test]
    fn what_was_withdrawn_is_left_out_until_it_is_told_again() {
        let recorder = prometheus().expect("buckets").build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            let ours = StreamAccount { received: 7, adds_up: true, ..StreamAccount::default() };
            for stream in ["here", "gone"] {
                account(&name(stream), Some(&ours));
            }
            let offsets_of = |partition| PartitionOffsets {
                partition: PartitionId(partition),
                log_start: Offset(1),
                landed: Offset(2),
                log_end: Offset(3),
            };
            (0..2).for_each(|partition| offsets(&name("here"), &offsets_of(partition)));
            account(&name("gone"), None);
            offsets_unknown(&name("here"), PartitionId(1));
            let text = render(&recorder.handle());
            assert!(text.contains(r#"riomar_account_events{stream="here",part="received"} 7"#), "{text}");
            assert!(text.contains(r#"riomar_account_errors_total{stream="gone"} 1"#), "{text}");
            for (kind, offset) in [("log_start", 1), ("landed", 2), ("log_end", 3)] {
                let told = format!(r#"riomar_stream_offset{{stream="here",partition="0",kind="{kind}"}} {offset}"#);
                assert!(text.contains(&told), "{text}");
            }
            assert!(!text.contains(r#"partition="1""#), "{text}");
            assert!(!text.contains(r#"{stream="gone",part="#) && !text.contains("NaN"), "{text}");
            account(&name("gone"), Some(&ours));
            assert!(render(&recorder.handle()).contains(r#"riomar_account_adds_up{stream="gone"} 1"#));
        });
    }

    #[test]
    fn a_degraded_answer_counts_once_for_each_view_and_code() {
        let recorder = prometheus().expect("buckets").build_recorder();
        let lack = |view: &str, code: &str, detail: &str| Degradation {
            code: code.to_owned(),
            view: name(view),
            partitions: Vec::new(),
            detail: detail.to_owned(),
        };
        let degraded =
            vec![lack("v", "realtime_behind", "one"), lack("v", "realtime_behind", "two"), lack("w", "realtime_behind", "")];
        metrics::with_local_recorder(&recorder, || {
            answered(&Receipt { degraded, ..Receipt::default() });
            answered(&Receipt::default());
        });
        let text = render(&recorder.handle());
        for view in ["v", "w"] {
            assert!(
                text.contains(&format!(r#"riomar_query_degraded_total{{view="{view}",code="realtime_behind"}} 1"#)),
                "{text}"
            );
        }
    }

    #[test]
    fn recomputes_have_buckets_of_an_hour_and_requests_of_a_millisecond() {
        let recorder = prometheus().expect("buckets").build_recorder();
        metrics::with_local_recorder(&recorder, || {
            for name in ["riomar_recompute_seconds", "riomar_http_request_seconds"] {
                metrics::histogram!(name).record(1_000.0);
            }
        });
        let text = render(&recorder.handle());
        assert!(text.contains(r#"riomar_recompute_seconds_bucket{le="1800"} 1"#), "{text}");
        assert!(text.contains(r#"riomar_http_request_seconds_bucket{le="0.001"} 0"#), "{text}");
    }
}
