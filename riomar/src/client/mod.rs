//! The HTTP client that the client commands, and the demo's generator, talk to the platform with.

pub mod chunks;
mod error;
pub mod send;

use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use url::Url;

pub use error::{ClientError, Problem};

/// How long one request may take. Longer than the platform's own limit of a query, so that its error arrives first.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A platform at one URL.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

/// An answer as it came: for programs the text, for people what it means.
#[derive(Debug, Clone)]
pub struct Answer {
    url: String,
    /// The JSON text.
    pub text: String,
}

impl Answer {
    /// Understands the text.
    ///
    /// # Errors
    /// [`ClientError::Unreadable`].
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ClientError> {
        serde_json::from_str(&self.text)
            .map_err(|error| ClientError::Unreadable { url: self.url.clone(), cause: error.to_string() })
    }
}

/// What became of the events of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SendAnswer {
    /// Events in the request.
    pub received: u64,
    /// Events that are durable in the log.
    pub accepted: u64,
    /// Events that are durable in quarantine.
    pub quarantined: u64,
    /// Events that broke a limit and are not kept.
    pub rejected: u64,
    /// What was wrong with the first few events that were not accepted.
    #[serde(default)]
    pub errors: Vec<LineError>,
}

/// Why one event was not accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LineError {
    /// The line in the request, counted from 1.
    pub line: u64,
    /// A stable code.
    pub code: String,
    /// The JSON pointer of the offending value.
    pub pointer: String,
    /// What was expected and what was found.
    pub detail: String,
}

impl Client {
    /// A client of the platform at `url`.
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let refused = |reason: String| ClientError::Url { url: url.to_owned(), reason };
        let base = Url::parse(url).map_err(|error| refused(error.to_string()))?;
        if base.scheme() != "http" {
            return Err(refused(format!("this build does not speak '{}'", base.scheme())));
        }
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("riomar/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self { http, base })
    }

    /// The platform's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Asks for a resource; its path is given in segments, which are escaped here.
    ///
    /// # Errors
    /// Every kind of [`ClientError`].
    pub async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer, ClientError> {
        self.ask(self.request(Method::GET, path).query(query)).await
    }

    /// Posts a JSON document.
    ///
    /// # Errors
    /// Every kind of [`ClientError`].
    pub async fn post(&self, path: &[&str], document: &serde_json::Value) -> Result<Answer, ClientError> {
        self.ask(self.request(Method::POST, path).json(document)).await
    }

    /// Asks for a resource and understands the answer.
    ///
    /// # Errors
    /// Every kind of [`ClientError`].
    pub async fn read<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ClientError> {
        self.get(path, &[]).await?.read()
    }

    /// Asks what the platform depends on and whether that is there; an answer is an answer also where it is not.
    ///
    /// # Errors
    /// Every kind of [`ClientError`].
    pub async fn readiness(&self) -> Result<Answer, ClientError> {
        let (status, answer, _) = self.exchange(self.request(Method::GET, &["readyz"])).await?;
        if status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE {
            Ok(answer)
        } else {
            Err(refusal(status, &answer, None))
        }
    }

    /// Runs a query.
    ///
    /// # Errors
    /// Every kind of [`ClientError`].
    pub async fn sql(&self, sql: &str) -> Result<Answer, ClientError> {
        self.post(&["v1", "sql"], &serde_json::json!({ "sql": sql })).await
    }

    /// Sends events, one a line.
    ///
    /// # Errors
    /// Every kind of [`ClientError`]. Where it cannot be told whether the events arrived, sending them again is safe in streams that
    /// declare `dedup_by`.
    pub async fn send(&self, stream: &str, lines: Vec<u8>) -> Result<SendAnswer, ClientError> {
        let request = self.request(Method::POST, &["v1", "streams", stream, "events"]);
        let request = request.header(header::CONTENT_TYPE, "application/x-ndjson").body(lines);
        match self.ask(request).await {
            // That every single event was rejected is a refusal to the protocol, and an answer like any other to whoever counts.
            Err(ClientError::Refused(mut problem)) if problem.code == "events_rejected" && problem.answer.is_some() => {
                problem.answer.take().ok_or(ClientError::Refused(problem))
            }
            answer => answer?.read(),
        }
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        // An http URL always has a path to extend.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.http.request(method, url).header(header::ACCEPT, "application/json")
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        let (status, answer, retry_after_seconds) = self.exchange(request).await?;
        if status.is_success() { Ok(answer) } else { Err(refusal(status, &answer, retry_after_seconds)) }
    }

    /// The status, the answer, and after how many seconds to try again where it says so.
    async fn exchange(&self, request: RequestBuilder) -> Result<(StatusCode, Answer, Option<u64>), ClientError> {
        let response = request.send().await.map_err(|error| self.unanswered(&error))?;
        let (status, url) = (response.status(), response.url().to_string());
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let text = response.text().await.map_err(|error| self.unanswered(&error))?;
        Ok((status, Answer { url, text }, retry_after))
    }

    fn unanswered(&self, error: &reqwest::Error) -> ClientError {
        let url = self.url().to_owned();
        match (error.is_timeout(), error.is_connect()) {
            (true, false) => ClientError::TimedOut { url, seconds: REQUEST_TIMEOUT.as_secs() },
            (true, true) => {
                let cause = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
                ClientError::Unreachable { url, cause }
            }
            (false, _) => ClientError::Unreachable { url, cause: innermost(error) },
        }
    }
}

/// What an answer that is no success says. A proxy in between may answer with something else than a problem document; the status
/// alone tells enough then.
fn refusal(status: StatusCode, answer: &Answer, retry_after_seconds: Option<u64>) -> ClientError {
    let mut problem: Problem = serde_json::from_str(&answer.text).unwrap_or_default();
    problem.status = status.as_u16();
    problem.answer = serde_json::from_str(&answer.text).ok();
    problem.retry_after_seconds = retry_after_seconds;
    ClientError::Refused(Box::new(problem))
}

/// The first cause of an error: "connection refused" tells more than "error sending request".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_checked_once() {
        assert_eq!(Client::new("http://127.0.0.1:8080/").expect("url").url(), "http://127.0.0.1:8080");
        for bad in ["127.0.0.1:8080", "https://host", "ftp://host", ""] {
            assert!(matches!(Client::new(bad), Err(ClientError::Url { .. })), "{bad}");
        }
    }

    #[test]
    fn segments_are_escaped() {
        let client = Client::new("http://host:1/base/").expect("url");
        let request = client.request(Method::GET, &["v1", "views", "a/b?c"]).build().expect("request");
        assert_eq!(request.url().as_str(), "http://host:1/base/v1/views/a%2Fb%3Fc");
    }

    #[tokio::test]
    async fn nobody_there_says_what_to_do_next() {
        // A port that was bound and let go: nobody listens there now.
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address").port();
        let error = Client::new(&format!("http://127.0.0.1:{port}")).expect("url").sql("SELECT 1").await.expect_err("nobody");
        let text = error.to_string();
        assert!(text.contains("Is `riomar up` running") && text.contains("--url"), "{text}");
        assert!(error.retry().is_some());
    }

    #[tokio::test]
    async fn a_platform_that_does_not_answer_is_not_taken_for_none() {
        // Connections are taken, and nobody ever reads from them.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let mut client = Client::new(&format!("http://{}", listener.local_addr().expect("address"))).expect("url");
        client.http = reqwest::Client::builder().timeout(Duration::from_millis(50)).build().expect("a client");
        let error = client.sql("SELECT 1").await.expect_err("no answer");
        assert!(matches!(error, ClientError::TimedOut { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("was reached, but did not answer within 120 s") && !text.contains("riomar up"), "{text}");
        assert!(error.retry().is_some());
    }
}
