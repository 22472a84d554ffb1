//! One request over one connection: write it, read its answer, and say when.
//!
//! The order is the point: each socket read has one instant, from before any of its bytes is looked
//! at. It is the kernel's stamp of the last byte, else the clock right after the read. All bytes of
//! one read share it, also where they hold several chunks: the client cannot know more than that
//! they were there by then.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::audit::Waits;
use super::error::{ErrorKind, Failure, MESSAGE_BYTES};
use super::http1::{BodyDecoder, HEAD_BYTES, Head, parse_head};
use super::link::{Connection, Link};
use super::reading::Reading;
use super::record::{Outcome, RequestRecord};
use super::socket::Received;
use crate::nvtx::RequestRange;
use crate::workload::Keep;

/// How long the end of a body may follow `[DONE]`, for the connection to be reused.
const TAIL: Duration = Duration::from_millis(500);

/// What is written, and what is expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) keep: Keep,
    pub(crate) gen_len: u32,
}

/// What bounds an exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'a> {
    /// The start of the load, which instants are told from.
    pub(crate) epoch: Instant,
    pub(crate) first_token: Duration,
    pub(crate) total: Duration,
    /// Cancelled when requests in flight must end.
    pub(crate) kill: &'a CancellationToken,
    /// Where it is noted how long bytes waited to be read.
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
        // A server may refuse a request before it has read it all: its answer says why.
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

/// Writes head and body, in one system call where they fit.
async fn write_all(link: &mut Link, wire: Wire<'_>, written: &mut usize) -> io::Result<()> {
    let (mut head, mut body) = (wire.head, wire.body);
    while !head.is_empty() || !body.is_empty() {
        let count = link
            .write_vectored(&[IoSlice::new(head), IoSlice::new(body)])
            .await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        *written += count;
        let of_head = count.min(head.len());
        head = &head[of_head..];
        body = &body[count - of_head..];
    }
    Ok(())
}

/// What of the answer comes next.
enum Phase {
    Head {
        filled: usize,
    },
    Stream {
        decoder: BodyDecoder,
        reading: Reading,
        keep_alive: bool,
    },
    /// A body that is no event stream: an error's words.
    Words {
        decoder: BodyDecoder,
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
            if let Err(failure) = self.take(&connection.buffer[..from + count], at, record) {
                return Ended::failed(failure);
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
                if bytes.len() >= HEAD_BYTES || rest.len() < bytes.len() {
                    let why = "the head of the answer is too long or came in parts";
                    return Err(Failure::new(ErrorKind::BadResponse, why));
                }
                return Ok(());
            };
            rest = &rest[length..];
            // 1xx heads announce the real one.
            if head.status >= 200 {
                record.http_status = Some(head.status);
                self.phase = self.body_of(head, record);
            }
        }
        match &mut self.phase {
            Phase::Head { .. } => {}
            Phase::Stream {
                decoder, reading, ..
            } => {
                let mark = reading.mark(record);
                let decoded = decoder.decode::<String>(rest, |body| {
                    reading.take(body, record);
                    Ok(())
                });
                reading.close_frame(mark, since_sent, record);
                decoded.map_err(|why| Failure::new(ErrorKind::BadResponse, why))?;
            }
            Phase::Words { decoder, words, .. } => {
                let decoded = decoder.decode::<String>(rest, |body| {
                    let room = MESSAGE_BYTES - words.len();
                    words.extend_from_slice(&body[..body.len().min(room)]);
                    Ok(())
                });
                decoded.map_err(|why| Failure::new(ErrorKind::BadResponse, why))?;
            }
        }
        Ok(())
    }

    fn body_of(&self, head: Head, record: &mut RequestRecord) -> Phase {
        let decoder = BodyDecoder::new(head.framing);
        if head.status == 200 && head.event_stream {
            let reading = Reading::new(self.wire.keep, self.wire.gen_len, record);
            Phase::Stream {
                decoder,
                reading,
                keep_alive: head.keep_alive,
            }
        } else {
            Phase::Words {
                decoder,
                head,
                words: Vec::with_capacity(MESSAGE_BYTES),
            }
        }
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
                let kind = match head.status {
                    200 => ErrorKind::NotAStream,
                    status => ErrorKind::Http(status),
                };
                Outcome::Failed(Failure::with_body(kind, &words))
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
