//! Others on the same data: a producer and a consumer of Kafka that know nothing of Riomar, and a reader of the Delta table.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    time::Instant,
};

use riomar_tests::{
    catalog::{BY_MINUTE, READINGS, SQL},
    check::check_answer,
    deployment::Deployment,
    process::{DEADLINE, eventually},
    workload::{Workload, ndjson},
};

/// Runs a program with this input, to its end.
fn run(program: &str, arguments: &[&str], variables: &[(String, String)], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}: `infra/test` gets what the tests need"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The rows that another implementation of Delta finds in the master dataset; `None` where it is not installed.
fn rows_of_delta_table(deployment: &Deployment, stream: &str) -> Option<u64> {
    let python = "python3";
    let installed = Command::new(python).args(["-c", "import deltalake"]).output().is_ok_and(|output| output.status.success());
    if !installed {
        println!(
            "outside: the deltalake package of Python is not installed: the Delta table is not read (`pip install deltalake`)"
        );
        return None;
    }
    let script = "import os, sys, deltalake\n\
                  table = deltalake.DeltaTable(sys.argv[1], storage_options={'AWS_ENDPOINT_URL': sys.argv[2], 'AWS_ALLOW_HTTP': 'true'})\n\
                  print(deltalake.QueryBuilder().register('t', table).execute('SELECT count(*) AS n FROM t').read_all()['n'][0].as_py())\n";
    let table = format!("s3://{}/deployment/streams/{stream}/master", deployment.s3.bucket());
    let output = run(python, &["-c", script, &table, &deployment.s3.endpoint()], &deployment.s3.environment(), "");
    Some(String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_write_and_read_the_same_topics_and_tables() {
    let deployment = Deployment::start(SQL).await;
    for name in ["ingest", "serve", "speed-1", "batch-1"] {
        eventually(&format!("{name} to be ready"), async || deployment.is_ready(name).await.then_some(())).await;
    }
    let mut workload = Workload::new(7);
    let lines = workload.batch(200);
    assert!(deployment.send(READINGS.name, ndjson(&lines)).await, "{}", deployment.output());

    // A producer that goes round the ingestion endpoint, with its own partitioner, and what is no event at all among its records.
    let broker = deployment.kafka.bootstrap();
    let more = workload.batch(100);
    let texts: Vec<_> = more.into_iter().filter(|line| line.valid).map(|line| line.text).chain(["no event".to_owned()]).collect();
    run("kcat", &["-P", "-b", &broker, "-t", READINGS.name, "-z", "snappy"], &[], &(texts.join("\n") + "\n"));

    let began = Instant::now();
    let accepted = loop {
        let answer = deployment.ask(BY_MINUTE.name).await;
        let log = deployment.read_log(READINGS.name).await.expect("a log");
        if let Ok(answer) = answer {
            check_answer(&BY_MINUTE, BY_MINUTE.name, &answer, &log).unwrap_or_else(|error| panic!("{error}"));
            let account = deployment.account(READINGS.name).await.unwrap_or_default();
            // Landing has found what does not decode, whichever way it came.
            if account["adds_up"] == true && account["in_flight"] == 0 && account["undecodable"].as_u64() > Some(0) {
                break account;
            }
        }
        assert!(began.elapsed() < DEADLINE, "the events of the outside producer are not answered:\n{}", deployment.output());
    };

    // A consumer that knows nothing of Riomar finds each event as it was sent; cuts are records without a value.
    let read = run("kcat", &["-C", "-b", &broker, "-t", READINGS.name, "-o", "beginning", "-e", "-q"], &[], "");
    let read = String::from_utf8_lossy(&read.stdout);
    let events = read.lines().filter(|line| !line.is_empty()).count() as u64;
    let number = |name: &str| accepted[name].as_u64().expect("a number");
    assert_eq!(events, number("accepted") + number("undecodable"), "{accepted}");
    assert!(texts.iter().all(|text| read.lines().any(|line| line == text)));

    if let Some(rows) = rows_of_delta_table(&deployment, READINGS.name) {
        assert_eq!(rows, number("landed"), "{accepted}");
    }
}
