//! What a check found, for a terminal and as Markdown.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Finding, Spot, StackCheck};
use crate::plan::state::CacheState;
use crate::record::schema::Source;
use crate::report::table::{Column, Keep, Table};
use crate::report::wrap::push_wrapped;
use crate::units::grouped;

/// The most reasons of one place that a screen shows.
const MAX_REASONS: usize = 3;

/// A row of the table: all lengths of one tier, state and concurrency.
type Row = (String, CacheState, u32);

impl StackCheck {
    /// For a terminal of `width` columns: the table, then why of what is not right.
    pub(crate) fn terminal(&self, width: u16) -> String {
        let mut text = format!("{}\n\n", self.stack());
        text.push_str(&self.table().terminal(width));
        text.push('\n');
        for group in self.groups() {
            push_wrapped(&mut text, &group.title(), width);
            for reason in group.reasons.iter().take(MAX_REASONS) {
                push_wrapped(&mut text, &format!("- {reason}"), width);
            }
        }
        for why in &self.unreadable {
            push_wrapped(&mut text, why, width);
        }
        push_wrapped(&mut text, &self.sentence(), width);
        text
    }

    /// As a Markdown page.
    pub(crate) fn markdown(&self) -> String {
        let escaped = crate::report::escape::markdown;
        let mut text = format!("# Check: {}\n\n", escaped(&self.stack()));
        text.push_str(&format!("{}\n\n", escaped(&self.sentence())));
        text.push_str(&self.table().markdown());
        for group in self.groups() {
            text.push_str(&format!("\n**{}**\n\n", escaped(&group.title())));
            for reason in group.reasons {
                text.push_str(&format!("- {}\n", escaped(reason)));
            }
        }
        text
    }

    /// The stack in one line.
    pub(super) fn stack(&self) -> String {
        let mut parts = vec![self.model.clone()];
        let version = self.engine.as_deref().unwrap_or("of unknown version");
        parts.push(format!("vLLM {version}"));
        if let Some(mode) = self.lmcache_mode {
            let version = self.lmcache.as_deref().unwrap_or("of unknown version");
            parts.push(format!("LMCache {version}, {}", mode.name()));
        }
        if self.source == Source::Simulated {
            parts.push("SIMULATED".to_owned());
        }
        parts.join("; ")
    }

    /// The result in one sentence.
    pub(super) fn sentence(&self) -> String {
        if self.findings.is_empty() {
            return "Nothing was checked: no cell of a tier was measured.".to_owned();
        }
        if self.is_right() {
            return format!(
                "Right at all {} places: each tier gave back what it took, and the answers are those that \
                 were computed.",
                self.findings.len()
            );
        }
        let counts = Answer::ALL.iter().rev().filter_map(|&answer| {
            let count = self.count(answer);
            (count > 0).then(|| format!("{} {count}", answer.name()))
        });
        let counts: Vec<String> = counts.collect();
        format!("Of {} places: {}.", self.findings.len(), counts.join(", "))
    }

    /// A row a tier, state and concurrency; a column a prompt length.
    pub(super) fn table(&self) -> Table {
        let spots: BTreeMap<&Spot, Answer> = self
            .findings
            .iter()
            .map(|finding| (&finding.spot, finding.answer))
            .collect();
        let rows: BTreeSet<Row> = spots.keys().map(|spot| row_of(spot)).collect();
        let lengths: BTreeSet<u32> = spots.keys().map(|spot| spot.prompt_len).collect();
        let words = |head: &str, of: fn(&Row) -> String| {
            Column::words(head, Keep::Always, rows.iter().map(of).collect())
        };
        let mut columns = vec![
            words("tier", |row| row.0.clone()),
            words("state", |row| row.1.title().to_owned()),
            Column::numbers(
                &["at a time"],
                Keep::Always,
                rows.iter().map(|row| row.2.to_string()).collect(),
            ),
        ];
        for length in lengths {
            let cells = rows.iter().map(|(tier, state, concurrency)| {
                let spot = Spot {
                    tier: tier.clone(),
                    state: *state,
                    concurrency: *concurrency,
                    prompt_len: length,
                };
                let answer = spots.get(&spot).copied();
                answer.map_or("-", Answer::name).to_owned()
            });
            let head = format!("{} tok", grouped(length));
            columns.push(Column::words(&head, Keep::Always, cells.collect()));
        }
        Table { columns }
    }

    /// What is not right, equal reasons together, the worst first.
    pub(super) fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        let mut worst: Vec<&Finding> = self
            .findings
            .iter()
            .filter(|finding| finding.answer != Answer::Right)
            .collect();
        worst.sort_by_key(|finding| std::cmp::Reverse(finding.answer));
        for finding in worst {
            let is_alike = |group: &&mut Group<'_>| {
                group.answer == finding.answer
                    && group.row == row_of(&finding.spot)
                    && group.reasons == finding.reasons.as_slice()
            };
            match groups.iter_mut().find(is_alike) {
                Some(group) => group.lengths.push(finding.spot.prompt_len),
                None => groups.push(Group {
                    answer: finding.answer,
                    row: row_of(&finding.spot),
                    lengths: vec![finding.spot.prompt_len],
                    reasons: &finding.reasons,
                    cell: &finding.cell,
                }),
            }
        }
        groups
    }
}

/// Places with one answer for the same reasons.
pub(super) struct Group<'a> {
    pub(super) answer: Answer,
    row: Row,
    lengths: Vec<u32>,
    pub(super) reasons: &'a [String],
    /// The cell of the first of them.
    pub(super) cell: &'a str,
}

impl Group<'_> {
    /// Where, and what was found there.
    pub(super) fn title(&self) -> String {
        let (tier, state, concurrency) = &self.row;
        let lengths: Vec<String> = self.lengths.iter().map(grouped).collect();
        format!(
            "{}: {tier}, {}, {concurrency} at a time, {} tokens",
            self.answer.name(),
            state.title(),
            lengths.join(" and ")
        )
    }
}

fn row_of(spot: &Spot) -> Row {
    (spot.tier.clone(), spot.state, spot.concurrency)
}
