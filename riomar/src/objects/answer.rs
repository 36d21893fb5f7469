//! What S3 says when it refuses: a code and a sentence, in XML.
//!
//! The whole text is not passed on: among other things it repeats the access key and the signature.

use std::error::Error as _;

use object_store::{Error, path::Path};

use super::s3::STORE;

/// Codes that say that this process may not do what it asked for.
const DENIALS: &[&str] = &["AccessDenied", "AllAccessDisabled", "AccountProblem"];
/// Codes that say that S3 does not know, or no longer knows, who is asking.
const BAD_CREDENTIALS: &[&str] =
    &["InvalidAccessKeyId", "SignatureDoesNotMatch", "NotSignedUp", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"];
/// Codes that say that the bucket is in another region.
const WRONG_REGION: &[&str] = &["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"];
const NO_BUCKET: &str = "NoSuchBucket";
/// How the client tells of a redirect to another region.
const BARE_REDIRECT: &str = "redirect without LOCATION";
/// How the client tells of an answer's status, which follows.
const STATUS: &str = "status code: ";
/// Statuses that say that the request was wrong, and mean that it came too slowly or too often.
const PASSING: &[u16] = &[408, 429];

/// What S3 answered, as short as it can be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("S3 answered {code}: {message}")]
pub struct Answer {
    code: String,
    message: String,
}

/// What is wrong for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Who is asking.
    Credentials,
    /// What they may do.
    Denied,
    /// There is no bucket.
    NoBucket,
    /// The bucket is elsewhere.
    Region,
    /// Something else.
    Other,
}

impl Answer {
    /// The answer that an error tells of, where there was one with a code.
    fn of(error: &Error) -> Option<Self> {
        if let Some(answer) = error.source().and_then(|source| source.downcast_ref::<Self>()) {
            return Some(answer.clone());
        }
        let text = error.to_string();
        let element = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
        };
        Some(Self { code: element("Code")?, message: element("Message").unwrap_or_default() })
    }

    fn is_one_of(&self, codes: &[&str]) -> bool {
        codes.contains(&self.code.as_str())
    }
}

/// The status that an error tells of.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once(STATUS)?;
    rest.get(..3)?.parse().ok()
}

/// Whether a status is one that asking again does not change.
fn is_for_good(status: u16) -> bool {
    (400..500).contains(&status) && !PASSING.contains(&status)
}

/// What an error says is wrong for good; `None` where asking again may help.
pub fn refusal(error: &Error) -> Option<Refusal> {
    let answer = Answer::of(error);
    let text = error.to_string();
    match answer {
        Some(answer) if answer.is_one_of(BAD_CREDENTIALS) => Some(Refusal::Credentials),
        Some(answer) if answer.is_one_of(DENIALS) => Some(Refusal::Denied),
        Some(answer) if answer.is_one_of(WRONG_REGION) => Some(Refusal::Region),
        Some(answer) if answer.code == NO_BUCKET => Some(Refusal::NoBucket),
        _ if text.contains(BARE_REDIRECT) => Some(Refusal::Region),
        _ => match error {
            Error::PermissionDenied { .. } => Some(Refusal::Denied),
            Error::Unauthenticated { .. } => Some(Refusal::Credentials),
            _ => status(&text).is_some_and(is_for_good).then_some(Refusal::Other),
        },
    }
}

/// The error that the platform hears. Who may not ask gets an error that is not tried again, without what the answer repeats of
/// the request. A bucket that is not there is not an object that is not there: nothing may be concluded from it.
pub fn told(error: Error, location: &Path) -> Error {
    let Some(answer) = Answer::of(&error) else { return error };
    let path = || location.to_string();
    if answer.is_one_of(DENIALS) {
        Error::PermissionDenied { path: path(), source: answer.into() }
    } else if answer.is_one_of(BAD_CREDENTIALS) {
        Error::Unauthenticated { path: path(), source: answer.into() }
    } else if answer.code == NO_BUCKET {
        Error::Generic { store: STORE, source: answer.into() }
    } else {
        error
    }
}

/// An error in words, without what S3 repeats of the request.
pub fn detail(error: &Error) -> String {
    Answer::of(error).map_or_else(|| error.to_string(), |answer| answer.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(code: &str) -> String {
        format!(
            "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?><Error><Code>{code}</Code>\
             <Message>why</Message><AWSAccessKeyId>AKIDEXAMPLE</AWSAccessKeyId></Error>"
        )
    }

    fn generic(text: String) -> Error {
        Error::Generic { store: STORE, source: text.into() }
    }

    #[test]
    fn what_is_wrong_for_good_is_told_from_what_may_pass() {
        for (error, expected) in [
            (generic(body("SignatureDoesNotMatch")), Some(Refusal::Credentials)),
            (generic(body("ExpiredToken")), Some(Refusal::Credentials)),
            (generic(body("AccessDenied")), Some(Refusal::Denied)),
            (generic(body("NoSuchBucket")), Some(Refusal::NoBucket)),
            (generic(body("AuthorizationHeaderMalformed")), Some(Refusal::Region)),
            (generic("Received redirect without LOCATION, …".to_owned()), Some(Refusal::Region)),
            (generic("Server returned non-2xx status code: 400 Bad Request: ".to_owned()), Some(Refusal::Other)),
            (Error::PermissionDenied { path: String::new(), source: "no body".into() }, Some(Refusal::Denied)),
            (generic("Server returned non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code>".to_owned()), None),
            (generic("HTTP error: error sending request: connection refused".to_owned()), None),
            (generic("Server returned non-2xx status code: 429 Too Many Requests: slow down".to_owned()), None),
            (generic("Server returned non-2xx status code: 408 Request Timeout: ".to_owned()), None),
            (
                generic(
                    "after 4 retries - Server returned non-2xx status code: 429 Too Many Requests: status code: 400".to_owned(),
                ),
                None,
            ),
        ] {
            assert_eq!(refusal(&error), expected, "{error}");
        }
    }

    #[test]
    fn nothing_is_repeated_of_the_request() {
        let path = Path::from("a/b");
        for code in ["AccessDenied", "SignatureDoesNotMatch", "NoSuchBucket"] {
            let error = Error::NotFound { path: "a/b".to_owned(), source: body(code).into() };
            assert!(!detail(&error).contains("AKID"), "{code}");
            let told = told(error, &path);
            assert!(!format!("{told} {told:?}").contains("AKID") && told.to_string().contains(code), "{told:?}");
            assert!(!matches!(told, Error::NotFound { .. }), "{told:?}");
            assert!(matches!(refusal(&told), Some(Refusal::Denied | Refusal::Credentials | Refusal::NoBucket)), "{told:?}");
        }
        let absent = Error::NotFound { path: "a/b".to_owned(), source: body("NoSuchKey").into() };
        assert!(matches!(told(absent, &path), Error::NotFound { .. }));
    }
}
