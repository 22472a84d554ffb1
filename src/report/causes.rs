//! Failures and passes that are not proven, by what caused them: each cause once.

use std::collections::BTreeMap;

use crate::aggregate::SummaryTable;
use crate::record::schema::VerdictStatus;

/// What several cells or passes have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    /// `cell` or `pass`.
    pub unit: &'static str,
    /// What happened, of the first of them.
    pub what: String,
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub example: String,
}

impl Cause {
    /// `6 cells failed in launch: no such image (first: rag-cpu-p512)`.
    pub(crate) fn line(&self) -> String {
        let Self {
            unit,
            what,
            count,
            example,
        } = self;
        let unit = match (*unit, *count) {
            (unit, 1) => unit,
            ("pass", _) => "passes",
            (_, _) => "cells",
        };
        let of = if *count == 1 { "" } else { "first: " };
        format!("{count} {unit} {what} ({of}{example})")
    }
}

/// The causes of a run: those of cells first, then the most frequent first.
pub(crate) fn causes(table: &SummaryTable) -> Vec<Cause> {
    let mut all: BTreeMap<(u8, String), Cause> = BTreeMap::new();
    let mut add = |order: u8, unit, what: &str, example: &str| {
        let cause = all.entry((order, alike(what, example)));
        let new = || Cause {
            unit,
            what: what.to_owned(),
            count: 0,
            example: example.to_owned(),
        };
        cause.or_insert_with(new).count += 1;
    };
    for cell in &table.failed {
        add(0, "cell", &cell.what, &cell.cell);
    }
    for row in &table.rows {
        if row.verdict != VerdictStatus::Valid {
            let reason = row.reason.as_deref().unwrap_or("no reason recorded");
            let what = format!("{}: {reason}", row.verdict.name());
            let order = if row.verdict == VerdictStatus::Invalid {
                1
            } else {
                2
            };
            add(order, "pass", &what, &row.cell);
        }
    }
    let mut causes: Vec<((u8, String), Cause)> = all.into_iter().collect();
    causes.sort_by_key(|((order, _), cause)| (*order, std::cmp::Reverse(cause.count)));
    causes.into_iter().map(|(_, cause)| cause).collect()
}

/// A text without what differs from cell to cell: its id, numbers, ports.
pub(crate) fn alike(what: &str, cell: &str) -> String {
    let mut key = String::new();
    let mut in_number = false;
    for letter in what.replace(cell, "").chars() {
        let is_number = letter.is_ascii_digit() || (in_number && ".,".contains(letter));
        if !is_number {
            key.push(letter);
        } else if !in_number {
            key.push('#');
        }
        in_number = is_number;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::fixture::{Bench, rows_of};
    use crate::aggregate::summarize;
    use crate::plan::state::CacheState;
    use crate::record::schema::Phase;

    #[test]
    fn each_cause_is_there_once_with_its_count_and_the_first_cell() {
        let mut bench = Bench::new();
        for (repeat, port) in [(1, 8001), (2, 8002), (3, 8003)] {
            let error = format!("vLLM exited with code 2; see cpu-p1024-c1-r{repeat}, port {port}");
            bench
                .cell("cpu", 1024, 1, repeat)
                .failed(Phase::Ready, &error);
        }
        bench
            .cell("disk", 1024, 1, 1)
            .failed(Phase::Launch, "no such image");
        for (length, tokens) in [(1024, 0), (4096, 256)] {
            let reason = format!("the connector served {tokens} of {length} expected tokens");
            bench
                .cell("redis", length, 1, 1)
                .pass(CacheState::Cold, &rows_of(&[1.0], 0))
                .pass(CacheState::Tier, &rows_of(&[1.0], 0))
                .verdict(VerdictStatus::Invalid, &reason);
        }
        let lines: Vec<_> = causes(&summarize(&bench.run()).unwrap())
            .iter()
            .map(Cause::line)
            .collect();
        assert_eq!(
            lines,
            [
                "3 cells failed in ready: vLLM exited with code 2; see cpu-p1024-c1-r1, port 8001 \
                 (first: cpu-p1024-c1-r1)",
                "1 cell failed in launch: no such image (disk-p1024-c1-r1)",
                "2 passes invalid: the connector served 0 of 1024 expected tokens \
                 (first: redis-p1024-c1-r1)",
            ]
        );
    }
}
