//! What can go wrong between a client command and the platform; each kind says what to do next.

use std::time::Duration;

use serde::Deserialize;

use super::SendAnswer;

/// An error of a request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL cannot be used.
    #[error("'{url}' cannot be used as --url: {reason}. Write http://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answered, or the connection broke.
    #[error(
        "{url} cannot be reached ({cause}). Is `riomar up` running there? Start it, or name another address with --url or RIOMAR_URL"
    )]
    Unreachable {
        /// The platform's URL.
        url: String,
        /// The cause in words.
        cause: String,
    },
    /// Somebody is there, but gave no answer for as long as a request may take. What was asked for may have been done.
    #[error(
        "{url} was reached, but did not answer within {seconds} s. It may be overloaded: see its journal, or `riomar status`; then try \
         again"
    )]
    TimedOut {
        /// The platform's URL.
        url: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The platform answered that it will not do it.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The answer is not what this version of the command understands.
    #[error("{url} gave an answer that this command does not understand ({cause}). Is it a Riomar platform of the same version?")]
    Unreadable {
        /// The URL asked.
        url: String,
        /// The cause in words.
        cause: String,
    },
}

/// A refusal as RFC 9457 describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The kind of problem in a few words.
    pub title: String,
    /// This occurrence of it.
    pub detail: String,
    /// A stable code.
    pub code: String,
    /// Whether the platform says that the same request may succeed later.
    pub retryable: bool,
    /// The id of the request, which the platform's journal names.
    pub instance: String,
    /// Seconds after which the platform asked to be tried again, from the header `Retry-After`.
    #[serde(skip)]
    pub retry_after_seconds: Option<u64>,
    /// What became of the events of the request, where the refusal says so.
    #[serde(skip)]
    pub answer: Option<SendAnswer>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.title.as_str(), self.detail.as_str()) {
            ("", "") => write!(f, "the platform refused with HTTP status {}", self.status)?,
            (text, "") | ("", text) => write!(f, "{text} (HTTP status {})", self.status)?,
            (title, detail) => write!(f, "{title}: {detail} (HTTP status {})", self.status)?,
        }
        match self.instance.as_str() {
            request if self.status >= 500 && !request.is_empty() => write!(f, "; request {request}"),
            _ => Ok(()),
        }
    }
}

impl ClientError {
    /// A stable code: the platform's own where it answered.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Url { .. } => "invalid_url",
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "timed_out",
            Self::Refused(problem) if problem.code.is_empty() => "refused",
            Self::Refused(problem) => &problem.code,
            Self::Unreadable { .. } => "unreadable_answer",
        }
    }

    /// Whether the same request may succeed later, and how long the platform asked to wait before.
    #[must_use]
    pub fn retry(&self) -> Option<Option<Duration>> {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => Some(None),
            Self::Refused(problem) if problem.retryable || matches!(problem.status, 429 | 502 | 503 | 504) => {
                Some(problem.retry_after_seconds.map(Duration::from_secs))
            }
            Self::Refused(_) | Self::Url { .. } | Self::Unreadable { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let refused = |status, retry_after_seconds| {
            ClientError::Refused(Box::new(Problem { status, retry_after_seconds, ..Problem::default() }))
        };
        let unreachable = ClientError::Unreachable { url: String::new(), cause: String::new() };
        for (error, expected) in [
            (unreachable, Some(None)),
            (ClientError::TimedOut { url: String::new(), seconds: 1 }, Some(None)),
            (refused(429, Some(2)), Some(Some(Duration::from_secs(2)))),
            (refused(503, None), Some(None)),
            (refused(400, None), None),
            (refused(404, Some(1)), None),
            (refused(413, None), None),
            (refused(500, None), None),
        ] {
            assert_eq!(error.retry(), expected, "{error}");
        }
        let slow = Problem { status: 408, retryable: true, ..Problem::default() };
        assert_eq!(ClientError::Refused(Box::new(slow)).retry(), Some(None));
    }

    #[test]
    fn a_refusal_reads_well() {
        let problem = Problem {
            status: 404,
            title: "unknown stream".to_owned(),
            detail: "there is no stream 'x'".to_owned(),
            ..Problem::default()
        };
        assert_eq!(problem.to_string(), "unknown stream: there is no stream 'x' (HTTP status 404)");
        let problem =
            Problem { status: 500, title: "Internal error".to_owned(), instance: "7-1".to_owned(), ..Problem::default() };
        assert_eq!(problem.to_string(), "Internal error (HTTP status 500); request 7-1");
        assert_eq!(Problem { status: 502, ..Problem::default() }.to_string(), "the platform refused with HTTP status 502");
    }
}
