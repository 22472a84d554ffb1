//! Connections to the server: made, reused, and dropped when the server closes them.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::socket::{Received, Socket, Stamping};

/// How long an idle connection is reused. uvicorn closes idle ones after 5 s.
const IDLE: Duration = Duration::from_secs(4);

/// Bytes of one socket read. Large enough that a burst is few reads, small enough for a thousand.
const READ_BYTES: usize = 32 * 1024;

/// An open byte stream to the server.
#[derive(Debug)]
pub(crate) enum Link {
    Tcp(Socket),
    /// The other end is a test's script.
    #[cfg(test)]
    #[cfg(feature = "paused-clock")]
    Scripted(tokio::io::DuplexStream),
}

/// A link and the buffer that its reads go to.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) link: Link,
    pub(crate) buffer: Vec<u8>,
}

impl Connection {
    fn new(link: Link) -> Self {
        Self {
            link,
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Whether it is open and without unread bytes, as far as is known without waiting.
    fn is_open(&self) -> bool {
        match &self.link {
            Link::Tcp(socket) => socket.is_silent(),
            #[cfg(test)]
            #[cfg(feature = "paused-clock")]
            Link::Scripted(_) => true,
        }
    }
}

/// Where new connections come from.
#[derive(Debug)]
pub(crate) enum Dial {
    Tcp(SocketAddr),
    /// Hands the test's script one end of a pipe per connection.
    #[cfg(test)]
    #[cfg(feature = "paused-clock")]
    Scripted(tokio::sync::mpsc::UnboundedSender<tokio::io::DuplexStream>),
}

/// The connections of one load.
#[derive(Debug)]
pub(crate) struct Pool {
    dial: Dial,
    _stamping: Stamping,
    idle: Mutex<Vec<(Connection, Instant)>>,
}

/// What the pool had.
pub(crate) enum Lent {
    /// One that seems open.
    Open(Connection),
    /// No idle connection.
    None,
    /// The server has closed the idle connection.
    Closed,
}

impl Pool {
    pub(crate) fn new(dial: Dial) -> Self {
        Self {
            dial,
            _stamping: Stamping::on(),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Opens a new connection.
    pub(crate) async fn connect(&self) -> io::Result<Connection> {
        match &self.dial {
            Dial::Tcp(address) => {
                let socket = Socket::connect(address).await?;
                Ok(Connection::new(Link::Tcp(socket)))
            }
            #[cfg(test)]
            #[cfg(feature = "paused-clock")]
            Dial::Scripted(script) => {
                let (ours, theirs) = tokio::io::duplex(1 << 20);
                script
                    .send(theirs)
                    .map_err(|_| io::ErrorKind::ConnectionRefused)?;
                Ok(Connection::new(Link::Scripted(ours)))
            }
        }
    }

    /// The connection that was used last, if it can still be used.
    pub(crate) fn lend(&self) -> Lent {
        let mut idle = self
            .idle
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some((connection, since)) = idle.pop() else {
            return Lent::None;
        };
        if since.elapsed() >= IDLE {
            // The others have waited even longer.
            idle.clear();
            return Lent::None;
        }
        if connection.is_open() {
            Lent::Open(connection)
        } else {
            Lent::Closed
        }
    }

    /// Stores a connection for reuse. Its answer was read to the end.
    pub(crate) fn give_back(&self, connection: Connection) {
        let mut idle = self
            .idle
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        idle.push((connection, Instant::now()));
    }
}

impl Link {
    /// The next bytes, and when they came.
    pub(crate) async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        match self {
            Self::Tcp(socket) => poll_fn(|cx| socket.poll_receive(cx, buffer)).await,
            #[cfg(test)]
            #[cfg(feature = "paused-clock")]
            Self::Scripted(stream) => {
                let count = tokio::io::AsyncReadExt::read(stream, buffer).await?;
                Ok(Received::now(count))
            }
        }
    }

    /// Writes what goes at once of several pieces.
    pub(crate) async fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => poll_fn(|cx| socket.poll_write_vectored(cx, slices)).await,
            #[cfg(test)]
            #[cfg(feature = "paused-clock")]
            Self::Scripted(stream) => {
                tokio::io::AsyncWriteExt::write_vectored(stream, slices).await
            }
        }
    }
}
