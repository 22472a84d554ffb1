//! The reference server: writes tokens at planned instants and records when it wrote each.
//!
//! One thread, one epoll queue and a kernel timer; nothing is computed between a due instant and
//! its write. Speaks just enough HTTP for a client that sends what it should.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::{Case, Gaps, STALL, monotonic_ns};
use crate::units::Seed;

/// What the server did for one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The request's number, from its body.
    pub number: u32,
    /// When its last byte had been read, nanoseconds.
    pub received_ns: u64,
    /// Just before each token was written, nanoseconds.
    pub written_ns: Vec<u64>,
}

/// A reference server on its own thread.
#[derive(Debug)]
pub struct Server {
    /// Address that it listens on.
    pub address: SocketAddr,
    thread: JoinHandle<io::Result<Vec<Served>>>,
}

impl Server {
    /// Starts it on `core`; it ends when it has answered the case's requests.
    pub fn start(case: Case, core: isize) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let thread = std::thread::Builder::new()
            .name("reference".to_owned())
            .spawn(move || {
                super::pin(core);
                Loop::new(case, listener)?.run()
            })?;
        Ok(Self { address, thread })
    }

    /// Waits for its end; returns what it did.
    pub fn join(self) -> io::Result<Vec<Served>> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the server panicked")))
    }
}

/// The head of an answer.
pub const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                      transfer-encoding: chunked\r\n\r\n";
/// The event of one token, as vLLM writes it.
pub const TOKEN: &str = "data: {\"id\":\"cmpl-a5015e300e927298\",\"object\":\"text_completion\",\
    \"created\":1795492298,\"model\":\"tiny\",\"choices\":[{\"index\":0,\"text\":\" the\",\
    \"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null,\"prompt_token_ids\":null,\
    \"token_ids\":null}]}\n\n";
const LISTENER: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// `text` as a chunk of an answer's body.
pub fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
    /// Bytes that the socket had no room for.
    outbox: Vec<u8>,
    served: Served,
}

struct Loop {
    case: Case,
    listener: TcpListener,
    queue: OwnedFd,
    timer: OwnedFd,
    connections: Vec<Connection>,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    finished: Vec<Served>,
    token: Vec<u8>,
    end: Vec<u8>,
    rng: ChaCha8Rng,
}

impl Loop {
    fn new(case: Case, listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let queue = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        epoll::add(
            &queue,
            &listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?;
        epoll::add(
            &queue,
            &timer,
            EventData::new_u64(TIMER),
            EventFlags::IN | EventFlags::ET,
        )?;
        let usage = format!(
            "data: {{\"id\":\"cmpl-a5015e300e927298\",\"object\":\"text_completion\",\
             \"choices\":[],\"usage\":{{\"prompt_tokens\":1,\"total_tokens\":1,\
             \"completion_tokens\":{}}}}}\n\n",
            case.tokens
        );
        let end = [
            chunk(&usage),
            chunk("data: [DONE]\n\n"),
            b"0\r\n\r\n".to_vec(),
        ]
        .concat();
        Ok(Self {
            case,
            listener,
            queue,
            timer,
            connections: Vec::new(),
            due: BinaryHeap::new(),
            finished: Vec::with_capacity(case.requests as usize),
            token: chunk(TOKEN),
            end,
            rng: Seed(7).rng(),
        })
    }

    fn run(mut self) -> io::Result<Vec<Served>> {
        let mut events: Vec<Event> = Vec::with_capacity(1024);
        while self.finished.len() < self.case.requests as usize {
            self.set_timer()?;
            events.clear();
            epoll::wait(
                &self.queue,
                rustix::buffer::spare_capacity(&mut events),
                None,
            )?;
            for event in &events {
                let flags = event.flags;
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    TIMER => {}
                    place => self.wake(place as usize, flags)?,
                }
            }
            self.write_due()?;
        }
        Ok(self.finished)
    }

    /// Arms the timer for the next due instant; an instant that is past fires at once.
    fn set_timer(&self) -> io::Result<()> {
        let Some(Reverse((due, _))) = self.due.peek() else {
            return Ok(());
        };
        let left = Duration::from_nanos(due.saturating_sub(monotonic_ns()).max(1));
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec::try_from(left).map_err(io::Error::other)?;
        let once = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let place = EventData::new_u64(self.connections.len() as u64);
                    let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
                    epoll::add(&self.queue, stream.as_fd(), place, flags)?;
                    self.connections.push(Connection {
                        stream,
                        inbox: Vec::new(),
                        outbox: Vec::new(),
                        served: Served::default(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn wake(&mut self, place: usize, flags: EventFlags) -> io::Result<()> {
        if flags.contains(EventFlags::OUT) {
            self.flush(place)?;
        }
        if !flags.contains(EventFlags::IN) {
            return Ok(());
        }
        let connection = &mut self.connections[place];
        let mut bytes = [0; 16_384];
        loop {
            match connection.stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(count) => connection.inbox.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if let Some(number) = take_request(&mut connection.inbox) {
            let now = monotonic_ns();
            connection.served = Served {
                number,
                received_ns: now,
                written_ns: Vec::with_capacity(self.case.tokens as usize),
            };
            self.send(place, HEAD)?;
            let first = now + u64::try_from(self.case.ttft.as_nanos()).unwrap_or_default();
            self.due.push(Reverse((first, place)));
        }
        Ok(())
    }

    fn write_due(&mut self) -> io::Result<()> {
        while let Some(Reverse((due, place))) = self.due.peek().copied() {
            let now = monotonic_ns();
            if due > now {
                break;
            }
            self.due.pop();
            self.connections[place].served.written_ns.push(now);
            let token = std::mem::take(&mut self.token);
            self.send(place, &token)?;
            self.token = token;
            let written = self.connections[place].served.written_ns.len();
            if written < self.case.tokens as usize {
                // From the planned instant: delays of the server must not add up.
                let gap = self.gap_ns();
                self.due.push(Reverse((due + gap, place)));
                continue;
            }
            let end = std::mem::take(&mut self.end);
            self.send(place, &end)?;
            self.end = end;
            self.finished
                .push(std::mem::take(&mut self.connections[place].served));
        }
        Ok(())
    }

    fn gap_ns(&mut self) -> u64 {
        let gap = self.case.gap;
        let gap = match self.case.gaps {
            Gaps::Even => gap,
            Gaps::JitterAndStalls if self.rng.random_range(0..50) == 0 => STALL,
            Gaps::JitterAndStalls => gap.mul_f64(self.rng.random_range(0.5..1.5)),
        };
        u64::try_from(gap.as_nanos()).unwrap_or_default()
    }

    fn send(&mut self, place: usize, bytes: &[u8]) -> io::Result<()> {
        let connection = &mut self.connections[place];
        let mut rest = bytes;
        while connection.outbox.is_empty() && !rest.is_empty() {
            match connection.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        connection.outbox.extend_from_slice(rest);
        Ok(())
    }

    fn flush(&mut self, place: usize) -> io::Result<()> {
        let unsent = std::mem::take(&mut self.connections[place].outbox);
        if unsent.is_empty() {
            Ok(())
        } else {
            self.send(place, &unsent)
        }
    }
}

/// Takes one whole request off the front; returns the number that its body begins with.
pub fn take_request(inbox: &mut Vec<u8>) -> Option<u32> {
    let head_end = memchr::memmem::find(inbox, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&inbox[..head_end]).to_ascii_lowercase();
    let length = head.split("content-length:").nth(1)?.lines().next()?.trim();
    let end = head_end + length.parse::<usize>().ok()?;
    if inbox.len() < end {
        return None;
    }
    let body = String::from_utf8_lossy(&inbox[head_end..end.min(head_end + 32)]).into_owned();
    inbox.drain(..end);
    let digits = body
        .split("\"request\":")
        .nth(1)
        .and_then(|rest| rest.get(..10));
    Some(
        digits
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(u32::MAX),
    )
}
