//! Turns the body frames of one answer into its record.

use std::time::Duration;

use super::error::{ErrorKind, Failure};
use super::event::{Event, token_ids_of};
use super::record::{Answer, Outcome, RequestRecord};
use super::sse::Splitter;
use crate::workload::Keep;

/// Longest event that is accepted: room for the ids of a very long prompt.
const EVENT_BYTES: usize = 16 << 20;

/// Arrivals that a record reserves room for before the first; more are taken as they come.
const RESERVED_ARRIVALS: u32 = 1 << 16;

/// Bytes of text that are hashed at once.
const HASH_PIECE: usize = 512;

/// The answer of one request while it arrives.
#[derive(Debug)]
pub(crate) struct Reading {
    splitter: Splitter,
    text: TextSink,
    /// `[DONE]` was seen.
    done: bool,
    failure: Option<Failure>,
    events: u32,
}

#[derive(Debug)]
enum TextSink {
    /// Text goes to the hash in pieces of [`HASH_PIECE`]: a hash of every word costs more.
    Hash {
        hasher: Box<blake3::Hasher>,
        pending: Vec<u8>,
    },
    Keep {
        text: String,
        token_ids: Vec<u32>,
    },
}

impl Reading {
    pub(crate) fn new(keep: Keep, gen_len: u32, record: &mut RequestRecord) -> Self {
        record
            .arrivals_ns
            .reserve_exact(gen_len.min(RESERVED_ARRIVALS) as usize);
        Self {
            splitter: Splitter::new(EVENT_BYTES),
            text: match keep {
                Keep::Hash => TextSink::Hash {
                    hasher: Box::new(blake3::Hasher::new()),
                    pending: Vec::with_capacity(HASH_PIECE),
                },
                Keep::Text => TextSink::Keep {
                    text: String::new(),
                    token_ids: Vec::new(),
                },
            },
            done: false,
            failure: None,
            events: 0,
        }
    }

    /// Whether the end mark came.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the answer can no longer end well.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Takes bytes of the body. The caller took the time before.
    pub(crate) fn take(&mut self, bytes: &[u8], record: &mut RequestRecord) {
        let Self {
            splitter,
            text,
            done,
            failure,
            events,
        } = self;
        let fed = splitter.feed(bytes, |data| {
            if !*done && failure.is_none() {
                *events += 1;
                match take_event(data, text, record) {
                    Ok(EventKind::End) => *done = true,
                    Ok(EventKind::Chunk) => {}
                    Err(error) => *failure = Some(error),
                }
            }
        });
        if let Err(too_large) = fed {
            let message = format!("an event is longer than {} bytes", too_large.limit_bytes);
            self.failure
                .get_or_insert(Failure::new(ErrorKind::EventTooLarge, message));
        }
    }

    /// Closes a frame that arrived `since_sent` after the request was written: all that was taken
    /// since the last close.
    pub(crate) fn close_frame(
        &mut self,
        mark: Mark,
        since_sent: Duration,
        record: &mut RequestRecord,
    ) {
        if self.events > mark.events {
            record.frames += 1;
        }
        let tokens = record.token_events - mark.token_events;
        if tokens > 0 {
            let nanos = u64::try_from(since_sent.as_nanos()).unwrap_or(u64::MAX);
            record.arrivals_ns.push(nanos);
        }
        if tokens > 1 {
            record.coalesced_frames += 1;
        }
    }

    /// Where the answer stands before a frame.
    pub(crate) fn mark(&self, record: &RequestRecord) -> Mark {
        Mark {
            events: self.events,
            token_events: record.token_events,
        }
    }

    /// The outcome of an answer of which no more will come, because `cut` (absent: its end).
    pub(crate) fn finish(self, cut: Option<Failure>, record: &mut RequestRecord) -> Outcome {
        record.answer = match self.text {
            TextSink::Hash {
                mut hasher,
                pending,
            } => {
                hasher.update(&pending);
                Answer::Hash(hasher.finalize())
            }
            TextSink::Keep { text, token_ids } => Answer::Kept { text, token_ids },
        };
        if let Some(failure) = self.failure {
            return Outcome::Failed(failure);
        }
        if !self.done {
            let cut = cut.unwrap_or_else(|| {
                Failure::new(ErrorKind::CutStream, "the body ended before `[DONE]`")
            });
            return Outcome::Failed(cut);
        }
        if record.token_events == 0 {
            let message = "the stream ended without a token";
            return Outcome::Failed(Failure::new(ErrorKind::EmptyAnswer, message));
        }
        Outcome::Ok
    }
}

/// Counts before a frame, to tell what it brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    events: u32,
    token_events: u32,
}

enum EventKind {
    Chunk,
    End,
}

fn take_event(
    data: &[u8],
    text: &mut TextSink,
    record: &mut RequestRecord,
) -> Result<EventKind, Failure> {
    if data == b"[DONE]" {
        return Ok(EventKind::End);
    }
    let event: Event<'_> = serde_json::from_slice(data).map_err(|error| {
        let shown = String::from_utf8_lossy(&data[..data.len().min(200)]).into_owned();
        Failure::new(
            ErrorKind::BadEvent,
            format!("{error} in the event: {shown}"),
        )
    })?;
    if event.error.is_some() {
        return Err(Failure::with_body(ErrorKind::StreamError, data));
    }
    if event.usage.is_some() {
        record.usage = event.usage;
    }
    let Some(choice) = event.choices.first else {
        return Ok(EventKind::Chunk);
    };
    if choice.is_token() {
        record.token_events += 1;
    }
    if let Some(ids) = choice.token_ids() {
        record.token_ids = Some(record.token_ids.unwrap_or(0) + ids);
    }
    if let Some(reason) = choice.finish_reason() {
        record.finish_reason = Some(reason.to_owned());
    }
    for piece in choice.texts() {
        match text {
            TextSink::Hash { hasher, pending } => {
                if pending.len() + piece.len() > HASH_PIECE {
                    hasher.update(pending);
                    pending.clear();
                }
                if piece.len() > HASH_PIECE {
                    hasher.update(piece.as_bytes());
                } else {
                    pending.extend_from_slice(piece.as_bytes());
                }
            }
            TextSink::Keep { text, .. } => text.push_str(piece),
        }
    }
    if let TextSink::Keep { token_ids, .. } = text
        && choice.token_ids().is_some()
    {
        token_ids.extend(token_ids_of(data));
    }
    Ok(EventKind::Chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> RequestRecord {
        let mut record = RequestRecord::begun(0, Duration::ZERO, Duration::ZERO);
        record.sent = Some(Duration::ZERO);
        record
    }

    /// Reads frames that arrive one millisecond apart.
    fn read(keep: Keep, frames: &[&str]) -> (Outcome, RequestRecord) {
        let mut record = record();
        let mut reading = Reading::new(keep, 4, &mut record);
        for (number, frame) in frames.iter().enumerate() {
            let mark = reading.mark(&record);
            reading.take(frame.as_bytes(), &mut record);
            reading.close_frame(mark, Duration::from_millis(number as u64), &mut record);
        }
        let outcome = reading.finish(None, &mut record);
        (outcome, record)
    }

    const TOKEN: &str = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
    const USAGE: &str =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    fn kind(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Ok => "ok".to_owned(),
            Outcome::Unfinished => "unfinished".to_owned(),
            Outcome::Failed(failure) => failure.kind.name().into_owned(),
        }
    }

    #[test]
    fn tokens_of_one_frame_share_one_arrival() {
        let two = format!("{TOKEN}{TOKEN}");
        let last = format!("{TOKEN}{USAGE}{DONE}");
        let (outcome, record) = read(Keep::Hash, &[TOKEN, &two, ": keep-alive\n\n", &last]);
        assert_eq!(outcome, Outcome::Ok);
        assert_eq!(record.arrivals_ns, [0, 1_000_000, 3_000_000]);
        assert_eq!(
            (record.frames, record.coalesced_frames, record.token_events),
            (3, 1, 4)
        );
        assert_eq!(record.output_tokens(), Some(9), "by usage, not by events");
    }

    #[test]
    fn a_frame_that_cuts_an_event_counts_where_the_event_ends() {
        let (first, second) = TOKEN.split_at(20);
        let (_, record) = read(Keep::Hash, &[first, second, DONE]);
        assert_eq!(record.arrivals_ns, [1_000_000]);
        assert_eq!(record.frames, 2);
    }

    #[test]
    fn each_bad_end_has_its_name() {
        let error = "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n";
        assert_eq!(
            kind(&read(Keep::Hash, &[TOKEN, error, DONE]).0),
            "stream-error"
        );
        assert_eq!(kind(&read(Keep::Hash, &[TOKEN]).0), "cut-stream");
        assert_eq!(kind(&read(Keep::Hash, &[USAGE, DONE]).0), "empty-answer");
        assert_eq!(
            kind(&read(Keep::Hash, &["data: nonsense\n\n", DONE]).0),
            "bad-event"
        );
        assert_eq!(
            kind(&read(Keep::Hash, &[TOKEN, DONE, "data: x\n\n"]).0),
            "ok",
            "after the end"
        );
    }

    #[test]
    fn the_hash_is_of_the_whole_text() {
        let piece = "x".repeat(300);
        let small = format!("data: {{\"choices\":[{{\"text\":\"{piece}\"}}]}}\n\n");
        let large = format!("data: {{\"choices\":[{{\"text\":\"{piece}{piece}\"}}]}}\n\n");
        let (_, record) = read(Keep::Hash, &[&small, &small, &large, &small, DONE]);
        let whole = blake3::hash(piece.repeat(5).as_bytes());
        assert_eq!(record.answer, Answer::Hash(whole));
    }

    #[test]
    fn equal_texts_have_equal_hashes_however_they_were_cut() {
        let whole = "data: {\"choices\":[{\"text\":\"aa\"}]}\n\n";
        let (_, one) = read(Keep::Hash, &[whole, DONE]);
        let (_, two) = read(Keep::Hash, &[TOKEN, TOKEN, DONE]);
        assert_eq!(one.answer, two.answer);
        let with_ids = "data: {\"choices\":[{\"text\":\"b\",\"token_ids\":[1,2]}]}\n\n";
        let (_, kept) = read(Keep::Text, &[TOKEN, with_ids, DONE]);
        assert_eq!(
            kept.answer,
            Answer::Kept {
                text: "ab".to_owned(),
                token_ids: vec![1, 2]
            }
        );
        assert_eq!(
            kept.output_tokens(),
            Some(2),
            "by ids where there is no usage"
        );
    }
}
