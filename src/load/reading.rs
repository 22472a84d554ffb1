//! Turns the body frames of one answer into its record.

use std::time::Duration;

use super::error::{ErrorKind, Failure, MESSAGE_BYTES, visible};
use super::event::{Brings, Choice, Event};
use super::record::{Answer, Outcome, RequestRecord, Score};
use super::sse::{Payload, Splitter};
use super::take::repaired;
use crate::workload::Keep;

/// Longest event that is accepted: room for the ids of a very long prompt.
const EVENT_BYTES: usize = 16 << 20;

/// Longest text of an answer that is stored whole.
const TEXT_BYTES: usize = 16 << 20;

/// Arrivals that a record reserves room for before the first; more are taken as they come.
const RESERVED_ARRIVALS: u32 = 1 << 16;

/// Bytes of text that are hashed at once.
const HASH_PIECE: usize = 512;

/// Bytes of an event that could not be read that its record shows.
const SAMPLE_BYTES: usize = 200;

/// Longest finish reason that a record stores; servers write a word.
const REASON_CHARS: usize = 64;

/// What ends a stream.
const END_MARK: &[u8] = b"[DONE]";

/// The answer of one request while it arrives.
#[derive(Debug)]
pub(crate) struct Reading {
    splitter: Splitter,
    text: TextSink,
    /// Whether `[DONE]` was seen.
    done: bool,
    failure: Option<Failure>,
    events: u32,
    empty_texts: EmptyTexts,
    /// The event that came last, where it is none of an answer's.
    foreign: Option<Vec<u8>>,
    token_limit: u32,
}

/// Empty texts. Whether they were tokens is known at the end.
#[derive(Debug, Default)]
struct EmptyTexts {
    /// Before the first token.
    leading: u32,
    /// After it.
    later: u32,
    /// Arrivals of the frames that brought nothing else, before the first token and after it.
    leading_ns: Vec<u64>,
    later_ns: Vec<u64>,
}

impl EmptyTexts {
    fn events(&self) -> u32 {
        self.leading.saturating_add(self.later)
    }
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
        scores: Vec<Score>,
    },
}

impl TextSink {
    fn new(keep: Keep) -> Self {
        match keep {
            Keep::Hash => Self::Hash {
                hasher: Box::new(blake3::Hasher::new()),
                pending: Vec::with_capacity(HASH_PIECE),
            },
            Keep::Text | Keep::Scores => Self::Keep {
                text: String::new(),
                token_ids: Vec::new(),
                scores: Vec::new(),
            },
        }
    }

    fn take(&mut self, choice: Choice<'_>) {
        for piece in choice.texts() {
            match self {
                Self::Hash { hasher, pending } => {
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
                Self::Keep { text, .. } => text.push_str(piece),
            }
        }
        if let Self::Keep {
            token_ids, scores, ..
        } = self
        {
            token_ids.extend(choice.token_ids().unwrap_or_default());
            scores.extend(choice.into_scores());
        }
    }

    fn is_too_long(&self) -> bool {
        matches!(self, Self::Keep { text, .. } if text.len() > TEXT_BYTES)
    }

    fn finish(self) -> Answer {
        match self {
            Self::Hash {
                mut hasher,
                pending,
            } => {
                hasher.update(&pending);
                Answer::Hash(hasher.finalize())
            }
            Self::Keep {
                text,
                token_ids,
                scores,
            } => Answer::Whole {
                text,
                token_ids,
                scores,
            },
        }
    }
}

impl Reading {
    pub(crate) fn new(keep: Keep, gen_len: u32, record: &mut RequestRecord) -> Self {
        record
            .arrivals_ns
            .reserve_exact(gen_len.min(RESERVED_ARRIVALS) as usize);
        Self {
            splitter: Splitter::new(EVENT_BYTES),
            text: TextSink::new(keep),
            done: false,
            failure: None,
            events: 0,
            empty_texts: EmptyTexts::default(),
            foreign: None,
            // A server may ignore the length that was asked for, but not without end.
            token_limit: gen_len.saturating_mul(16).saturating_add(1 << 16),
        }
    }

    /// Whether the end mark came, with or without what should follow it.
    pub(crate) fn is_done(&self) -> bool {
        self.done || self.splitter.awaits_only_the_end_of(END_MARK)
    }

    /// Whether the answer can no longer end well.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Takes bytes of the body. The caller took the time before.
    pub(crate) fn take(&mut self, bytes: &[u8], record: &mut RequestRecord) {
        let mut splitter = std::mem::replace(&mut self.splitter, Splitter::new(0));
        let fed = splitter.feed(bytes, |payload| self.take_payload(payload, record));
        self.splitter = splitter;
        if let Err(too_large) = fed {
            let message = format!("an event is longer than {} bytes", too_large.limit_bytes);
            self.fail(Failure::new(ErrorKind::EventTooLarge, message));
        }
    }

    /// Takes what stands where the body ended, if it is whole.
    fn take_end(&mut self, record: &mut RequestRecord) {
        let mut splitter = std::mem::replace(&mut self.splitter, Splitter::new(0));
        let odd = (record.odd_events, record.odd_sample.is_some());
        splitter.end(|payload| self.take_payload(payload, record));
        // A part of an event is a cut, not an odd event.
        record.odd_events = odd.0;
        if !odd.1 {
            record.odd_sample = None;
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    fn take_payload(&mut self, payload: Payload<'_>, record: &mut RequestRecord) {
        if self.done || self.has_failed() {
            return;
        }
        self.events += 1;
        match payload {
            Payload::Error(words) => self.fail(Failure::in_stream(words)),
            Payload::Data(data) => self.take_data(data, record),
        }
    }

    fn take_data(&mut self, data: &[u8], record: &mut RequestRecord) {
        let data = data.trim_ascii();
        // A proxy may have written the field before a line that has it.
        let data = data.strip_prefix(b"data:").unwrap_or(data).trim_ascii();
        if is_end_mark(data) {
            self.done = true;
        } else if is_error_text(data) {
            self.fail(Failure::in_stream(data));
        } else if !is_keep_alive(data) {
            self.take_json(data, record);
        }
    }

    fn take_json(&mut self, data: &[u8], record: &mut RequestRecord) {
        match Event::read(data) {
            Ok(Some(event)) => self.take_event(event, data, record),
            Ok(None) => self.note_odd(data, record),
            Err(_) => match Event::read(&repaired(data)) {
                Ok(Some(event)) => self.take_event(event, data, record),
                Ok(None) | Err(_) if holds_events(data) => {
                    for line in data.split(|byte| *byte == b'\n') {
                        self.take_data(line, record);
                    }
                }
                Ok(None) | Err(_) => self.note_odd(data, record),
            },
        }
    }

    fn take_event(&mut self, event: Event<'_>, data: &[u8], record: &mut RequestRecord) {
        if let Some(usage) = event.usage() {
            record.usage = Some(record.usage.unwrap_or_default().followed_by(usage));
        }
        let choice = event.choice.as_ref();
        if let Some(reason) = choice.and_then(Choice::finish_reason) {
            record.finish_reason = Some(reason.chars().take(REASON_CHARS).collect());
        }
        if event.is_failure() {
            return self.fail(Failure::in_stream(data));
        }
        if event.is_foreign() {
            self.foreign = Some(start_of(data));
        }
        let Some(choice) = event.choice else { return };
        self.foreign = None;
        match choice.brings() {
            Brings::EmptyText if record.token_events == 0 => self.empty_texts.leading += 1,
            Brings::EmptyText => self.empty_texts.later += 1,
            Brings::Token => record.token_events += 1,
            Brings::Nothing => {}
        }
        if let Some(ids) = choice.token_ids() {
            let ids = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            record.token_ids = Some(record.token_ids.unwrap_or(0).saturating_add(ids));
        }
        self.text.take(choice);
        let events = record
            .token_events
            .saturating_add(self.empty_texts.events());
        if events > self.token_limit || self.text.is_too_long() {
            let message = format!("it did not end after {events} events with tokens");
            self.fail(Failure::new(ErrorKind::EndlessAnswer, message));
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
        let nanos = u64::try_from(since_sent.as_nanos()).unwrap_or(u64::MAX);
        if tokens > 0 {
            record.arrivals_ns.push(nanos);
        } else if self.empty_texts.events() > mark.empty_texts {
            if record.token_events == 0 {
                self.empty_texts.leading_ns.push(nanos);
            } else {
                self.empty_texts.later_ns.push(nanos);
            }
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
            empty_texts: self.empty_texts.events(),
        }
    }

    /// The outcome of an answer that has ended, properly or by the failure `cut`. Its
    /// last bytes arrived `since_sent` after the request was written.
    pub(crate) fn finish(
        mut self,
        cut: Option<Failure>,
        since_sent: Duration,
        record: &mut RequestRecord,
    ) -> Outcome {
        let mark = self.mark(record);
        self.take_end(record);
        self.close_frame(mark, since_sent, record);
        self.settle_empty_texts(record);
        record.answer = self.text.finish();
        if let Some(failure) = self.failure {
            return Outcome::Failed(failure);
        }
        // An answer is whole with the end mark, or with a finish reason and a proper end of the body.
        if !self.done && (cut.is_some() || record.finish_reason.is_none()) {
            let cut = cut.unwrap_or_else(|| {
                Failure::new(ErrorKind::CutStream, "the body ended before `[DONE]`")
            });
            return Outcome::Failed(cut);
        }
        let is_finished = record.finish_reason.is_some() || record.usage.is_some();
        match (&record.odd_sample, record.token_events) {
            (_, 1..) => match self.foreign {
                // It broke off, and what came in the place of its end is the server's reason.
                Some(words) if !is_finished => Outcome::Failed(Failure::in_stream(&words)),
                _ => Outcome::Ok,
            },
            (Some(sample), 0) => {
                let message =
                    format!("no event of the answer could be read as one; first: {sample}");
                Outcome::Failed(Failure::new(ErrorKind::BadEvent, message))
            }
            (None, 0) => {
                let message = "the stream ended without a token";
                Outcome::Failed(Failure::new(ErrorKind::EmptyAnswer, message))
            }
        }
    }

    /// Empty texts were tokens where the server's count has room for them. Without a count, those
    /// after the first token were.
    fn settle_empty_texts(&mut self, record: &mut RequestRecord) {
        let empty = std::mem::take(&mut self.empty_texts);
        let events = |more: u32| record.token_events.saturating_add(more);
        let all = events(empty.events());
        let (leading, later) = match record.output_tokens() {
            Some(counted) => (all <= counted, all <= counted),
            None => (false, true),
        };
        if later && empty.later > 0 {
            record.token_events = events(empty.later);
            record.arrivals_ns.extend(empty.later_ns);
            record.arrivals_ns.sort_unstable();
        }
        if leading && empty.leading > 0 {
            record.token_events = record.token_events.saturating_add(empty.leading);
            record.arrivals_ns.splice(..0, empty.leading_ns);
        }
    }

    /// Counts an event that could not be read, and shows the first.
    fn note_odd(&mut self, data: &[u8], record: &mut RequestRecord) {
        self.foreign = Some(start_of(data));
        record.odd_events = record.odd_events.saturating_add(1);
        record
            .odd_sample
            .get_or_insert_with(|| visible(data, SAMPLE_BYTES));
    }
}

/// Counts before a frame, to find what it brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    events: u32,
    token_events: u32,
    empty_texts: u32,
}

/// Whether a body begins as an event stream does, as far as it came.
pub(crate) fn begins_events(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let body = body.trim_ascii_start();
    let fields = [&b"data:"[..], b"event:", b"id:", b"retry:", b":"];
    !body.is_empty()
        && fields
            .iter()
            .any(|field| field.starts_with(&body[..body.len().min(field.len())]))
}

/// Whether an event means nothing: empty, `null`, or a bare word such as `ping`.
fn is_keep_alive(data: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    data.len() <= 32 && data.iter().all(is_word)
}

/// Whether an event that is not a JSON object reports an error in plain words.
fn is_error_text(data: &[u8]) -> bool {
    let words = data.trim_ascii_start();
    let words = words.strip_prefix(b"\"").unwrap_or(words);
    let words = words.strip_prefix(b"[").unwrap_or(words);
    ["error", "internal server error", "internal error"]
        .iter()
        .any(|begin| {
            let start = words.get(..begin.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(begin.as_bytes()))
        })
}

/// Whether data is the end mark, in whatever case and quoted or not.
fn is_end_mark(data: &[u8]) -> bool {
    let quoted = data
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    quoted.unwrap_or(data).eq_ignore_ascii_case(END_MARK)
}

/// Whether each line of data is an object or the end mark: events without the blank line that
/// belongs between them.
fn holds_events(data: &[u8]) -> bool {
    let is_event = |line: &[u8]| {
        let line = line.trim_ascii();
        is_end_mark(line) || line.starts_with(b"{") && line.ends_with(b"}")
    };
    data.contains(&b'\n') && data.split(|byte| *byte == b'\n').all(is_event)
}

/// What a message may need of an event.
fn start_of(data: &[u8]) -> Vec<u8> {
    data[..data.len().min(MESSAGE_BYTES)].to_vec()
}

#[cfg(test)]
mod tests;
