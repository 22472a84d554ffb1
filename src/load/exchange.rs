//! One request over one connection: write it, read its answer, and stamp both.
//!
//! The order matters: each socket read has one instant, taken before any of its bytes is parsed. It is
//! the kernel's stamp of the last byte, else the clock right after the read. All bytes of
//! one read share it, also where they hold several chunks: the client cannot know more than that
//! they were there by then.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::audit::Waits;
use super::coding::Coding;
use super::error::{ErrorKind, Failure, MESSAGE_BYTES};
use super::http1::{BodyDecoder, Head, parse_head};
use super::link::Connection;
use super::reading::{Reading, begins_events};
use super::record::{Outcome, RequestRecord};
use super::socket::Received;
use super::wire::{Wire, write_all};
use crate::nvtx::RequestRange;

/// How long the end of a body may follow `[DONE]`, for the connection to be reused.
pub(super) const TAIL: Duration = Duration::from_millis(500);

/// What bounds an exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'a> {
    /// The start of the load; instants are distances from it.
    pub(crate) epoch: Instant,
    pub(crate) first_token: Duration,
    pub(crate) total: Duration,
    /// Cancelled when requests in flight must end.
    pub(crate) kill: &'a CancellationToken,
    /// Collects how long bytes waited to be read.
    pub(crate) waits: &'a Waits,
}

/// How an exchange ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It ran; the connection can carry another request if `reusable`.
    Ran { outcome: Outcome, reusable: bool },
    /// The connection was closed before a byte was written, so nothing was asked.
    NotWritten(Failure),
}

impl Ended {
    fn failed(failure: Failure) -> Self {
        Self::Ran {
            outcome: Outcome::Failed(failure),
            reusable: false,
        }
    }
}

/// Runs one exchange and fills in `record`.
pub(crate) async fn exchange(
    connection: &mut Connection,
    wire: Wire<'_>,
    bounds: Bounds<'_>,
    record: &mut RequestRecord,
) -> Ended {
    let sent = Instant::now();
    record.sent = Some(sent - bounds.epoch);
    let range = RequestRange::sent(record.index);
    let limit = bounds.first_token.min(bounds.total);
    let mut deadline = std::pin::pin!(sleep_until(sent + limit));
    let mut written = 0;
    let write = tokio::select! {
        biased;
        result = write_all(&mut connection.link, wire, &mut written) => result,
        () = deadline.as_mut() => {
            return Ended::failed(timed_out(ErrorKind::TimeoutFirstToken, limit));
        }
        () = bounds.kill.cancelled() => {
            return Ended::Ran { outcome: Outcome::Unfinished, reusable: false };
        }
    };
    match write {
        Err(error) if written == 0 => return Ended::NotWritten(Failure::transferring(&error)),
        // A server may refuse a request before it has read all of it: its answer has the reason.
        Err(_) | Ok(()) => {}
    }
    let answer = Answer {
        sent,
        last: sent,
        range,
        phase: Phase::Head { filled: 0 },
        bounds,
        wire,
    };
    let ended = answer.read(connection, deadline, record).await;
    match (ended, write) {
        (
            Ended::Ran {
                outcome: Outcome::Failed(failure),
                ..
            },
            Err(error),
        ) if record.http_status.is_none() && failure.kind != ErrorKind::BadResponse => {
            Ended::failed(Failure::transferring(&error))
        }
        (ended, _) => ended,
    }
}

/// What of the answer comes next.
#[expect(
    clippy::large_enum_variant,
    reason = "one lives in each request in flight, and most of its life it is the large one"
)]
enum Phase {
    Head {
        filled: usize,
    },
    Stream {
        decoder: BodyDecoder,
        coding: Coding,
        reading: Reading,
        keep_alive: bool,
    },
    /// A body that is not an event stream: the message of an error.
    Words {
        decoder: BodyDecoder,
        coding: Coding,
        head: Head,
        words: Vec<u8>,
    },
}

struct Answer<'a> {
    sent: Instant,
    /// The instant of the last read.
    last: Instant,
    /// The request on a profiler's time line.
    range: RequestRange,
    phase: Phase,
    bounds: Bounds<'a>,
    wire: Wire<'a>,
}

/// What a wait for bytes came to.
enum Waited {
    Bytes(Received),
    Eof,
    Error(io::Error),
    Deadline,
    Killed,
}

impl Answer<'_> {
    async fn read(
        mut self,
        connection: &mut Connection,
        mut deadline: Pin<&mut Sleep>,
        record: &mut RequestRecord,
    ) -> Ended {
        let mut killed = std::pin::pin!(self.bounds.kill.cancelled());
        let mut waits_for = ErrorKind::TimeoutFirstToken;
        let mut tail = false;
        loop {
            let Connection { link, buffer } = &mut *connection;
            let from = if let Phase::Head { filled } = self.phase {
                filled
            } else {
                0
            };
            let waited = tokio::select! {
                biased;
                read = link.receive(&mut buffer[from..]) => match read {
                    Ok(Received { count: 0, .. }) => Waited::Eof,
                    Ok(received) => Waited::Bytes(received),
                    Err(error) => Waited::Error(error),
                },
                () = deadline.as_mut() => Waited::Deadline,
                () = killed.as_mut() => Waited::Killed,
            };
            let Received { count, at, waited } = match waited {
                Waited::Bytes(received) => received,
                other => return self.cut_off(other, waits_for, record),
            };
            self.bounds.waits.add(waited);
            // Two clocks are behind a stamp: their nanoseconds must not turn time back.
            let at = at.max(self.last);
            self.last = at;
            let filled = from + count;
            if let Err(failure) = self.take(&connection.buffer[..filled], at, record) {
                return Ended::failed(failure);
            }
            if let Phase::Head { filled: left } = self.phase {
                // What follows a 1xx head.
                connection.buffer.copy_within(filled - left..filled, 0);
            }
            let first = waits_for == ErrorKind::TimeoutFirstToken && record.token_events > 0;
            if first {
                self.range.first_token();
            }
            if let Some(reusable) = self.has_ended() {
                let outcome = self.finish(None, record);
                return Ended::Ran { outcome, reusable };
            }
            if first {
                waits_for = ErrorKind::TimeoutTotal;
                deadline.as_mut().reset(self.sent + self.bounds.total);
            }
            match &self.phase {
                Phase::Stream { reading, .. } if reading.has_failed() => {
                    let outcome = self.finish(None, record);
                    return Ended::Ran {
                        outcome,
                        reusable: false,
                    };
                }
                Phase::Stream { reading, .. } if reading.is_done() && !tail => {
                    tail = true;
                    self.range.end();
                    deadline.as_mut().reset(at + TAIL);
                }
                _ => {}
            }
        }
    }

    /// Takes the bytes of one read, which returned at `at`.
    fn take(
        &mut self,
        bytes: &[u8],
        at: Instant,
        record: &mut RequestRecord,
    ) -> Result<(), Failure> {
        let since_sent = at - self.sent;
        let mut rest = bytes;
        while let Phase::Head { filled } = &mut self.phase {
            *filled = rest.len();
            let parsed =
                parse_head(rest).map_err(|why| Failure::new(ErrorKind::BadResponse, why))?;
            let Some((head, length)) = parsed else {
                return Ok(());
            };
            rest = &rest[length..];
            // 1xx heads announce the real one.
            if head.status >= 200 {
                record.http_status = Some(head.status);
                let phase = self.body_of(head, record);
                self.phase = phase.map_err(|why| Failure::new(ErrorKind::BadResponse, why))?;
            }
        }
        if let Phase::Words { head, words, .. } = &self.phase
            && head.status == 200
            && words.is_empty()
        {
            return self.take_first_words(rest, since_sent, record);
        }
        match &mut self.phase {
            Phase::Head { .. } => {}
            Phase::Stream {
                decoder,
                coding,
                reading,
                ..
            } => {
                let mark = reading.mark(record);
                let decoded = decoder.decode::<String>(rest, |body| {
                    coding.decode(body, &mut |plain| reading.take(plain, record))
                });
                reading.close_frame(mark, since_sent, record);
                decoded.map_err(|why| Failure::new(ErrorKind::BadResponse, why))?;
            }
            Phase::Words {
                decoder,
                coding,
                words,
                ..
            } => {
                let decoded = decoder.decode::<String>(rest, |body| {
                    coding.decode(body, &mut |plain| {
                        let room = MESSAGE_BYTES - words.len();
                        words.extend_from_slice(&plain[..plain.len().min(room)]);
                    })
                });
                decoded.map_err(|why| Failure::new(ErrorKind::BadResponse, why))?;
            }
        }
        Ok(())
    }

    /// Takes the first bytes of a body that its head does not call an event stream: some servers
    /// omit that, and the body shows it.
    fn take_first_words(
        &mut self,
        bytes: &[u8],
        since_sent: Duration,
        record: &mut RequestRecord,
    ) -> Result<(), Failure> {
        let phase = std::mem::replace(&mut self.phase, Phase::Head { filled: 0 });
        let Phase::Words {
            mut decoder,
            mut coding,
            head,
            ..
        } = phase
        else {
            return Ok(());
        };
        let mut body = Vec::new();
        let decoded = decoder.decode::<String>(bytes, |coded| {
            coding.decode(coded, &mut |plain| body.extend_from_slice(plain))
        });
        if begins_events(&body) {
            let mut reading = Reading::new(self.wire.keep, self.wire.gen_len, record);
            let mark = reading.mark(record);
            reading.take(&body, record);
            reading.close_frame(mark, since_sent, record);
            self.phase = Phase::Stream {
                decoder,
                coding,
                reading,
                keep_alive: head.keep_alive,
            };
        } else {
            body.truncate(MESSAGE_BYTES);
            self.phase = Phase::Words {
                decoder,
                coding,
                head,
                words: body,
            };
        }
        decoded
            .map(drop)
            .map_err(|why| Failure::new(ErrorKind::BadResponse, why))
    }

    fn body_of(&self, head: Head, record: &mut RequestRecord) -> Result<Phase, String> {
        let decoder = BodyDecoder::new(head.framing);
        let coding = Coding::of(&head.coding)?;
        Ok(if head.status == 200 && head.event_stream {
            Phase::Stream {
                decoder,
                coding,
                reading: Reading::new(self.wire.keep, self.wire.gen_len, record),
                keep_alive: head.keep_alive,
            }
        } else {
            Phase::Words {
                decoder,
                coding,
                head,
                words: Vec::with_capacity(MESSAGE_BYTES),
            }
        })
    }

    /// Whether the answer is whole, and then whether its connection can be reused.
    fn has_ended(&self) -> Option<bool> {
        match &self.phase {
            Phase::Head { .. } => None,
            Phase::Stream {
                decoder,
                keep_alive,
                ..
            } => decoder.is_done().then_some(*keep_alive),
            Phase::Words { decoder, head, .. } => decoder.is_done().then_some(head.keep_alive),
        }
    }

    /// The end of an answer that stopped coming.
    fn cut_off(self, why: Waited, waits_for: ErrorKind, record: &mut RequestRecord) -> Ended {
        let may_end = match &self.phase {
            Phase::Head { .. } => false,
            Phase::Stream { decoder, .. } | Phase::Words { decoder, .. } => {
                decoder.may_end_with_connection()
            }
        };
        let cut = match why {
            Waited::Eof | Waited::Bytes(_) if may_end => None,
            Waited::Eof | Waited::Bytes(_) => Some(Failure::new(
                ErrorKind::CutStream,
                "the server closed the connection",
            )),
            Waited::Error(error) => Some(Failure::transferring(&error)),
            Waited::Deadline => {
                let limit = match waits_for {
                    ErrorKind::TimeoutTotal => self.bounds.total,
                    _ => self.bounds.first_token.min(self.bounds.total),
                };
                Some(timed_out(waits_for, limit))
            }
            Waited::Killed => {
                let outcome = match self.finish(None, record) {
                    Outcome::Ok => Outcome::Ok,
                    _ => Outcome::Unfinished,
                };
                return Ended::Ran {
                    outcome,
                    reusable: false,
                };
            }
        };
        let outcome = self.finish(cut, record);
        Ended::Ran {
            outcome,
            reusable: false,
        }
    }

    fn finish(self, cut: Option<Failure>, record: &mut RequestRecord) -> Outcome {
        match self.phase {
            Phase::Stream { reading, .. } => reading.finish(cut, self.last - self.sent, record),
            Phase::Words { head, words, .. } => {
                let location = head.location.as_deref();
                Outcome::Failed(Failure::answered(head.status, location, &words))
            }
            Phase::Head { .. } => {
                Outcome::Failed(cut.unwrap_or_else(|| {
                    Failure::new(ErrorKind::CutStream, "the answer did not begin")
                }))
            }
        }
    }
}

fn timed_out(kind: ErrorKind, limit: Duration) -> Failure {
    Failure::new(kind, format!("nothing within {:.3} s", limit.as_secs_f64()))
}
