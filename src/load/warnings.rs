//! Warnings for the reader of a load's numbers.

use std::time::Duration;

use super::drive::LoadOutcome;
use super::record::{Outcome, RequestRecord};

/// No server decodes a token in less: closer tokens were delayed on their way.
const FASTEST_TOKEN: Duration = Duration::from_micros(100);

/// An answer whose tokens came together within this part of it was not streamed.
const BURST_SHARE: u32 = 10;

/// Shorter answers are over too soon for a burst to mean anything.
const MIN_E2E: Duration = Duration::from_millis(10);

impl LoadOutcome {
    /// What may have distorted its numbers, or changes their meaning.
    pub fn warnings(&self) -> Vec<String> {
        let ok: Vec<&RequestRecord> = self
            .records
            .iter()
            .filter(|record| record.outcome == Outcome::Ok)
            .collect();
        let client = self.audit.client_bound.as_ref().filter(|_| !ok.is_empty());
        let client = client.map(|why| format!("the client may have shaped these numbers: {why}"));
        [
            client,
            not_streamed(&ok),
            other_lengths(&ok),
            odd_events(&self.records),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Answers whose tokens all came at once, long after they were asked for.
fn not_streamed(ok: &[&RequestRecord]) -> Option<String> {
    let several = ok.iter().filter(|record| tokens(record) > 1).count();
    let at_once = ok.iter().filter(|record| came_at_once(record)).count();
    // A few may be short answers of a server that decodes several tokens in a step.
    (at_once > 0 && at_once * 10 >= several).then(|| {
        format!(
            "all tokens of {at_once} of {several} answers came at once at their end, as through a \
             proxy that buffers whole answers: TTFT is their whole duration, and TPOT and ITL are \
             not the server's; let the proxy stream (no response buffering)"
        )
    })
}

fn tokens(record: &RequestRecord) -> u32 {
    record.token_events.max(record.output_tokens().unwrap_or(0))
}

fn came_at_once(record: &RequestRecord) -> bool {
    let (Some(ttft), Some(e2e)) = (record.ttft(), record.e2e()) else {
        return false;
    };
    let span = e2e.saturating_sub(ttft);
    let later_tokens = tokens(record).saturating_sub(1);
    later_tokens > 0
        && e2e >= MIN_E2E
        && span * BURST_SHARE <= e2e
        && span <= FASTEST_TOKEN * later_tokens
}

/// Answers of another length than was asked for.
fn other_lengths(ok: &[&RequestRecord]) -> Option<String> {
    let others: Vec<(u32, u32)> = ok
        .iter()
        .filter_map(|record| Some((record.output_tokens()?, record.asked_tokens)))
        .filter(|(got, asked)| got != asked && *asked > 0)
        .collect();
    let got = others.iter().map(|(got, _)| *got);
    let asked = others.iter().map(|(_, asked)| *asked);
    let (got, asked) = (range(got)?, range(asked)?);
    Some(format!(
        "{} of {} answers have another length than was asked for: {got} output tokens instead of \
         {asked}, by the server's count",
        others.len(),
        ok.len()
    ))
}

/// `4`, or `4 to 9`.
fn range(values: impl Iterator<Item = u32> + Clone) -> Option<String> {
    let (least, most) = (values.clone().min()?, values.max()?);
    Some(if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    })
}

/// Events that could not be read.
fn odd_events(records: &[RequestRecord]) -> Option<String> {
    let odd = records.iter().filter(|record| record.odd_events > 0);
    let events: u64 = odd.clone().map(|record| u64::from(record.odd_events)).sum();
    let first = odd
        .clone()
        .find_map(|record| record.odd_sample.as_deref())?;
    Some(format!(
        "{events} events of {} answers could not be read and were passed over; the first: {first}",
        odd.count()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    /// An answer of four tokens that came `arrivals_us` after it was asked for.
    fn answer(arrivals_us: &[u64]) -> RequestRecord {
        let mut record = RequestRecord::begun(0, ms(0), ms(0));
        record.sent = Some(ms(0));
        record.arrivals_ns = arrivals_us.iter().map(|at| at * 1000).collect();
        record.token_events = 4;
        record.token_ids = Some(4);
        record.asked_tokens = 4;
        record.outcome = Outcome::Ok;
        record
    }

    #[test]
    fn a_burst_at_the_end_of_a_long_answer_is_not_streamed() {
        for (arrivals_us, at_once) in [
            (&[300_000][..], true),
            (&[300_000, 300_020, 300_050], true),
            (&[300_000, 302_000, 304_000, 306_000], false),
            (&[5_000, 300_000], false),
            (&[2_000], false),
        ] {
            assert_eq!(
                came_at_once(&answer(arrivals_us)),
                at_once,
                "{arrivals_us:?}"
            );
        }
        let mut one_token = answer(&[300_000]);
        (one_token.token_events, one_token.token_ids) = (1, Some(1));
        assert!(!came_at_once(&one_token));
        let (burst, stream) = (answer(&[300_000]), answer(&[300_000, 320_000]));
        assert_eq!(not_streamed(&[&stream, &stream]), None);
        let warning = not_streamed(&[&burst, &stream]).unwrap();
        assert!(
            warning.starts_with("all tokens of 1 of 2 answers came at once"),
            "{warning}"
        );
    }

    #[test]
    fn other_lengths_are_counted() {
        let mut long = answer(&[1]);
        long.token_ids = Some(1000);
        let right = answer(&[1]);
        assert_eq!(other_lengths(&[&right]), None);
        assert_eq!(
            other_lengths(&[&right, &long]).unwrap(),
            "1 of 2 answers have another length than was asked for: 1000 output tokens instead of \
             4, by the server's count"
        );
        let mut unknown = answer(&[1]);
        unknown.token_ids = None;
        assert_eq!(other_lengths(&[&unknown]), None);
    }

    #[test]
    fn odd_events_are_counted_and_the_first_is_shown() {
        let mut odd = answer(&[1]);
        (odd.odd_events, odd.odd_sample) = (2, Some("{".to_owned()));
        let warning = odd_events(&[answer(&[1]), odd.clone(), odd]).unwrap();
        assert!(warning.starts_with("4 events of 2 answers"), "{warning}");
        assert!(warning.ends_with("the first: {"), "{warning}");
    }
}
