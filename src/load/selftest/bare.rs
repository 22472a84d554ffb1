//! The bare socket reader: what reading these streams costs without parsing them.
//!
//! The same requests, the same closed loop, one thread, epoll and `read`; each read is stamped and
//! its event ends are counted. No HTTP, no JSON, no runtime, no records but the stamps. It is the
//! floor that the client is measured against, not something one could use.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};

use memchr::memmem::Finder;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::{Case, Seen, body_of, monotonic_ns};

struct Stream {
    socket: TcpStream,
    seen: Seen,
    /// Event ends of the current answer.
    events: u32,
    /// The last read ended in the first half of an event's end.
    half: bool,
}

/// Runs a case and returns what was seen, in no order.
pub fn read_bare(case: &Case, server: SocketAddr) -> io::Result<Vec<Seen>> {
    let queue = epoll::create(CreateFlags::CLOEXEC)?;
    let mut requests: Vec<Vec<u8>> = (0..case.requests)
        .rev()
        .map(|number| request_of(case, number))
        .collect();
    let mut finished = Vec::with_capacity(case.requests as usize);
    let mut streams = Vec::new();
    for place in 0..case.streams.min(case.requests) {
        streams.push(open(&queue, server, place)?);
    }
    let mut next = 0;
    for stream in &mut streams {
        ask(stream, &mut requests, &mut next, case.tokens)?;
    }
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    let mut buffer = vec![0; 32 * 1024];
    let finder = Finder::new(b"\n\n");
    while finished.len() < case.requests as usize {
        events.clear();
        epoll::wait(&queue, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let stream = &mut streams[event.data.u64() as usize];
            loop {
                let count = match stream.socket.read(&mut buffer) {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                let at = monotonic_ns();
                take(stream, &buffer[..count], at, (&finder, case.tokens));
                if stream.events == case.tokens + 2 {
                    finished.push(std::mem::take(&mut stream.seen));
                    ask(stream, &mut requests, &mut next, case.tokens)?;
                }
                if count < buffer.len() {
                    break;
                }
            }
        }
    }
    Ok(finished)
}

/// Counts the ends of events in a read; the tokens come before usage and `[DONE]`.
fn take(stream: &mut Stream, bytes: &[u8], at: u64, (finder, tokens): (&Finder<'_>, u32)) {
    let joined = u32::from(stream.half && bytes.first() == Some(&b'\n'));
    let ends = joined + u32::try_from(finder.find_iter(bytes).count()).unwrap_or(u32::MAX);
    stream.half = bytes.ends_with(b"\n") && !bytes.ends_with(b"\n\n");
    if ends > 0 && stream.events < tokens {
        stream.seen.arrivals_ns.push(at);
    }
    stream.events += ends;
}

fn open(queue: &OwnedFd, server: SocketAddr, place: u32) -> io::Result<Stream> {
    let socket = TcpStream::connect(server)?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    let flags = EventFlags::IN | EventFlags::ET;
    epoll::add(
        queue,
        socket.as_fd(),
        EventData::new_u64(place.into()),
        flags,
    )?;
    Ok(Stream {
        socket,
        seen: Seen::default(),
        events: 0,
        half: false,
    })
}

fn ask(
    stream: &mut Stream,
    requests: &mut Vec<Vec<u8>>,
    next: &mut u32,
    tokens: u32,
) -> io::Result<()> {
    (stream.events, stream.half) = (0, false);
    let Some(request) = requests.pop() else {
        return Ok(());
    };
    let arrivals_ns = Vec::with_capacity(tokens as usize);
    stream.seen = Seen {
        number: *next,
        sent_ns: monotonic_ns(),
        arrivals_ns,
    };
    *next += 1;
    // Requests of the cases fit a socket's buffer.
    stream.socket.write_all(&request)
}

fn request_of(case: &Case, number: u32) -> Vec<u8> {
    let body = body_of(number, case.body_bytes);
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: bare\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}
