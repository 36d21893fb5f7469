//! What `riomar status` prints of streams and views.

use super::*;

#[test]
fn a_view_is_told_in_a_row() {
    let text = r#"{"name":"v","stream":"s","generation":{"generation":3,"cut":4,"groups":1200,"age_seconds":65,"full":false},
        "freshness":{"receipt":{"views":{"v":{"stream":"s","generation":3,"cut":4,"through":{},"watermark":"2026-11-20T10:00:00Z"}},
        "degraded":[]},"lag_records":{"0":0,"1":12}},
        "last_audit":{"generation":2,"equal":true},"last_hand_over_audit":{"generation":3,"equal":false}}"#;
    let view: ViewStatus = serde_json::from_str(text).expect("view");
    let expected = [
        "v",
        "s",
        "3",
        "4",
        "1,200",
        "1 min 5 s ago",
        "12",
        "2026-11-20T10:00:00Z",
        "nothing",
        "generation 2: equal",
        "generation 3: DIFFERS",
    ];
    assert_eq!(view.row(), expected);
    let view: ViewStatus =
        serde_json::from_str(r#"{"name":"v","stream":"s","generation":null,
        "freshness":{"receipt":{"degraded":[{"code":"realtime_rebuilding","view":"v","detail":"answers end at the cut"}]},"lag_records":{"0":9}},
        "last_audit":null,"last_hand_over_audit":null}"#)
            .expect("view");
    let expected = ["v", "s", "none yet", "", "", "", "9", "", "degraded: answers end at the cut", "never", "never"];
    assert_eq!(view.row(), expected);
}

#[test]
fn what_the_platform_lacks_is_told_with_its_reason() {
    let text = r#"{"status":"unready","checks":[{"name":"log","ok":false,"required":true,"detail":"an append failed"},
        {"name":"realtime store","ok":true,"required":false}]}"#;
    let readiness: Readiness = serde_json::from_str(text).expect("readiness");
    assert_eq!(readiness.lines(), "unready\n  log: an append failed\n");
    assert!(readiness.is_unready());
    let readiness: Readiness = serde_json::from_str(r#"{"status":"ready","checks":[]}"#).expect("readiness");
    assert_eq!((readiness.lines().as_str(), readiness.is_unready()), ("ready\n", false));
}

#[test]
fn an_account_that_does_not_add_up_stands_out() {
    let account = Account { received: 5, accepted: 5, landed: 4, ..Account::default() };
    let table = streams_table(&[StreamStatus { name: "s".to_owned(), account, ..StreamStatus::default() }]);
    assert!(table.contains("NO"), "{table}");
}

#[test]
fn what_the_log_lost_is_told_with_what_to_do() {
    let text =
        r#"{"name":"s","account":{"lost":7},"losses":{"waiting":[{"partition":2,"from":5,"to":9,"offsets":4}],"accepted":[]}}"#;
    let stream: StreamStatus = serde_json::from_str(text).expect("stream");
    let told = stream.told_lost();
    assert!(told.contains("offsets 5 to 9 of partition 2") && told.contains("riomar accept-loss s"), "{told}");
    assert!(streams_table(&[stream]).contains('7'));
}

#[test]
fn numbers_that_lack_deleted_entries_are_told_as_what_they_are() {
    let table = |account: &str| {
        let stream: StreamStatus = serde_json::from_str(&format!(r#"{{"name":"s","account":{account}}}"#)).expect("stream");
        (streams_table(std::slice::from_ref(&stream)), stream.told_quarantine_lost())
    };
    let (whole, _) = table(r#"{"received":1234,"accepted":1200,"quarantined":30,"rejected":4,"quarantine_lost":0}"#);
    assert!(whole.contains("1,234") && !whole.contains("at least"), "{whole}");
    let (lacking, told) = table(r#"{"received":1234,"accepted":1200,"quarantined":30,"rejected":4,"quarantine_lost":7}"#);
    for number in ["at least 1,234", "at least 30", "at least 4"] {
        assert!(lacking.contains(number), "{lacking}");
    }
    assert!(!lacking.contains("at least 1,200") && told.starts_with("s: 7 entries"), "{lacking}{told}");
}
