//! What was seen, as the table of `docs/reliability.md`.

use std::{fmt, time::Duration};

use super::recovery::Recovery;

/// What was seen of one fault.
#[derive(Debug, Default)]
pub struct Row {
    /// The fault, in words.
    pub fault: String,
    /// Events that were acknowledged meanwhile.
    pub acknowledged: u64,
    /// Those of them that are not in the log.
    pub lost: u64,
    /// Answers that were compared with the oracle meanwhile.
    pub compared: u64,
    /// Those of them that were wrong.
    pub wrong: u64,
    /// The recoveries, one a round.
    pub recoveries: Vec<Recovery>,
}

/// The rows, as Markdown.
pub struct Table<'a>(pub &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| fault | rounds | acknowledged | lost | answers compared | wrong | whole again, s | realtime again, s | next generation, s |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|---:|---:|")?;
        for row in self.0 {
            let rounds = row.recoveries.len();
            let Row { fault, acknowledged, lost, compared, wrong, .. } = row;
            let whole = seconds(row.recoveries.iter().map(|recovery| recovery.whole));
            let realtime = seconds(row.recoveries.iter().map(|recovery| recovery.realtime));
            let generation = seconds(row.recoveries.iter().map(|recovery| recovery.generation));
            writeln!(
                f,
                "| {fault} | {rounds} | {acknowledged} | {lost} | {compared} | {wrong} | {whole} | {realtime} | {generation} |"
            )?;
        }
        Ok(())
    }
}

/// The median and the longest; only that where there is but one.
fn seconds(times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<_> = times.map(|time| time.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    match times.as_slice() {
        [] => "–".to_owned(),
        [one] => format!("{one:.1}"),
        [.., worst] => format!("{:.1} (worst {worst:.1})", times[(times.len() - 1) / 2]),
    }
}

#[test]
fn a_row_has_medians_and_worst_times() {
    let recovery = |whole_ms, generation| Recovery {
        whole: Duration::from_millis(whole_ms),
        realtime: Duration::from_secs(5),
        generation: Duration::from_secs(generation),
    };
    let rows = [
        Row {
            fault: "a".to_owned(),
            recoveries: vec![recovery(3_000, 1), recovery(1_250, 9), recovery(2_000, 4)],
            ..Row::default()
        },
        Row { fault: "b".to_owned(), acknowledged: 7, lost: 1, compared: 9, wrong: 2, recoveries: vec![recovery(500, 8)] },
        Row { fault: "c".to_owned(), ..Row::default() },
    ];
    let table = Table(&rows).to_string();
    let lines: Vec<_> = table.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "| a | 3 | 0 | 0 | 0 | 0 | 2.0 (worst 3.0) | 5.0 (worst 5.0) | 4.0 (worst 9.0) |",
            "| b | 1 | 7 | 1 | 9 | 2 | 0.5 | 5.0 | 8.0 |",
            "| c | 0 | 0 | 0 | 0 | 0 | – | – | – |",
        ]
    );
}
