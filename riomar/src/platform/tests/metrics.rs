//! Gauges end with their owner.

use futures::{FutureExt, future::pending};
use metrics_exporter_prometheus::PrometheusBuilder;
use riomar_serving_layer::metrics::render;

use super::*;

/// The names of the metrics that have samples.
fn named(text: &str, start: &str) -> std::collections::BTreeSet<String> {
    let samples = text.lines().filter(|line| line.starts_with(start));
    samples.map(|line| line.split(['{', ' ']).next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn what_a_process_no_longer_works_on_it_no_longer_tells() {
    let recorder = PrometheusBuilder::new().build_recorder();
    // The test has one thread, so its tasks record here.
    let _recording = ::metrics::set_default_local_recorder(&recorder);
    let told = |start: &str| named(&render(&recorder.handle()), start);
    let bench = bench(Arc::new(ManualClock::new(1_795_687_200_000))).await;
    bench.append(0..10).await;
    bench.speed().await;
    bench.platform.recompute(&[], false).await.expect("recomputed");
    let batch = Arc::clone(bench.platform.batch());
    let mut telling = Box::pin(batch.tell_generations(pending()));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while told("riomar_recompute_cut_offset").is_empty() {
        assert_eq!((&mut telling).now_or_never(), None, "it goes on until it is dropped");
        assert!(tokio::time::Instant::now() < deadline, "the generations were not told");
        tokio::task::yield_now().await;
    }

    let speed = ["riomar_speed_halted", "riomar_speed_lag_records", "riomar_speed_lag_seconds", "riomar_speed_position"];
    for name in speed {
        assert_eq!(told(name).len(), 1, "{name}");
    }
    assert_eq!(told("riomar_recompute_published_timestamp_seconds").len(), 1);
    assert_eq!((told("riomar_landing_offset").len(), told("riomar_log_").len()), (1, 3), "two bounds, and the errors");

    drop(telling);
    let told_still = told("riomar_recompute_");
    assert!(told_still.iter().all(|name| name.ends_with("_total") || name.contains("_seconds_")), "{told_still:?}");
    assert_eq!(told("riomar_landing_offset").len(), 1, "another owner");
    drop(bench);
    let gauges = told("riomar_speed_").into_iter().chain(told("riomar_landing_")).chain(told("riomar_log_"));
    let gauges: Vec<_> = gauges.filter(|name| !name.ends_with("_total")).collect();
    assert_eq!(gauges, Vec::<String>::new());
    assert_eq!(told("riomar_landing_rows_total").len(), 1, "counters stay");
}
