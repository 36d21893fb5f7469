//! HTTP/1.1 messages, as far as a front needs to know them.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::faults::S3Request;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 256 << 20;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A request with its whole body.
#[derive(Debug)]
pub struct Message {
    /// What it asks for.
    pub request: S3Request,
    /// Its bytes, with a header that closes the connection after the answer.
    pub bytes: Vec<u8>,
}

impl Message {
    /// Reads one request; `None` where the client has closed the connection.
    ///
    /// # Errors
    /// What is no request, or is longer than the limits.
    pub async fn read(client: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let body_at = loop {
            if let Some(at) = find(&bytes, END_OF_HEAD) {
                break at + END_OF_HEAD.len();
            }
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("the head of a request is too long"));
            }
            if client.read_buf(&mut bytes).await? == 0 {
                return if bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        let head = std::str::from_utf8(&bytes[..body_at]).map_err(io::Error::other)?.to_owned();
        let length = body_length(&head)?;
        let missing = (body_at + length).saturating_sub(bytes.len());
        let received = (&mut *client).take(missing as u64).read_to_end(&mut bytes).await?;
        if received < missing {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let request = request(&head)?;
        let line_ends_at = find(&bytes, b"\r\n").unwrap_or_default();
        bytes.splice(line_ends_at..line_ends_at, *b"\r\nconnection: close");
        Ok(Some(Self { request, bytes }))
    }
}

/// The part of an answer that ends in the middle of its body.
pub fn half(reply: &[u8]) -> &[u8] {
    let body_at = find(reply, END_OF_HEAD).map_or(reply.len(), |at| at + END_OF_HEAD.len());
    &reply[..body_at + (reply.len() - body_at) / 2]
}

/// 503, as S3 says it to those who ask too often.
pub fn slow_down(request: &S3Request) -> Vec<u8> {
    error(request, "503 Service Unavailable", "SlowDown", "Please reduce your request rate.")
}

/// 404, as S3 says it of a bucket.
pub fn no_such_bucket(request: &S3Request) -> Vec<u8> {
    error(request, "404 Not Found", "NoSuchBucket", "The specified bucket does not exist.")
}

fn error(request: &S3Request, status: &str, code: &str, message: &str) -> Vec<u8> {
    let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    let text = format!("{xml}<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    // The answer to HEAD has no body, whatever its length says.
    let body = if request.method == "HEAD" { "" } else { &text };
    let fields = format!("content-type: application/xml\r\ncontent-length: {}\r\nconnection: close", text.len());
    format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n{body}").into_bytes()
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// The value of a header.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn body_length(head: &str) -> io::Result<usize> {
    if header(head, "transfer-encoding").is_some() {
        return Err(io::Error::other("a request without content-length is not supported"));
    }
    let length = header(head, "content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
    if length > BODY_BYTES_MAX {
        return Err(io::Error::other("the body of a request is too long"));
    }
    Ok(length)
}

fn request(head: &str) -> io::Result<S3Request> {
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other("this is no request"));
    };
    let if_none_match = header(head, "if-none-match").is_some();
    Ok(S3Request { method: method.to_owned(), target: target.to_owned(), if_none_match })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_read_with_its_body() {
        let text = "PUT /b/k?x=1 HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\nContent-Length: 4\r\n\r\nbody and more";
        let message = Message::read(&mut text.as_bytes()).await.expect("reads").expect("one");
        let request = S3Request { method: "PUT".to_owned(), target: "/b/k?x=1".to_owned(), if_none_match: true };
        assert_eq!(message.request, request);
        let sent = String::from_utf8(message.bytes).expect("text");
        assert!(sent.starts_with("PUT /b/k?x=1 HTTP/1.1\r\nconnection: close\r\nHost: h\r\n"), "{sent}");
        assert!(sent.contains("\r\n\r\nbody"), "{sent}");
        assert!(Message::read(&mut &b""[..]).await.expect("reads").is_none());
        Message::read(&mut &b"PUT /b/k HTTP/1.1\r\nContent-Length: 4\r\n\r\nbod"[..]).await.expect_err("cut short");
        Message::read(&mut &b"PUT /b/k HTTP/1.1\r\n"[..]).await.expect_err("cut short");
    }

    #[test]
    fn half_an_answer_has_its_head_and_half_its_body() {
        assert_eq!(half(b"HTTP/1.1 200 OK\r\n\r\n1234"), b"HTTP/1.1 200 OK\r\n\r\n12");
        assert_eq!(half(b"HTTP/1.1 200 OK\r\n\r\n"), b"HTTP/1.1 200 OK\r\n\r\n");
    }
}
