//! What an entry is good for.

use riomar_schemas::ReaderPosition;

use super::*;

fn entry(offset: u64, start: u64, floor: u64) -> Entry {
    let position = ReaderPosition { offset: Offset(offset), epoch: Epoch(start.max(floor)) };
    Entry { floor: Epoch(floor), start: Epoch(start), ..Entry::fresh(position) }
}

#[test]
fn an_entry_is_taken_when_it_reaches_back_to_the_cut() {
    let take = |offset| Decision::Take { through: Offset(offset), rebuilding: false };
    // (cut, its position, first epoch, entry) → decision; `None` stands for "read the hand-over again".
    let cases = [
        (5, 100, 0, entry(120, 5, 5), Some(take(120))),
        (5, 100, 0, entry(90, 3, 3), Some(take(100))),
        (5, 100, 0, entry(120, 6, 6), None),
        (5, 100, 0, entry(120, 3, 6), None),
        (5, 0, 7, entry(20, 7, 7), Some(take(20))),
        (0, 0, 0, entry(0, 0, 0), Some(take(0))),
    ];
    for (cut, position, first_epoch, entry, expected) in cases {
        let observed = Observed {
            cut: Epoch(cut),
            cut_position: Offset(position),
            first_epoch: Epoch(first_epoch),
            entry: Ok(Some(&entry)),
            losses: &[],
            read_again: false,
        };
        assert_eq!(decide(&observed), expected.unwrap_or(Decision::ReadAgain), "{observed:?}");
        let again = decide(&Observed { read_again: true, ..observed });
        assert!(again != Decision::ReadAgain, "a hand-over that was read again is believed");
    }
}

#[test]
fn every_code_is_known() {
    let source = include_str!("../snapshot.rs");
    let codes = source.split('"').skip(1).step_by(2).filter(|literal| literal.starts_with("realtime_"));
    let codes: BTreeMap<&str, usize> = codes.fold(BTreeMap::new(), |mut codes, code| {
        *codes.entry(code).or_default() += 1;
        codes
    });
    assert_eq!(codes.keys().copied().collect::<Vec<_>>(), {
        let mut known = DEGRADATION_CODES;
        known.sort_unstable();
        known
    });
    assert!(codes.values().all(|times| *times > 1), "listed and used: {codes:?}");
}

#[test]
fn an_answer_is_marked_until_a_rebuild_has_reached_the_end_that_the_log_had() {
    for (offset, end, halted, expected) in
        [(120, 500, None, true), (500, 500, None, false), (90, 100, None, false), (120, 500, Some("a limit"), false)]
    {
        let entry = Entry { rebuilding_to: Some(Offset(end)), halted: halted.map(str::to_owned), ..entry(offset, 5, 5) };
        let observed = Observed {
            cut: Epoch(5),
            cut_position: Offset(100),
            first_epoch: Epoch(0),
            entry: Ok(Some(&entry)),
            losses: &[],
            read_again: false,
        };
        let Decision::Take { rebuilding, .. } = decide(&observed) else { panic!("{observed:?}") };
        assert_eq!(rebuilding, expected, "{observed:?}");
    }
}

#[test]
fn without_an_entry_the_answer_ends_at_the_cut() {
    let observed = Observed {
        cut: Epoch(5),
        cut_position: Offset(100),
        first_epoch: Epoch(0),
        entry: Ok(None),
        losses: &[],
        read_again: false,
    };
    assert!(matches!(decide(&observed), Decision::BatchOnly { code: "realtime_rebuilding", .. }));
    let refused = Lack { code: "realtime_unavailable", detail: "connection refused".to_owned() };
    let down = Observed { entry: Err(&refused), ..observed };
    assert!(matches!(decide(&down), Decision::BatchOnly { code: "realtime_unavailable", .. }));
}

#[test]
fn an_entry_is_taken_when_it_counts_the_losses_that_the_answer_counts() {
    let (from, to, epoch_before, epoch) = (Offset(110), Offset(115), Epoch(5), Epoch(7));
    let losses = [Loss { from, to, epoch_before, epoch, accepted_at_ms: 0 }];
    // what is known to be lost, offset and count of the entry, whether it is taken
    let cases: [(&[Loss], u64, u64, bool); 7] = [
        (&losses, 110, 0, true),
        (&losses, 111, 0, false),
        (&losses, 120, 0, false),
        (&losses, 120, 5, true),
        (&[], 120, 0, true),
        // It was rebuilt since the losses were read.
        (&[], 120, 5, false),
        (&losses, 90, 0, true),
    ];
    for (losses, offset, lost, taken) in cases {
        let entry = Entry { lost, ..entry(offset, 5, 5) };
        let (cut, cut_position, first_epoch, read_again) = (Epoch(5), Offset(100), Epoch(0), false);
        let observed = Observed { cut, cut_position, first_epoch, entry: Ok(Some(&entry)), losses, read_again };
        let expected =
            if taken { Decision::Take { through: Offset(offset.max(100)), rebuilding: false } } else { Decision::ReadAgain };
        assert_eq!(decide(&observed), expected, "{observed:?}");
        let again = decide(&Observed { read_again: true, ..observed });
        assert_eq!(matches!(again, Decision::BatchOnly { code: "realtime_rebuilding", .. }), !taken, "{observed:?}");
    }
}
