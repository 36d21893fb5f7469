//! Just enough of the Redis protocol (RESP2) to ask a test's server something.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// The longest reply that is read, in bytes.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// A reply: a text (lists are its lines), or the server's error.
pub(crate) type Reply = Result<String, String>;

/// Sends one command over a connection of its own, after the password where there is one, and reads the reply.
pub(crate) fn command(port: u16, password: Option<&str>, arguments: &[&str], within: Duration) -> io::Result<Reply> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    let mut input = BufReader::new(&stream);
    if let Some(password) = password {
        (&stream).write_all(request(&["AUTH", password]).as_bytes())?;
        let reply = read_reply(&mut input)?;
        if reply.is_err() {
            return Ok(reply);
        }
    }
    (&stream).write_all(request(arguments).as_bytes())?;
    read_reply(&mut input)
}

fn request(arguments: &[&str]) -> String {
    let mut request = format!("*{}\r\n", arguments.len());
    for argument in arguments {
        request += &format!("${}\r\n{argument}\r\n", argument.len());
    }
    request
}

fn read_reply(input: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let line = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
    match kind {
        "+" | ":" => Ok(Ok(rest.to_owned())),
        "-" => Ok(Err(rest.to_owned())),
        "$" => match length(rest)? {
            None => Ok(Ok(String::new())),
            Some(length) => {
                let mut bytes = vec![0; length + 2];
                input.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(Ok(String::from_utf8_lossy(&bytes).into_owned()))
            }
        },
        "*" => {
            let mut lines = Vec::new();
            for _ in 0..length(rest)?.unwrap_or(0) {
                match read_reply(input)? {
                    Ok(line) => lines.push(line),
                    error => return Ok(error),
                }
            }
            Ok(Ok(lines.join("\n")))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The length of a text or list; `None` for one that is absent.
fn length(text: &str) -> io::Result<Option<usize>> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(length) => match usize::try_from(length) {
            Ok(length) if length <= REPLY_BYTES_MAX => Ok(Some(length)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        },
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_reply() {
        let cases: [(&str, Reply); 6] = [
            ("+PONG\r\n", Ok("PONG".into())),
            ("-LOADING wait\r\n", Err("LOADING wait".into())),
            (":42\r\n", Ok("42".into())),
            ("$5\r\na\r\nbc\r\n", Ok("a\r\nbc".into())),
            ("$-1\r\n", Ok(String::new())),
            ("*2\r\n$1\r\na\r\n:7\r\n", Ok("a\n7".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(read_reply(&mut text.as_bytes()).expect(text), expected, "{text:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for text in ["", "+cut", "?\r\n", "$9\r\nshort\r\n", "$x\r\n", "$99999999999\r\n"] {
            assert!(read_reply(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
