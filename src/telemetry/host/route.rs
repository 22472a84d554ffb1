//! Which of this machine's network interfaces the bytes of a Redis go through.

use std::ffi::CStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::Path;
use std::ptr;

/// The loopback, over which a machine reaches every address of its own.
const LOOPBACK: &str = "lo";
/// Redis' port where a URL names none.
const REDIS_PORT: u16 = 6379;

/// The interface on the way to the Redis at `url`, by its kernel name; `None` where there is none (a
/// Unix socket) or it cannot be found. May ask a name server.
pub(crate) fn to_redis(url: &str) -> Option<String> {
    let (host, port) = host_and_port(url)?;
    let address = (host, port).to_socket_addrs().ok()?.next()?;
    to_address(address)
}

/// Host and port of `redis[s]://[user:password@]host[:port][/db]`.
fn host_and_port(url: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "redis" | "rediss") {
        return None;
    }
    let place = rest.split(['/', '?']).next()?;
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    if let Some(inside) = place.strip_prefix('[') {
        let (host, port) = inside.split_once(']')?;
        return Some((host, port_of(port.strip_prefix(':'))?));
    }
    match place.split_once(':') {
        Some((host, port)) => Some((host, port_of(Some(port))?)),
        None => Some((place, REDIS_PORT)),
    }
}

fn port_of(text: Option<&str>) -> Option<u16> {
    text.map_or(Some(REDIS_PORT), |text| text.parse().ok())
}

/// The kernel chooses a source address for `address`: the interface that has it is on the way. A
/// datagram socket that is connected sends nothing.
fn to_address(address: SocketAddr) -> Option<String> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(address).ok()?;
    let source = socket.local_addr().ok()?.ip();
    if source == address.ip() || source.is_loopback() {
        return Some(LOOPBACK.to_owned());
    }
    with_address(source)
}

/// The interface that has the address `wanted`.
fn with_address(wanted: IpAddr) -> Option<String> {
    let mut first: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: it writes a list into `first`, which is freed below, or fails.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return None;
    }
    let (mut at, mut found) = (first, None);
    // SAFETY: the list is the C library's own until it is freed; each entry's name is a C string.
    while let Some(entry) = unsafe { at.as_ref() } {
        if address_of(entry.ifa_addr) == Some(wanted) {
            let name = unsafe { CStr::from_ptr(entry.ifa_name) };
            found = Some(name.to_string_lossy().into_owned());
            break;
        }
        at = entry.ifa_next;
    }
    // SAFETY: `first` came from `getifaddrs` and is not used any more.
    unsafe { libc::freeifaddrs(first) };
    found
}

/// The IP address that `address` holds, if it holds one.
fn address_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: null, or an entry of `getifaddrs`, which is as long as its family says; it is read
    // without relying on how it is aligned.
    unsafe {
        if address.is_null() {
            return None;
        }
        match i32::from(ptr::read_unaligned(address).sa_family) {
            libc::AF_INET => {
                let address: libc::sockaddr_in = ptr::read_unaligned(address.cast());
                Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let address: libc::sockaddr_in6 = ptr::read_unaligned(address.cast());
                Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// This machine's end of the interface of process `pid`, where that lives in a network of its own (a
/// container): what goes to and from it passes there, also from other containers. `None` for a
/// process of this machine's own network, and where it may not be read.
pub(crate) fn of_container(pid: u32) -> Option<String> {
    let process = Path::new("/proc").join(pid.to_string());
    let network = |process: &Path| fs::read_link(process.join("ns/net")).ok();
    if network(&process)? == network(Path::new("/proc/self"))? {
        return None;
    }
    peer_of(
        &process.join("net/dev"),
        &process.join("root/sys/class/net"),
        Path::new("/sys/class/net"),
    )
}

/// The interface in `here` whose index is the peer's of the first interface in `its_table`.
fn peer_of(its_table: &Path, its: &Path, here: &Path) -> Option<String> {
    let table = fs::read_to_string(its_table).ok()?;
    let names = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim());
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
    let is_veth = |name: &&str| {
        // An interface that is its own peer has no other end.
        let (own, peer) = (
            its.join(name).join("ifindex"),
            its.join(name).join("iflink"),
        );
        *name != LOOPBACK && number(&own) != number(&peer)
    };
    let peer = names
        .into_iter()
        .find(is_veth)
        .and_then(|name| number(&its.join(name).join("iflink")))?;
    let entries = fs::read_dir(here).ok()?.flatten();
    let mut names = entries.filter(|entry| number(&entry.path().join("ifindex")) == Some(peer));
    Some(names.next()?.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_and_a_port() {
        for (url, expected) in [
            ("redis://127.0.0.1:6380", Some(("127.0.0.1", 6380))),
            ("redis://me:s3:cret@host:7/2", Some(("host", 7))),
            ("rediss://host", Some(("host", 6379))),
            ("redis://[::1]:9/0", Some(("::1", 9))),
            ("redis://[fe80::1]", Some(("fe80::1", 6379))),
            ("unix:///run/redis.sock", None),
            ("redis://host:port", None),
        ] {
            assert_eq!(host_and_port(url), expected, "{url}");
        }
    }

    #[test]
    fn addresses_of_this_machine_are_reached_over_the_loopback() {
        assert_eq!(to_redis("redis://127.0.0.1:6379").as_deref(), Some("lo"));
        assert_eq!(to_redis("redis://localhost:6379").as_deref(), Some("lo"));
        // Its own address in a network too.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            let own = socket.local_addr().unwrap().ip();
            assert_eq!(to_address((own, 6379).into()).as_deref(), Some("lo"));
        }
    }

    #[test]
    fn a_distant_redis_is_reached_over_the_interface_of_its_route() {
        // A line a route: interface, destination, ...; the default's destination is zero.
        let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
        let routes = table.lines().map(|line| line.split_whitespace());
        let default = routes
            .filter_map(|mut columns| Some((columns.next()?, columns.next()?)))
            .find(|(_, destination)| *destination == "00000000");
        // An address for documentation, which no route is for but the default one.
        let found = to_redis("redis://192.0.2.1:6379");
        assert_eq!(found.as_deref(), default.map(|(interface, _)| interface));
    }

    #[test]
    fn the_loopback_has_its_address() {
        let found = with_address(Ipv4Addr::LOCALHOST.into());
        assert_eq!(found.as_deref(), Some("lo"));
        assert_eq!(with_address("192.0.2.1".parse().unwrap()), None);
    }

    #[test]
    fn a_containers_interface_is_followed_to_this_machines_end() {
        let lab = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = lab.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("dev", "Inter-|\n face |bytes\n    lo: 1 2\n  eth0: 3 4\n");
        for (name, index, link) in [("lo", 1, 1), ("eth0", 2, 17)] {
            write(&format!("its/{name}/ifindex"), &format!("{index}\n"));
            write(&format!("its/{name}/iflink"), &format!("{link}\n"));
        }
        for (name, index) in [("eth0", 2), ("docker0", 3), ("veth5a1", 17)] {
            write(&format!("here/{name}/ifindex"), &format!("{index}\n"));
        }
        let path = |name: &str| lab.path().join(name);
        let found = peer_of(&path("dev"), &path("its"), &path("here"));
        assert_eq!(found.as_deref(), Some("veth5a1"));
    }

    #[test]
    fn a_process_of_this_machines_network_has_no_end_of_its_own() {
        assert_eq!(of_container(std::process::id()), None);
    }
}
