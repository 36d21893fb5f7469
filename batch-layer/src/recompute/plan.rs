//! Which way to compute the next generation.

use riomar_schemas::Epoch;

/// What is known before a recompute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The cut that the new generation is to end at.
    pub cut: Epoch,
    /// The cut that the current generation ends at, if there is one.
    pub current_cut: Option<Epoch>,
    /// Whether every state is to be computed afresh.
    pub full: bool,
    /// Rows in the epochs between the two cuts.
    pub new_rows: u64,
}

/// How the next generation comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The current generation covers the cut: there is nothing to publish.
    UpToDate,
    /// Nothing happened in between: a generation of the same files, so that the epochs may be let go of.
    Share,
    /// Fold the epochs since this cut and combine them with the current generation.
    Incremental {
        /// The current generation's cut.
        since: Epoch,
    },
    /// Fold all epochs.
    Full,
}

/// Decides how to compute the next generation.
#[must_use]
pub fn decide(observed: &Observed) -> Decision {
    match observed.current_cut {
        None => Decision::Full,
        Some(current) if current > observed.cut => Decision::UpToDate,
        Some(_) if observed.full => Decision::Full,
        Some(current) if current == observed.cut => Decision::UpToDate,
        Some(_) if observed.new_rows == 0 => Decision::Share,
        Some(since) => Decision::Incremental { since },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions() {
        let observed = |current_cut: Option<u64>, full, new_rows| Observed {
            cut: Epoch(5),
            current_cut: current_cut.map(Epoch),
            full,
            new_rows,
        };
        let cases = [
            (observed(None, false, 0), Decision::Full),
            (observed(None, false, 9), Decision::Full),
            (observed(Some(4), false, 9), Decision::Incremental { since: Epoch(4) }),
            (observed(Some(4), false, 0), Decision::Share),
            (observed(Some(4), true, 0), Decision::Full),
            (observed(Some(5), false, 0), Decision::UpToDate),
            (observed(Some(5), true, 0), Decision::Full),
            (observed(Some(6), true, 9), Decision::UpToDate),
        ];
        for (observed, expected) in cases {
            assert_eq!(decide(&observed), expected, "{observed:?}");
        }
    }
}
