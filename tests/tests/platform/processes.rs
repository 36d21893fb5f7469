//! What a person sees of a deployment: every process, what it does, who is gone, and what nobody does any more.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use riomar_tests::{
    catalog::{PARTITIONS, READINGS, SQL},
    deployment::{Deployment, PROCESSES},
    process::{binary, command},
    workload::{Workload, ndjson},
};
use serde_json::Value;

/// How long it may take until everybody has told what is the case: a process is silent for half a minute before it counts as such.
const PATIENCE: Duration = Duration::from_secs(180);

struct Scenario {
    deployment: Deployment,
}

impl Scenario {
    /// Asks again and again until what is heard is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Self, &Heard) -> bool) -> Heard {
        let began = Instant::now();
        let mut last = Value::Null;
        loop {
            if let Some(answer) = self.ask().await {
                let heard = Heard(answer);
                if wanted(self, &heard) {
                    return heard;
                }
                last = heard.0;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "waited in vain until {what}; heard at last: {last:#}\n{}",
                self.deployment.output()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn ask(&self) -> Option<Value> {
        let response = reqwest::get(format!("{}/v1/processes", self.deployment.url("serve"))).await.ok()?;
        response.json().await.ok()
    }

    /// What a person is shown, and the exit code.
    fn status(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let mut status = command(binary());
        status.args(["status", "--url", self.deployment.url("serve")]).args(arguments);
        let output = status.output().expect("the binary starts");
        (String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr), output.status.code())
    }

    /// Those of these processes that are heard of.
    fn heard<'a>(&self, heard: &'a Heard, names: &[&str]) -> Vec<&'a Value> {
        let of = |process: &&Value| names.iter().any(|name| process["address"] == self.deployment.url(name));
        heard.processes().filter(|process| process["state"] == "heard").filter(of).collect()
    }

    fn is_silent(&self, heard: &Heard, name: &str) -> bool {
        let mut of = heard.processes().filter(|process| process["address"] == self.deployment.url(name));
        of.all(|process| process["state"] == "silent") && self.heard(heard, &[name]).is_empty()
    }

    /// The process that leads the batch layer, where exactly one says that it does.
    fn leader(&self, heard: &Heard) -> Option<&'static str> {
        let leads = |name: &&str| self.heard(heard, &[name]).iter().any(|process| process["batch"]["leads"] == true);
        let leaders: Vec<_> = ["batch-1", "batch-2"].into_iter().filter(leads).collect();
        (leaders.len() == 1).then(|| leaders[0])
    }

    /// The partitions that these processes fold, where each is folded once.
    fn folded(&self, heard: &Heard, names: &[&str]) -> Option<BTreeSet<u64>> {
        let partitions = self.heard(heard, names).into_iter().filter_map(|process| process["speed"]["partitions"].as_array());
        let partitions: Vec<_> = partitions.flatten().filter_map(|partition| partition["partition"].as_u64()).collect();
        let once: BTreeSet<_> = partitions.iter().copied().collect();
        (once.len() == partitions.len()).then_some(once)
    }

    fn is_whole(&self, heard: &Heard) -> bool {
        PROCESSES.iter().all(|(name, role)| {
            let processes = self.heard(heard, &[name]);
            processes.len() == 1
                && processes.iter().all(|process| process["status"] == "ready" && process["roles"] == serde_json::json!([role]))
        }) && self.leader(heard).is_some()
            && self.folded(heard, &["speed-1", "speed-2"]).is_some_and(|folded| folded.len() == PARTITIONS)
            && heard.missing().is_empty()
    }
}

/// An answer.
struct Heard(Value);

impl Heard {
    fn processes(&self) -> impl Iterator<Item = &Value> {
        self.0["processes"].as_array().into_iter().flatten()
    }

    fn missing(&self) -> Vec<&str> {
        self.0["missing_roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_is_shown_and_who_is_gone_is_missed() {
    let mut scenario = Scenario { deployment: Deployment::start(SQL).await };
    let whole = scenario.until("all six are ready", Scenario::is_whole).await;
    assert_eq!(whole.processes().count(), PROCESSES.len());
    let lags =
        scenario.heard(&whole, &["speed-1", "speed-2"]).into_iter().flat_map(|process| process["speed"]["partitions"].as_array());
    assert!(lags.flatten().all(|partition| !partition["partition"].is_null() && partition["stream"] == READINGS.name));
    assert!(scenario.heard(&whole, &["ingest"]).iter().all(|process| process["ingest"]["accepts"] == true));
    let (shown, code) = scenario.status(&[]);
    assert_eq!(code, Some(0), "{shown}");
    for (name, _) in PROCESSES {
        assert!(shown.contains(scenario.deployment.url(name)), "{name} is not shown:\n{shown}");
    }
    for text in ["leads", "stands by", "accepts events", "folds "] {
        assert!(shown.contains(text), "{text}:\n{shown}");
    }

    // Two are killed and one is frozen.
    assert!(scenario.deployment.send(READINGS.name, ndjson(&Workload::new(5).batch(40))).await);
    let leader = scenario.leader(&whole).expect("one leads");
    scenario.deployment.kill(leader);
    scenario.deployment.kill("ingest");
    scenario.deployment.process("speed-1").pause();
    let rest = scenario
        .until("the others have taken over", |scenario, heard| {
            [leader, "ingest", "speed-1"].iter().all(|name| scenario.is_silent(heard, name))
                && scenario.leader(heard).is_some_and(|other| other != leader)
                && scenario.folded(heard, &["speed-2"]).is_some_and(|folded| folded.len() == PARTITIONS)
        })
        .await;
    assert_eq!(rest.missing(), ["ingest"], "one of two is not missed");
    let (shown, code) = scenario.status(&[]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("SILENT") && shown.contains("missing: no process has the role ingest"), "{shown}");
    let (json, _) = scenario.status(&["--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["deployment"]["missing_roles"], serde_json::json!(["ingest"]));

    // All are back: whoever was killed as another process, whoever was frozen as the same.
    scenario.deployment.process("speed-1").resume();
    scenario.deployment.spawn(leader);
    scenario.deployment.spawn("ingest");
    let whole = scenario.until("all six are ready again", Scenario::is_whole).await;
    let of_speed = whole.processes().filter(|process| process["address"] == scenario.deployment.url("speed-1"));
    assert_eq!(of_speed.count(), 1, "the same process woke up");

    // A process that is stopped in order says so.
    assert_eq!(scenario.deployment.stop(leader).await, Some(0));
    let address = scenario.deployment.url(leader);
    let stopped = |process: &&Value| process["address"] == address && process["state"] == "heard";
    let heard = Heard(scenario.ask().await.expect("an answer"));
    assert_eq!(heard.processes().filter(stopped).count(), 0, "{:#}", heard.0);
}
