//! Runs of a deployment with two batch processes behind one address.

use std::{
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use riomar_tests::{
    catalog::{READINGS, SQL},
    deployment::Deployment,
    process::{binary, command, eventually},
    workload::{Workload, ndjson},
};
use serde_json::Value;
use tokio::net::TcpListener;

/// A gateway that sends one request here and the next one there; its URL.
async fn gateway(behind: [String; 2]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (turns, http) = (Arc::new(AtomicUsize::new(0)), reqwest::Client::new());
    let pass = async move |request: Request| -> Response {
        let to = &behind[turns.fetch_add(1, Ordering::SeqCst) % behind.len()];
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        let passed = http.request(parts.method, format!("{to}{}", parts.uri)).headers(parts.headers).body(body).send().await;
        let answer = passed.expect("both run");
        let (status, body) = (answer.status(), answer.bytes().await.expect("a body"));
        (status, Body::from(body)).into_response()
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(pass)).await });
    url
}

async fn recompute(url: String) -> Output {
    let run = move || command(binary()).args(["recompute", "--json", "--url", &url]).output();
    tokio::task::spawn_blocking(run).await.expect("no panic").expect("the binary starts")
}

async fn get(deployment: &Deployment, name: &str, path: &str) -> Option<Value> {
    let (status, text) = deployment.get(name, path).await?;
    assert!(status == 200 || status == 503, "{path} of {name}: {status}: {text}");
    (status == 200).then(|| serde_json::from_str(&text).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_known_to_both_batch_processes_and_that_of_a_killed_one_does_not_run_for_ever() {
    let mut deployment = Deployment::start(SQL).await;
    for name in ["ingest", "batch-1", "batch-2", "serve"] {
        eventually(name, async || deployment.is_ready(name).await.then_some(())).await;
    }
    let leader = eventually("a leader", async || deployment.leader().await).await;
    let other = if leader == "batch-1" { "batch-2" } else { "batch-1" };
    assert!(deployment.send(READINGS.name, ndjson(&Workload::new(5).batch(40))).await);

    // The one that stands by takes the run: the leader has scheduled runs of the same stream all the time.
    let url = gateway([other, leader].map(|name| deployment.url(name).to_owned())).await;
    let output = recompute(url).await;
    let (told, noted) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}\n{noted}\n{}", deployment.output());
    let run: Value = serde_json::from_str(&told).expect("JSON");
    for name in [leader, other] {
        let path = format!("/v1/batch/runs/{}", run["id"].as_str().expect("an id"));
        eventually("the run's end", async || {
            get(&deployment, name, &path).await.filter(|found| found["state"] == "done" && found["results"] == run["results"])
        })
        .await;
        // Scheduled ones of the leader are in it as well.
        eventually("all runs", async || {
            let all = get(&deployment, name, "/v1/batch/runs").await?;
            let all = all["runs"].as_array().expect("runs").clone();
            assert!(all.iter().any(|one| one["id"] == run["id"]), "{name}: {all:#?}");
            (all.len() > 1).then_some(())
        })
        .await;
    }

    // A run whose process is killed.
    let started =
        reqwest::Client::new().post(format!("{}/v1/batch/runs", deployment.url(other))).send().await.expect("an answer");
    let started: Value = serde_json::from_str(&started.text().await.expect("a body")).expect("JSON");
    deployment.kill(other);
    let path = format!("/v1/batch/runs/{}", started["id"].as_str().expect("an id"));
    let unknown = eventually("the run to be unknown", async || {
        get(&deployment, leader, &path).await.filter(|found| found["state"] == "unknown")
    })
    .await;
    assert!(unknown["error"].as_str().expect("a text").contains("nothing is heard"), "{unknown}");
}
