//! Bytes over the connections of this machine to one TCP port, by the kernel's own counters (sock_diag(7)).
//!
//! Of what listens there nothing is known but the port. Only connections whose remote port it is count, so
//! that one over loopback counts once. The kernel reports the last counts of a connection when it is gone
//! (as `ss --events` shows them): nothing is polled, and one that was never seen open counts too.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, IPPROTO_TCP, SockDiagMessage};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

mod counted;

use counted::{Bytes, Cookie, Counted};
pub(crate) use counted::{PortGrowth, PortTotals};

/// Where `struct tcp_info` of linux/tcp.h has `tcpi_bytes_acked`.
const ACKED_AT: usize = 120;
/// Where it has `tcpi_bytes_received`.
const RECEIVED_AT: usize = 128;

/// The groups that report closed connections: `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`.
const CLOSED_GROUPS: u32 = 1 | 1 << 2;

/// No answer of the kernel's is longer, bytes.
const MAX_ANSWER_BYTES: usize = 1 << 16;

/// How soon the kernel reports a connection that is gone.
const REPORT_DELAY: Duration = Duration::from_millis(20);
/// How long it may take to report one that is known and gone.
const LAST_WORD_LIMIT: Duration = Duration::from_millis(200);

/// How soon the thread sees that nobody watches any more.
const WAKE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Counts the bytes of one port until it is dropped.
pub(crate) struct TcpPort {
    shared: Arc<Shared>,
}

/// What the reader shares with the thread that takes the kernel's reports.
struct Shared {
    port: u16,
    /// Reports of closed connections, of any port.
    reports: Socket,
    counted: Mutex<Counted>,
}

impl TcpPort {
    /// Begins to count. Fails where the kernel does not show its connections.
    pub(crate) fn watch(port: u16) -> Result<Self> {
        let shared = Arc::new(Shared::new(port)?);
        let watched = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("tcp-port".to_owned())
            .spawn(move || take_reports(&watched))
            .context("starting the thread that counts the bytes of a port")?;
        Ok(Self { shared })
    }

    /// What was counted so far. Fails where the kernel does not answer.
    pub(crate) async fn read(&self) -> Result<PortTotals> {
        let began = Instant::now();
        self.shared.update()?;
        // Of those that were never seen open nobody knows that a report is to come.
        tokio::time::sleep(REPORT_DELAY).await;
        while self.shared.update()? > 0 && began.elapsed() < LAST_WORD_LIMIT {
            tokio::time::sleep(REPORT_DELAY).await;
        }
        let mut counted = self.shared.counted();
        counted.give_up();
        Ok(counted.totals(self.shared.port))
    }
}

/// Takes reports as they come, before the kernel has no room for more.
fn take_reports(watched: &Weak<Shared>) {
    while let Some(shared) = watched.upgrade() {
        let mut reports = [PollFd::new(&shared.reports, PollFlags::IN)];
        let has_reports = poll(&mut reports, Some(&WAKE)).unwrap_or(0) > 0;
        // What fails here fails for the next reader too, who reports it.
        if has_reports && shared.take_reports(&mut shared.counted()).is_err() {
            return;
        }
    }
}

impl Shared {
    fn new(port: u16) -> Result<Self> {
        let opened = || {
            let mut reports = Socket::new(NETLINK_SOCK_DIAG)?;
            reports.bind(&SocketAddr::new(0, CLOSED_GROUPS))?;
            reports.set_non_blocking(true)?;
            std::io::Result::Ok(reports)
        };
        let shared = Self {
            port,
            reports: opened().context("asking the kernel to report closed TCP connections")?,
            counted: Mutex::default(),
        };
        shared.update()?;
        Ok(shared)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is open and what was closed; returns how many connections are gone of which no report
    /// has come.
    fn update(&self) -> Result<usize> {
        let mut counted = self.counted();
        self.take_reports(&mut counted)?;
        let mut open = BTreeMap::new();
        for (family, id) in [
            (AF_INET, SocketId::new_v4()),
            (AF_INET6, SocketId::new_v6()),
        ] {
            open.append(&mut self.open(family, id)?);
        }
        Ok(counted.see_open(open))
    }

    /// Takes what the kernel has reported of closed connections.
    fn take_reports(&self, counted: &mut Counted) -> Result<()> {
        let mut report = Vec::with_capacity(MAX_ANSWER_BYTES);
        loop {
            report.clear();
            match self.reports.recv(&mut report, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // More was closed at once than the kernel has room for.
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    counted.lose();
                    continue;
                }
                Err(error) => {
                    return Err(error).context("reading which TCP connections were closed");
                }
            }
            let Ok(payloads) = payloads(&report) else {
                counted.lose();
                continue;
            };
            for connection in payloads.iter().filter_map(|it| self.of_port(it)) {
                counted.see_closed(connection.header.socket_id.cookie, bytes_of(connection));
            }
        }
    }

    /// The open connections of one family, each with what it carried.
    fn open(&self, family: u8, id: SocketId) -> Result<BTreeMap<Cookie, Bytes>> {
        let asking = || {
            format!(
                "asking the kernel for the connections to port {}",
                self.port
            )
        };
        // One socket a question: an answer that was not read to its end is no answer of the next.
        let socket = Socket::new(NETLINK_SOCK_DIAG).with_context(asking)?;
        socket
            .send(&self.question(family, id), 0)
            .with_context(asking)?;
        let mut open = BTreeMap::new();
        let mut answer = Vec::with_capacity(MAX_ANSWER_BYTES);
        loop {
            answer.clear();
            socket.recv(&mut answer, 0).with_context(asking)?;
            for payload in payloads(&answer)? {
                match &payload {
                    NetlinkPayload::Done(done) if done.code == 0 => return Ok(open),
                    NetlinkPayload::Error(error)
                        if family == AF_INET6 && is_absent(error.raw_code()) =>
                    {
                        return Ok(open);
                    }
                    NetlinkPayload::Error(error) => {
                        return Err(error.to_io()).with_context(asking);
                    }
                    NetlinkPayload::Done(_) | NetlinkPayload::Overrun(_) => {
                        bail!("{}: its answer broke off", asking());
                    }
                    _ => {}
                }
                let connection = self.of_port(&payload);
                if let Some((connection, bytes)) =
                    connection.and_then(|it| Some((it, bytes_of(it)?)))
                {
                    open.insert(connection.header.socket_id.cookie, bytes);
                }
            }
        }
    }

    /// The request for the connections of `family` to the port.
    fn question(&self, family: u8, mut id: SocketId) -> Vec<u8> {
        id.destination_port = self.port;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::INFO,
            // Those that are past their connect, and have counters.
            states: StateFlags::ESTABLISHED
                | StateFlags::FIN_WAIT1
                | StateFlags::FIN_WAIT2
                | StateFlags::CLOSE_WAIT
                | StateFlags::LAST_ACK
                | StateFlags::CLOSING,
            socket_id: id,
        });
        let mut message = NetlinkMessage::new(header, request.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// The connection that `payload` is about, where the port is its other end.
    fn of_port<'a>(
        &self,
        payload: &'a NetlinkPayload<SockDiagMessage>,
    ) -> Option<&'a InetResponse> {
        let NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(connection)) = payload
        else {
            return None;
        };
        let is_of_port = connection.header.socket_id.destination_port == self.port;
        is_of_port.then_some(connection)
    }
}

/// Whether the kernel knows nothing of what it was asked for: a machine without IPv6.
fn is_absent(code: i32) -> bool {
    code.checked_neg() == Some(Errno::NOENT.raw_os_error())
}

/// The messages of an answer.
fn payloads(mut answer: &[u8]) -> Result<Vec<NetlinkPayload<SockDiagMessage>>> {
    let mut all = Vec::new();
    while !answer.is_empty() {
        let message = NetlinkMessage::deserialize(answer)
            .map_err(|error| anyhow!("reading what the kernel says of TCP connections: {error}"))?;
        // Each begins at a whole word.
        let length = (message.header.length as usize).next_multiple_of(4);
        answer = answer.get(length..).unwrap_or_default();
        all.push(message.payload);
    }
    Ok(all)
}

/// What a connection carried; absent where it has no counters.
fn bytes_of(connection: &InetResponse) -> Option<Bytes> {
    let info = connection
        .nlas
        .iter()
        .find_map(|attribute| match attribute {
            Nla::TcpInfo(info) => Some(info),
            _ => None,
        })?;
    let counter = |at: usize| {
        let bytes = info.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_ne_bytes(bytes))
    };
    Some(Bytes {
        received: counter(RECEIVED_AT)?,
        sent: counter(ACKED_AT)?,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// What the kernel counts beside the payload: the begin and the end of a connection.
    const EDGES: u64 = 2;

    /// A listener that lives in this process, as a store of this machine.
    struct Store {
        listener: TcpListener,
        port: u16,
    }

    /// Both ends of a connection.
    struct Pair {
        client: TcpStream,
        server: TcpStream,
    }

    impl Store {
        fn at(address: &str) -> Option<Self> {
            let listener = TcpListener::bind((address, 0)).ok()?;
            let port = listener.local_addr().unwrap().port();
            Some(Self { listener, port })
        }

        fn connect(&self) -> Pair {
            self.connect_to(&self.listener.local_addr().unwrap().ip().to_string())
        }

        fn connect_to(&self, address: &str) -> Pair {
            let client = TcpStream::connect((address, self.port)).unwrap();
            let (server, _) = self.listener.accept().unwrap();
            Pair { client, server }
        }
    }

    impl Pair {
        /// The client sends, and then receives; the answer acknowledges what was sent.
        fn exchange(&mut self, sent: usize, received: usize) {
            let mut got = vec![0; sent.max(received)];
            self.client.write_all(&vec![1; sent]).unwrap();
            self.server.read_exact(&mut got[..sent]).unwrap();
            self.server.write_all(&vec![2; received]).unwrap();
            self.client.read_exact(&mut got[..received]).unwrap();
        }
    }

    #[track_caller]
    fn assert_grew(growth: PortGrowth, sent: u64, received: u64) {
        let is_near = |counted, bytes| (bytes..=bytes + EDGES).contains(&counted);
        assert!(is_near(growth.received_bytes, received), "{growth:?}");
        assert!(is_near(growth.sent_bytes, sent), "{growth:?}");
        assert!(!growth.is_at_least, "{growth:?}");
    }

    #[tokio::test]
    async fn bytes_of_both_families_are_counted_once_each_way() {
        for (listens, connects) in [
            ("127.0.0.1", "127.0.0.1"),
            // A socket of IPv6 that speaks IPv4.
            ("127.0.0.1", "::ffff:127.0.0.1"),
            ("::1", "::1"),
        ] {
            let Some(store) = Store::at(listens) else {
                assert_eq!(listens, "::1", "a machine has IPv4");
                continue;
            };
            let port = TcpPort::watch(store.port).unwrap();
            let mut pair = store.connect_to(connects);
            let before = port.read().await.unwrap();
            pair.exchange(10_000, 30_000);
            let between = port.read().await.unwrap();
            assert_grew(between.since(&before), 10_000, 30_000);
            pair.exchange(5, 7);
            let after = port.read().await.unwrap();
            assert_grew(after.since(&between), 5, 7);
            assert_grew(after.since(&before), 10_005, 30_007);
        }
    }

    #[tokio::test]
    async fn a_closed_connection_leaves_all_of_its_bytes() {
        let store = Store::at("127.0.0.1").unwrap();
        let mut open = store.connect();
        open.exchange(100, 200);
        let port = TcpPort::watch(store.port).unwrap();
        let before = port.read().await.unwrap();
        // One that was seen open has moved more since; another was never seen.
        open.exchange(10_000, 20_000);
        drop(open);
        let mut unseen = store.connect();
        unseen.exchange(1_000, 2_000);
        drop(unseen);
        // The kernel reports what was never seen when it comes to it.
        let began = Instant::now();
        let growth = loop {
            let growth = port.read().await.unwrap().since(&before);
            if growth.received_bytes >= 22_000 || began.elapsed() > Duration::from_secs(10) {
                break growth;
            }
        };
        let is_near = |counted: u64, bytes: u64| counted.abs_diff(bytes) <= 2 * EDGES;
        assert!(is_near(growth.received_bytes, 22_000), "{growth:?}");
        assert!(is_near(growth.sent_bytes, 11_000), "{growth:?}");
        assert!(!growth.is_at_least, "{growth:?}");
    }

    #[tokio::test]
    async fn other_ports_and_attempts_to_connect_are_no_connections() {
        let store = Store::at("127.0.0.1").unwrap();
        let port = TcpPort::watch(store.port).unwrap();
        let other = Store::at("127.0.0.1").unwrap();
        other.connect().exchange(100, 100);
        let address = store.listener.local_addr().unwrap();
        drop(store);
        TcpStream::connect(address).unwrap_err();
        std::thread::sleep(Duration::from_millis(50));
        let totals = port.read().await.unwrap();
        assert_eq!((totals.is_seen, totals.bytes), (false, Bytes::default()));
        assert_eq!(totals.port, address.port());
    }

    #[test]
    fn more_reports_than_the_kernel_has_room_for_make_a_lower_bound() {
        let store = Store::at("127.0.0.1").unwrap();
        // No thread takes them.
        let shared = Shared::new(store.port).unwrap();
        shared.reports.set_rx_buf_sz(1_u32).unwrap();
        let before = shared.counted().totals(store.port);
        for _ in 0..50 {
            store.connect().exchange(10, 10);
        }
        let began = Instant::now();
        let mut growth = before.since(&before);
        while !growth.is_at_least && began.elapsed() < Duration::from_secs(10) {
            shared.update().unwrap();
            growth = shared.counted().totals(store.port).since(&before);
        }
        assert!(growth.is_at_least, "{growth:?}");
        assert!(growth.received_bytes < 500, "{growth:?}");
    }

    #[tokio::test]
    async fn the_thread_ends_with_its_reader() {
        let store = Store::at("127.0.0.1").unwrap();
        let port = TcpPort::watch(store.port).unwrap();
        let shared = Arc::downgrade(&port.shared);
        drop(port);
        let began = Instant::now();
        while shared.upgrade().is_some() && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(shared.upgrade().is_none(), "it still counts");
    }
}
