//! What is known about one request when it has ended. It stores raw instants; durations are derived.

use std::time::Duration;

use super::error::Failure;
use super::usage::Usage;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole answer arrived.
    Ok,
    /// It failed, at any step.
    Failed(Failure),
    /// It was in flight when the load was ended.
    Unfinished,
}

/// A token of an answer and how likely the model found it.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The token's name, as the server writes it: its id or its text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// The likeliest other tokens that the server names, likeliest first, each with the logarithm of
    /// its probability.
    pub others: Vec<(String, f64)>,
}

/// What is stored of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// BLAKE3 of its text: enough to compare two answers.
    Hash(blake3::Hash),
    /// All of it, for requests that asked for that.
    Whole {
        text: String,
        /// The token ids, where the server sent them.
        token_ids: Vec<u32>,
        /// Its tokens with their log-probabilities, where the server sent them.
        scores: Vec<Score>,
    },
}

/// One request that was begun. Every instant is a distance from the start of the load.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// Its index in the schedule.
    pub index: u32,
    /// When it was to be sent.
    pub intended: Duration,
    /// When work on it began: connecting, or writing on a connection that was open.
    pub began: Duration,
    /// Connection set-up; absent where an open connection was reused, and where the transport
    /// does not report it.
    pub connect: Option<Duration>,
    /// Just before its first byte was written.
    pub sent: Option<Duration>,
    /// Arrival of each body frame that carried tokens, in nanoseconds since `sent`.
    pub arrivals_ns: Vec<u64>,
    /// When it ended, well or not.
    pub done: Duration,
    /// Body frames that carried at least one event.
    pub frames: u32,
    /// Frames that carried more than one token event: these tokens share one arrival.
    pub coalesced_frames: u32,
    /// Events that carried tokens. Not a count of tokens: one event can carry several.
    pub token_events: u32,
    /// Tokens as the server counted them.
    pub usage: Option<Usage>,
    /// Token ids received, where they were asked for.
    pub token_ids: Option<u32>,
    /// Output tokens that it asked for.
    pub asked_tokens: u32,
    /// Events that could not be read, and were passed over.
    pub odd_events: u32,
    /// The beginning of the first of them.
    pub odd_sample: Option<String>,
    /// Why the answer ended, as the server reports (`length`, `stop`).
    pub finish_reason: Option<String>,
    /// The HTTP status, if an answer came.
    pub http_status: Option<u16>,
    /// A reused connection turned out closed before a byte was written, and a new one was made.
    pub reconnected: bool,
    /// Whether the whole answer arrived, else why not.
    pub outcome: Outcome,
    /// Its answer, or the hash of it.
    pub answer: Answer,
}

impl RequestRecord {
    /// A request that was just begun.
    pub(crate) fn begun(index: u32, intended: Duration, began: Duration) -> Self {
        Self {
            index,
            intended,
            began,
            connect: None,
            sent: None,
            arrivals_ns: Vec::new(),
            done: began,
            frames: 0,
            coalesced_frames: 0,
            token_events: 0,
            usage: None,
            token_ids: None,
            asked_tokens: 0,
            odd_events: 0,
            odd_sample: None,
            finish_reason: None,
            http_status: None,
            reconnected: false,
            outcome: Outcome::Unfinished,
            answer: Answer::Hash(blake3::hash(b"")),
        }
    }

    /// Intended to real send, with connection set-up taken out. Absent if it was never sent.
    pub fn lateness(&self) -> Option<Duration> {
        let late = self.sent?.saturating_sub(self.intended);
        Some(late.saturating_sub(self.connect.unwrap_or_default()))
    }

    /// From the write of the request to its first token.
    pub fn ttft(&self) -> Option<Duration> {
        self.arrivals_ns.first().copied().map(Duration::from_nanos)
    }

    /// From the write of the request to its last token; only for answers that are whole.
    pub fn e2e(&self) -> Option<Duration> {
        match self.outcome {
            Outcome::Ok => self.arrivals_ns.last().copied().map(Duration::from_nanos),
            Outcome::Failed(_) | Outcome::Unfinished => None,
        }
    }

    /// (E2E - TTFT) / (output tokens - 1), by the server's count of tokens.
    pub fn tpot(&self) -> Option<Duration> {
        let later_tokens = self
            .output_tokens()?
            .checked_sub(1)
            .filter(|tokens| *tokens > 0)?;
        Some(self.e2e()?.saturating_sub(self.ttft()?) / later_tokens)
    }

    /// Times between successive frames that carried tokens.
    pub fn gaps(&self) -> impl Iterator<Item = Duration> + '_ {
        self.arrivals_ns
            .windows(2)
            .map(|pair| Duration::from_nanos(pair[1] - pair[0]))
    }

    /// Prompt tokens by the server's count.
    pub fn prompt_tokens(&self) -> Option<u32> {
        self.usage.and_then(|usage| usage.prompt_tokens)
    }

    /// Prompt tokens from a cache, by the server's count.
    pub fn cached_tokens(&self) -> Option<u32> {
        self.usage.and_then(|usage| usage.cached_tokens)
    }

    /// Output tokens by the server's count, else by the ids that it sent. Never by events.
    pub fn output_tokens(&self) -> Option<u32> {
        self.usage
            .and_then(|usage| usage.completion_tokens)
            .or(self.token_ids)
    }

    /// When its last byte was seen to matter: the last arrival, or the end.
    pub(crate) fn last_arrival(&self) -> Duration {
        match (self.sent, self.arrivals_ns.last()) {
            (Some(sent), Some(last)) => sent + Duration::from_nanos(*last),
            _ => self.done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn usage(prompt: u32, output: u32) -> Usage {
        Usage {
            prompt_tokens: Some(prompt),
            completion_tokens: Some(output),
            cached_tokens: None,
        }
    }

    #[test]
    fn lateness_connect_and_ttft_are_separate() {
        let mut record = RequestRecord::begun(0, ms(100), ms(103));
        record.connect = Some(ms(20));
        record.sent = Some(ms(124));
        record.arrivals_ns = vec![50_000_000, 60_000_000, 90_000_000];
        record.usage = Some(usage(10, 5));
        record.outcome = Outcome::Ok;
        assert_eq!(record.lateness(), Some(ms(4)));
        assert_eq!(record.ttft(), Some(ms(50)));
        assert_eq!(record.e2e(), Some(ms(90)));
        assert_eq!(
            record.tpot(),
            Some(ms(10)),
            "four later tokens in 40 ms, though two gaps"
        );
        assert_eq!(record.gaps().collect::<Vec<_>>(), [ms(10), ms(30)]);
    }

    #[test]
    fn a_cut_answer_has_no_e2e_and_unknown_tokens_no_tpot() {
        let mut record = RequestRecord::begun(0, ms(0), ms(0));
        record.sent = Some(ms(0));
        record.arrivals_ns = vec![1, 2];
        assert_eq!((record.e2e(), record.tpot()), (None, None));
        record.outcome = Outcome::Ok;
        assert_eq!(
            record.output_tokens(),
            None,
            "events are not counted as tokens"
        );
        assert_eq!(record.tpot(), None);
        record.token_ids = Some(3);
        assert_eq!(record.output_tokens(), Some(3));
    }
}
