//! When landing commits what it has buffered.

use crate::context::is_over;

/// How much landing reads at once and how long it buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LandingLimits {
    /// Records that one step reads of one partition.
    pub step_records: usize,
    /// Bytes of event text that one step reads of one partition.
    pub step_bytes: usize,
    /// Commits once this many rows are buffered.
    pub buffered_rows: u64,
    /// Commits once the buffered rows, and records that did not decode, take this many bytes of memory.
    pub buffered_bytes: usize,
    /// Commits once the oldest buffered record is this old.
    pub buffered_age_ms: i64,
    /// How long to wait when there was nothing to read.
    pub idle_wait_ms: u64,
}

impl Default for LandingLimits {
    fn default() -> Self {
        Self {
            step_records: 16_384,
            step_bytes: 8 << 20,
            buffered_rows: 1_000_000,
            buffered_bytes: 128 << 20,
            buffered_age_ms: 5_000,
            idle_wait_ms: 50,
        }
    }
}

/// What is known of the buffered records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Buffered {
    /// Records read, kept or not, cuts included.
    pub records: u64,
    /// Rows to write.
    pub rows: u64,
    /// Memory they take.
    pub bytes: usize,
    /// When the first of them was read, in milliseconds since 1970-01-01 UTC.
    pub since_ms: i64,
    /// Whether a cut is among them: somebody waits for it to be passed.
    pub passed_cut: bool,
}

/// Whether to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on reading.
    Keep,
    /// Commit now.
    Commit,
}

/// Commits when a cut was passed or when enough is buffered for long enough.
#[must_use]
pub fn decide(buffered: &Buffered, limits: &LandingLimits, now_ms: i64) -> Decision {
    let due = buffered.passed_cut
        || buffered.rows >= limits.buffered_rows
        || buffered.bytes >= limits.buffered_bytes
        || is_over(buffered.since_ms, limits.buffered_age_ms, now_ms);
    if buffered.records > 0 && due { Decision::Commit } else { Decision::Keep }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_when_due() {
        let limits = LandingLimits { buffered_rows: 10, buffered_bytes: 100, buffered_age_ms: 1_000, ..Default::default() };
        let few = Buffered { records: 1, rows: 1, bytes: 1, since_ms: 5_000, passed_cut: false };
        let cases = [
            (Buffered::default(), 1 << 40, Decision::Keep),
            (few, 5_999, Decision::Keep),
            (few, 6_000, Decision::Commit),
            // The clock was set back.
            (few, 4_999, Decision::Commit),
            (Buffered { passed_cut: true, ..few }, 5_000, Decision::Commit),
            (Buffered { rows: 10, ..few }, 5_000, Decision::Commit),
            (Buffered { bytes: 100, ..few }, 5_000, Decision::Commit),
            (Buffered { rows: 0, bytes: 0, ..few }, 6_000, Decision::Commit),
        ];
        for (buffered, now_ms, expected) in cases {
            assert_eq!(decide(&buffered, &limits, now_ms), expected, "{buffered:?} at {now_ms}");
        }
    }
}
