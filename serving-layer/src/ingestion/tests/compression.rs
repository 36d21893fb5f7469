//! Compressed bodies, honest and hostile.

use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::*;
use crate::ingestion::IngestionLimits;

async fn read_all(mut encoder: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoder.read_to_end(&mut bytes).await.expect("compressed");
    bytes
}

/// The text in both encodings, each with its name.
async fn compressed(text: &[u8]) -> [(&'static str, Vec<u8>); 2] {
    [("gzip", read_all(GzipEncoder::new(text)).await), ("zstd", read_all(ZstdEncoder::new(text)).await)]
}

#[tokio::test]
async fn both_encodings() {
    let body = format!("{}\n{}\n", event("1"), event("2"));
    for (encoding, bytes) in compressed(body.as_bytes()).await {
        let platform = Platform::new().await;
        let reply = platform.post(EVENTS, &[NDJSON, ("content-encoding", encoding)], bytes.clone()).await;
        assert_eq!(counts(&reply.json()), [2, 2, 0, 0], "{encoding}");
        // Parts that were compressed one by one and put together.
        let reply = platform.post(EVENTS, &[NDJSON, ("content-encoding", encoding)], [bytes.clone(), bytes].concat()).await;
        assert_eq!(counts(&reply.json()), [4, 4, 0, 0], "{encoding}");
    }
}

#[tokio::test]
async fn cut_short_or_damaged() {
    let body = format!("{}\n{}\n", event("1"), event("2"));
    for (encoding, bytes) in compressed(body.as_bytes()).await {
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2] ^= 0x55;
        let behind = [bytes.clone(), b"more".to_vec()].concat();
        for broken in [bytes[..bytes.len() - 4].to_vec(), damaged, behind, Vec::new()] {
            let platform = Platform::new().await;
            let reply = platform.post(EVENTS, &[NDJSON, ("content-encoding", encoding)], broken.clone()).await;
            // zstd has no checksum by default: what it cannot notice, the decoder of events does.
            if encoding == "zstd" && reply.status == StatusCode::OK {
                assert!(reply.json()["accepted"] != 2 || broken.is_empty(), "{:?}", reply.body);
                continue;
            }
            check_problem(&reply, 400, "broken_compression");
            check_refused_whole(&platform, "broken_compression").await;
        }
    }
}

#[tokio::test]
async fn decompressed_bytes() {
    let body = format!("{}\n{}\n", event("1"), event("2"));
    for (encoding, bytes) in compressed(body.as_bytes()).await {
        for (decompressed_bytes_max, status) in [(body.len() as u64, 200), (body.len() as u64 - 1, 413)] {
            let platform = Platform::with_limits(IngestionLimits { decompressed_bytes_max, ..IngestionLimits::default() }).await;
            let reply = platform.post(EVENTS, &[NDJSON, ("content-encoding", encoding)], bytes.clone()).await;
            assert_eq!(reply.status.as_u16(), status, "{encoding}");
            if status == 413 {
                check_problem(&reply, 413, "body_too_large");
                check_refused_whole(&platform, "body_too_large").await;
            }
        }
    }
}

#[tokio::test]
async fn compressed_bytes() {
    for (encoding, bytes) in compressed(event("1").as_bytes()).await {
        for (limit, status) in [(bytes.len(), 200), (bytes.len() - 1, 413)] {
            let limits = IngestionLimits { body_bytes_max: limit as u64, ..IngestionLimits::default() };
            let platform = Platform::with_limits(limits).await;
            let reply = platform.post(EVENTS, &[JSON, ("content-encoding", encoding)], bytes.clone()).await;
            assert_eq!(reply.status.as_u16(), status, "{encoding}");
        }
    }
}

/// One GiB of zeros takes about a megabyte as gzip and less as zstd: made of parts, which decompress as one.
#[tokio::test]
async fn a_bomb_stops_at_the_limit() {
    for (encoding, part) in compressed(&vec![0; 16 << 20]).await {
        let bomb = part.repeat(64);
        assert!(bomb.len() < 8 << 20);
        let platform = Platform::new().await;
        let before = resident_kib();
        let reply = platform.post(EVENTS, &[NDJSON, ("content-encoding", encoding)], bomb).await;
        let grown = resident_peak_kib().saturating_sub(before);
        check_problem(&reply, 413, "body_too_large");
        check_refused_whole(&platform, "body_too_large").await;
        // Other tests of this process run beside it; without the limit it would be at least a GiB.
        assert!(grown < 900 << 10, "{encoding}: {grown} KiB more");
    }
}

fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn resident_kib() -> u64 {
    status_kib("VmRSS:")
}

fn resident_peak_kib() -> u64 {
    status_kib("VmHWM:")
}
