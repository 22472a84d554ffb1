//! HTTP servers of the tests' own, a thread a connection. They live as long as the test's process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use crate::support::Lab;

/// One request, whole.
pub(crate) struct Request {
    pub method: String,
    pub path: String,
    /// Its head, in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

/// One answer, whole.
#[derive(Clone)]
pub(crate) struct Answer {
    pub status: u16,
    pub kind: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self {
            status,
            kind: "application/json".to_owned(),
            body: body.as_bytes().to_vec(),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { status, kind, body } = self;
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        [head.into_bytes(), body.clone()].concat()
    }
}

/// A port on which each connection is served by `serve`.
pub(crate) fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

/// The next request of a connection; none at its end.
pub(crate) fn next_request(from: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut words = head.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let head = head.to_ascii_lowercase();
    let mut body = vec![0; header(&head, "content-length").map_or(0, |text| text.parse().unwrap())];
    from.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        path,
        head,
        body,
    })
}

/// The value of the header `name`, of a head in lower case.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.split("\r\n");
    lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// A server that answers each request as `answer` says.
pub(crate) fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> u16 {
    listen(move |mut stream| {
        let mut from = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = next_request(&mut from) {
            if stream.write_all(&answer(&request).bytes()).is_err() {
                return;
            }
        }
    })
}

/// A server before the one on `port`, whose answers go through `change`.
pub(crate) fn proxy(
    port: u16,
    change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
) -> u16 {
    serve(move |request| match ask(port, request) {
        Some(answer) => change(request, answer),
        None => Answer::json(502, "{}"),
    })
}

/// What the server on `port` answers.
pub(crate) fn ask(port: u16, request: &Request) -> Option<Answer> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let Request {
        method, path, body, ..
    } = request;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    server.write_all(head.as_bytes()).ok()?;
    server.write_all(body).ok()?;
    let mut bytes = Vec::new();
    server.read_to_end(&mut bytes).ok()?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let mut body = bytes.split_off(end);
    if header(&head, "transfer-encoding") == Some("chunked") {
        body = unchunked(&body);
    }
    Some(Answer {
        status: head.get(9..12)?.parse().ok()?,
        kind: header(&head, "content-type")
            .unwrap_or("text/plain")
            .to_owned(),
        body,
    })
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&body[..end]);
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + size + 4..];
    }
    whole
}

/// A simulator of the model `m` behind a proxy that changes its answers; the proxy's port.
pub(crate) struct Changed {
    pub port: u16,
    _sim: crate::support::Kill,
}

impl Changed {
    pub(crate) fn start(
        lab: &Lab,
        change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (sim, port) = lab.simulator();
        Self {
            port: proxy(port, change),
            _sim: sim,
        }
    }
}
