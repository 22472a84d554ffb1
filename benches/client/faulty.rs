//! A server that cuts, stalls and refuses, and a load on it: every request must still be recorded.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use labrun::internals::{
    Endpoint, LoadError, LoadOptions, LoadOutcome, Progress, Timeouts, drive,
    selftest::{CASE_B, Case, HEAD, TOKEN, chunk, schedule_of, take_request},
};
use tokio_util::sync::CancellationToken;

/// More requests than its time has room for: some are in flight when it ends.
const FAULTS: Case = Case {
    name: "F",
    streams: 32,
    tokens: 16,
    requests: 5000,
    body_bytes: 256,
    ..CASE_B
};

const GAP: Duration = Duration::from_millis(2);

/// Runs the load for `time`. Returns it, and how many requests the server read.
pub(crate) async fn run_faults(time: Duration) -> Result<(LoadOutcome, u64), LoadError> {
    let server = Faulty::start()?;
    let endpoint = Endpoint::parse(&format!("http://{}", server.address))
        .map_err(|error| LoadError::Start(io::Error::other(error)))?;
    let options = LoadOptions {
        timeouts: Timeouts {
            connect_s: 1.0,
            first_token_s: time.as_secs_f64() / 4.0,
            total_s: time.as_secs_f64() / 4.0,
        },
        stop_after: Some(time),
        drain: Duration::from_millis(20),
        ..LoadOptions::default()
    };
    let (cancel, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
    let schedule = Arc::new(schedule_of(&FAULTS));
    let outcome = drive(schedule, &endpoint, &options, &cancel, &progress).await?;
    Ok((outcome, server.received.load(Relaxed)))
}

struct Faulty {
    address: SocketAddr,
    received: Arc<AtomicU64>,
}

impl Faulty {
    /// Starts it. Its threads end with their connections; the one that accepts, with the process.
    fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        std::thread::Builder::new()
            .name("faulty".to_owned())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    let counter = Arc::clone(&counter);
                    // A connection without a thread closes, which is a fault like the others.
                    let _started = std::thread::Builder::new()
                        .stack_size(128 * 1024)
                        .spawn(move || answer_all(stream, &counter));
                }
            })?;
        Ok(Self { address, received })
    }
}

/// Answers the requests of a connection until one side closes it.
fn answer_all(mut stream: TcpStream, received: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut inbox, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        while take_request(&mut inbox).is_none() {
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                count => inbox.extend_from_slice(&bytes[..count]),
            }
        }
        match received.fetch_add(1, Relaxed) % 5 {
            0 => {
                stream.write_all(HEAD)?;
                tokens(&mut stream, FAULTS.tokens)?;
                stream.write_all(&chunk("data: [DONE]\n\n"))?;
                stream.write_all(b"0\r\n\r\n")?;
            }
            1 => {
                // Cut in the middle.
                stream.write_all(HEAD)?;
                return tokens(&mut stream, FAULTS.tokens / 2);
            }
            2 => {
                // Stalled in the middle, until the client gives up.
                stream.write_all(HEAD)?;
                tokens(&mut stream, FAULTS.tokens / 2)?;
            }
            3 => {
                let words = "{\"error\":{\"message\":\"overloaded\"}}";
                let length = words.len();
                let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n";
                write!(stream, "{head}content-length: {length}\r\n\r\n{words}")?;
            }
            // Closed without a word.
            _ => return Ok(()),
        }
    }
}

fn tokens(stream: &mut TcpStream, count: u32) -> io::Result<()> {
    for _ in 0..count {
        stream.write_all(&chunk(TOKEN))?;
        std::thread::sleep(GAP);
    }
    Ok(())
}
