//! Cutting a stream of lines into requests. The same bytes always give the same chunks.

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Lines in one request at the most.
pub const CHUNK_LINES_MAX: u64 = 5_000;
/// Bytes of one request at the most.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;

/// Whole lines, ready to be sent as NDJSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The number of the chunk's first line in the file, counted from 1.
    pub first_line: u64,
    /// The lines, each with its line feed.
    pub body: Vec<u8>,
    /// How many bytes of the file it stands for.
    pub bytes_read: u64,
    /// Numbers of lines that are not in `body` because they alone are longer than a request may be.
    pub too_long: Vec<u64>,
}

/// Cuts a reader into [`Chunk`]s. Never holds more than one chunk.
#[derive(Debug)]
pub struct Chunks<R> {
    reader: R,
    next_line: u64,
    /// A line that did not fit any more, with its bytes in the file.
    carried: Option<(Vec<u8>, u64)>,
}

/// One line, or as much of it as a request may hold.
enum Line {
    Whole,
    TooLong,
    End,
}

impl<R: AsyncBufRead + Unpin> Chunks<R> {
    /// Chunks of everything that `reader` gives.
    pub fn new(reader: R) -> Self {
        Self { reader, next_line: 1, carried: None }
    }

    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// Whatever reading reports.
    pub async fn next(&mut self) -> std::io::Result<Option<Chunk>> {
        let mut chunk = Chunk { first_line: self.next_line, body: Vec::new(), bytes_read: 0, too_long: Vec::new() };
        for index in 0..CHUNK_LINES_MAX {
            let (mut line, mut bytes) = self.carried.take().unwrap_or_default();
            let kind = if line.is_empty() { self.line(&mut line, &mut bytes).await? } else { Line::Whole };
            match kind {
                Line::End if index == 0 => return Ok(None),
                Line::End => break,
                // A whole line that does not fit any more opens the next chunk.
                Line::Whole if chunk.body.len() + line.len() > CHUNK_BYTES_MAX => {
                    self.carried = Some((line, bytes));
                    break;
                }
                Line::Whole => chunk.body.append(&mut line),
                Line::TooLong => {
                    // A line feed stands in for the line, so that the lines behind it keep their numbers.
                    chunk.too_long.push(self.next_line);
                    chunk.body.push(b'\n');
                }
            }
            chunk.bytes_read += bytes;
            self.next_line += 1;
        }
        Ok(Some(chunk))
    }

    /// Reads one line into `line`, adding a line feed where the last one lacks it, and counts its bytes.
    async fn line(&mut self, line: &mut Vec<u8>, bytes: &mut u64) -> std::io::Result<Line> {
        loop {
            let buffer = self.reader.fill_buf().await?;
            if buffer.is_empty() {
                if *bytes == 0 {
                    return Ok(Line::End);
                }
                line.push(b'\n');
                break;
            }
            let end = buffer.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let used = end.unwrap_or(buffer.len());
            // Of a line that is too long only the length is followed, so it costs no memory.
            if line.len() <= CHUNK_BYTES_MAX {
                line.extend_from_slice(&buffer[..used]);
            }
            self.reader.consume(used);
            *bytes += used as u64;
            if end.is_some() {
                break;
            }
        }
        Ok(if line.len() > CHUNK_BYTES_MAX { Line::TooLong } else { Line::Whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn chunks(text: &[u8]) -> Vec<Chunk> {
        // A small buffer, so that lines do not come in one piece.
        let mut chunks = Chunks::new(tokio::io::BufReader::with_capacity(7, text));
        let mut all = Vec::new();
        while let Some(chunk) = chunks.next().await.expect("reading memory") {
            all.push(chunk);
        }
        all
    }

    #[tokio::test]
    async fn nothing_is_no_chunk() {
        assert_eq!(chunks(b"").await, vec![]);
    }

    #[tokio::test]
    async fn the_last_line_needs_no_line_feed() {
        let expected = Chunk { first_line: 1, body: b"{}\n\n[1]\n".to_vec(), bytes_read: 7, too_long: vec![] };
        assert_eq!(chunks(b"{}\n\n[1]").await, vec![expected]);
    }

    #[tokio::test]
    async fn a_chunk_ends_with_its_last_line() {
        let text = "{\"a\":1}\n".repeat(12_345);
        let all = chunks(text.as_bytes()).await;
        assert_eq!(all.iter().map(|chunk| chunk.first_line).collect::<Vec<_>>(), [1, 5_001, 10_001]);
        assert_eq!(all.iter().map(|chunk| chunk.bytes_read).sum::<u64>(), text.len() as u64);
        assert_eq!(all.iter().flat_map(|chunk| chunk.body.clone()).collect::<Vec<_>>(), text.as_bytes());
    }

    #[tokio::test]
    async fn a_chunk_ends_before_it_is_too_large() {
        let line = format!("\"{}\"\n", "x".repeat(1_500_000));
        let text = line.repeat(5);
        let all = chunks(text.as_bytes()).await;
        assert_eq!(all.iter().map(|chunk| chunk.first_line).collect::<Vec<_>>(), [1, 3, 5]);
        assert!(all.iter().all(|chunk| chunk.body.len() <= CHUNK_BYTES_MAX));
        assert_eq!(all.iter().map(|chunk| chunk.bytes_read).sum::<u64>(), text.len() as u64);
        assert_eq!(all.iter().flat_map(|chunk| chunk.body.clone()).collect::<Vec<_>>(), text.as_bytes());
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_named_and_left_out() {
        let text = format!("{{}}\n{}\n{{\"b\":2}}\n", "x".repeat(CHUNK_BYTES_MAX + 1));
        let all = chunks(text.as_bytes()).await;
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].body, b"{}\n\n{\"b\":2}\n");
        assert_eq!((all[0].too_long.as_slice(), all[0].bytes_read), ([2].as_slice(), text.len() as u64));
    }
}
