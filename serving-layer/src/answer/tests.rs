//! The formats of answers, read back.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    ipc::reader::StreamReader,
};
use riomar_schemas::{Name, Receipt, receipt::Degradation};

use super::*;

fn answer() -> Answer {
    let batch = |numbers: Vec<Option<i64>>, texts: Vec<Option<&str>>| {
        let numbers: ArrayRef = Arc::new(Int64Array::from(numbers));
        let texts: ArrayRef = Arc::new(StringArray::from(texts));
        RecordBatch::try_from_iter_with_nullable([("hits", numbers, true), ("path, \"x\"", texts, true)]).expect("a batch")
    };
    let batches = vec![
        batch(vec![Some(i64::MAX), None], vec![Some("a,\"b\"\n"), None]),
        batch(vec![], vec![]),
        batch(vec![Some(-1)], vec![Some("")]),
    ];
    let degraded = vec![Degradation {
        code: "realtime_unavailable".to_owned(),
        view: Name::new("traffic").expect("a name"),
        partitions: Vec::new(),
        detail: "größer 😀".to_owned(),
    }];
    Answer { schema: batches[0].schema(), batches, receipt: Receipt { degraded, ..Receipt::default() } }
}

async fn sent(format: AnswerFormat) -> (HeaderMap, Bytes) {
    let response = respond(answer(), format).expect("a response");
    let (parts, body) = response.into_parts();
    (parts.headers, axum::body::to_bytes(body, usize::MAX).await.expect("a body"))
}

fn receipt_of(headers: &HeaderMap) -> Option<Receipt> {
    serde_json::from_slice(headers.get(RECEIPT)?.as_bytes()).ok()
}

#[tokio::test]
async fn json() {
    let (headers, body) = sent(AnswerFormat::Json).await;
    let receipt = serde_json::to_string(&answer().receipt).expect("JSON");
    let expected = String::from(r#"{"columns":[{"name":"hits","type":"BIGINT"},{"name":"path, \"x\"","type":"VARCHAR"}],"#)
        + r#""rows":[[9223372036854775807,"a,\"b\"\n"],[null,null],[-1,""]],"receipt":"#
        + &receipt
        + "}";
    assert_eq!(String::from_utf8_lossy(&body), expected);
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn json_of_no_rows() {
    let empty = Answer { batches: Vec::new(), ..answer() };
    let response = respond(empty, AnswerFormat::Json).expect("a response");
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["rows"], serde_json::json!([]));
}

#[tokio::test]
async fn ndjson() {
    let (headers, body) = sent(AnswerFormat::Ndjson).await;
    let rows: Vec<serde_json::Value> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["path, \"x\""], "a,\"b\"\n");
    assert_eq!(receipt_of(&headers), Some(answer().receipt));
}

#[tokio::test]
async fn csv() {
    let (headers, body) = sent(AnswerFormat::Csv).await;
    let expected = "hits,\"path, \"\"x\"\"\"\r\n9223372036854775807,\"a,\"\"b\"\"\n\"\r\n,\r\n-1,\"\"\r\n";
    assert_eq!(String::from_utf8_lossy(&body), expected);
    assert_eq!(receipt_of(&headers), Some(answer().receipt));
}

#[tokio::test]
async fn arrow_ipc() {
    let (headers, body) = sent(AnswerFormat::Arrow).await;
    let batches: Vec<_> = StreamReader::try_new(&*body, None).expect("a stream").collect::<Result<_, _>>().expect("batches");
    assert_eq!(batches, answer().batches);
    assert_eq!(receipt_of(&headers), Some(answer().receipt));
}

#[tokio::test]
async fn large_answers_are_sent_in_pieces() {
    let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
    let batch = RecordBatch::try_from_iter([("n", rows)]).expect("a batch");
    let answer = Answer { schema: batch.schema(), batches: vec![batch], receipt: Receipt::default() };
    let text = AnswerText::new(answer, AnswerFormat::Json, "{}").expect("text");
    let pieces: Vec<_> = text.collect();
    assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.len() < 2 * PIECE_BYTES));
    let body: serde_json::Value = serde_json::from_slice(&pieces.concat()).expect("JSON");
    assert_eq!(body["rows"].as_array().map(Vec::len), Some(100_000));
}

#[test]
fn negotiation() {
    let cases = [
        ("", Some(AnswerFormat::Json)),
        ("*/*", Some(AnswerFormat::Json)),
        ("text/csv", Some(AnswerFormat::Csv)),
        ("text/*, application/json;q=0.5", Some(AnswerFormat::Csv)),
        ("application/json;q=0, */*;q=0.1", Some(AnswerFormat::Ndjson)),
        ("text/html, application/vnd.apache.arrow.stream;q=0.9", Some(AnswerFormat::Arrow)),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Some(AnswerFormat::Json)),
        ("image/png", None),
        ("application/json;q=0", None),
    ];
    for (accept, expected) in cases {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        assert_eq!(AnswerFormat::negotiate(&headers).ok(), expected, "{accept}");
    }
}
