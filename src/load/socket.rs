//! A TCP stream whose reads have the instant of their bytes' arrival.
//!
//! The kernel stamps what it receives as it receives it. That instant is the truth about the
//! server: the clock that this process reads after its own `read` also holds the time that the
//! bytes lay in the socket while the process read others. With 512 streams whose tokens come in
//! bursts the second is two to three times as far from the server's write as a reader that does
//! nothing else; the first is nearer than that reader.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes that were received, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// How many; none at the end of the stream.
    pub(crate) count: usize,
    /// When the last of them came.
    pub(crate) at: Instant,
    /// How long they then waited for this process, where the kernel stamped them.
    pub(crate) waited: Option<Duration>,
}

impl Received {
    /// Bytes without a stamp: they arrived at some time until now.
    pub(crate) fn now(count: usize) -> Self {
        Self {
            count,
            at: Instant::now(),
            waited: None,
        }
    }

    /// Bytes that the kernel stamped, by its wall clock. Both clocks are read here: only a step
    /// of the wall clock while the bytes waited could be mistaken for waiting.
    fn stamped(count: usize, stamp: Timespec) -> Self {
        // This order: a pause in between makes the instant late, never earlier than the truth.
        let wall = clock_gettime(ClockId::Realtime);
        let now = Instant::now();
        match waited(stamp, wall).and_then(|waited| Some((waited, now.checked_sub(waited)?))) {
            Some((waited, at)) => Self {
                count,
                at,
                waited: Some(waited),
            },
            None => Self {
                count,
                at: now,
                waited: None,
            },
        }
    }
}

/// From a stamp to now; none if the clock was set back in between.
fn waited(stamp: Timespec, now: Timespec) -> Option<Duration> {
    let since = |time: Timespec| Duration::try_from(time).ok();
    since(now)?.checked_sub(since(stamp)?)
}

/// A connection over TCP.
#[derive(Debug)]
pub(crate) struct Socket(TcpStream);

impl Socket {
    pub(crate) async fn connect(address: &SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        ask_for_stamps(&stream);
        Ok(Self(stream))
    }

    /// Whether the other end has left it open and silent, as far as is known without waiting.
    pub(crate) fn is_silent(&self) -> bool {
        let mut byte = [0];
        matches!(self.0.try_read(&mut byte),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<Received>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let mut partial = None;
            let whole = self.0.try_io(Interest::READABLE, || {
                let received = receive(&self.0, buffer)?;
                if (1..buffer.len()).contains(&received.count) {
                    // A read that leaves room has emptied the socket. To say so here spares the
                    // system call that would find out.
                    partial = Some(received);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(received)
            });
            match (partial, whole) {
                (Some(received), _) => return Poll::Ready(Ok(received)),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, whole) => return Poll::Ready(whole),
            }
        }
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }
}

/// Keeps the kernel's stamping on. The first socket that asks for stamps switches it on for all of
/// the machine, a moment later; this one does so before the first connection is made.
#[derive(Debug)]
pub(crate) struct Stamping {
    _socket: Option<UdpSocket>,
}

impl Stamping {
    pub(crate) fn on() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").ok();
        socket.as_ref().inspect(|socket| ask_for_stamps(*socket));
        Self { _socket: socket }
    }
}

/// Has the kernel stamp what it receives. Where it does not, reads are stamped here.
fn ask_for_stamps(socket: &impl AsRawFd) {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    // SAFETY: the descriptor is open while `socket` is, and `on` is an int of the size given.
    let _unstamped = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            size,
        )
    };
}

/// Room for a control message with a stamp, aligned as its header wants it.
const CONTROL_WORDS: usize = 8;

/// Reads once with `recvmsg`, which also returns the kernel's stamp.
fn receive(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<Received> {
    let mut piece = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control = [0_u64; CONTROL_WORDS];
    // SAFETY: all of its fields are integers and pointers, for which zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // The type differs between C libraries.
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the descriptor is open while `stream` is; the message names `buffer` and `control`,
    // which are borrowed or owned here for longer than the call, with their sizes.
    let count = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, 0) };
    let Ok(count) = usize::try_from(count) else {
        return Err(io::Error::last_os_error());
    };
    Ok(match stamp_of(&message) {
        Some(stamp) if count > 0 => Received::stamped(count, stamp),
        _ => Received::now(count),
    })
}

/// The stamp among a message's control messages.
fn stamp_of(message: &libc::msghdr) -> Option<Timespec> {
    // SAFETY: `recvmsg` filled `message`, whose control buffer lives in the caller; the macros stay
    // within its length.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(control) = header.as_ref() {
            if control.cmsg_level == libc::SOL_SOCKET && control.cmsg_type == libc::SCM_TIMESTAMPNS
            {
                let stamp = libc::CMSG_DATA(header)
                    .cast::<libc::timespec>()
                    .read_unaligned();
                return Some(Timespec {
                    tv_sec: stamp.tv_sec,
                    tv_nsec: stamp.tv_nsec,
                });
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Socket::connect(&address).await.unwrap();
        (socket, listener.accept().unwrap().0)
    }

    async fn receive(socket: &Socket, buffer: &mut [u8]) -> Received {
        poll_fn(|cx| socket.poll_receive(cx, buffer)).await.unwrap()
    }

    #[tokio::test]
    async fn bytes_that_waited_have_the_instant_of_their_arrival() {
        let _stamping = Stamping::on();
        let (socket, mut server) = pair().await;
        let mut buffer = [0; 64];
        let mut tries = 0;
        // Stamping is switched on behind the call that asks for it.
        let (written, received, waited) = loop {
            let written = Instant::now();
            server.write_all(b"token").unwrap();
            std::thread::sleep(Duration::from_millis(50));
            let received = receive(&socket, &mut buffer).await;
            assert_eq!(&buffer[..received.count], b"token");
            if let Some(waited) = received.waited {
                break (written, received, waited);
            }
            tries += 1;
            assert!(tries < 100, "Linux stamps TCP");
        };
        assert!(waited >= Duration::from_millis(50), "{waited:?}");
        assert!(received.at >= written, "never before it was written");
        assert!(received.at + waited <= Instant::now());
    }

    #[tokio::test]
    async fn reads_end_partial_or_full_and_at_the_end() {
        let (socket, mut server) = pair().await;
        server.write_all(b"abcdef").unwrap();
        let mut small = [0; 4];
        assert_eq!(receive(&socket, &mut small).await.count, 4);
        assert_eq!(receive(&socket, &mut small).await.count, 2);
        assert!(socket.is_silent());
        let (later, mut buffer) = (
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                server.write_all(b"gh").unwrap();
            }),
            [0; 8],
        );
        assert_eq!(receive(&socket, &mut buffer).await.count, 2);
        later.join().unwrap();
        assert_eq!(receive(&socket, &mut buffer).await.count, 0, "the end");
        assert!(!socket.is_silent());
    }

    #[test]
    fn a_clock_that_was_set_back_is_not_a_wait() {
        let at = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        assert_eq!(
            waited(at(5, 999_999_000), at(6, 1000)),
            Some(Duration::from_micros(2))
        );
        assert_eq!(waited(at(5, 1), at(5, 0)), None);
    }
}
