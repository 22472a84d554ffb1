//! Which labrun a server, a folder or a container belongs to, and whether that labrun is gone.

use std::fs;

use super::leftovers::start_time;

/// A labrun, identified by its pid and four more facts: a pid may be reused (start time), and it means
/// another process in another PID namespace, on another machine or after a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner<'a> {
    pid: u32,
    started: u64,
    namespace: &'a str,
    /// Host and boot; absent in what labrun 0.1 made.
    place: Option<(&'a str, &'a str)>,
}

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs, or that cannot be known from here: what it made is left alone.
    MayLive,
    /// It is gone for certain.
    Gone,
    /// It belongs to an earlier boot of this machine.
    EarlierBoot,
    /// Its name does not include its machine.
    UnknownMachine,
    /// It belongs to another machine.
    OtherMachine,
}

/// The name of this labrun: `pid-start-namespace-place`.
pub(crate) fn of_this_process() -> String {
    let pid = std::process::id();
    let started = start_time(pid).unwrap_or(0);
    let (host, boot) = here();
    format!("{pid}-{started}-{}-{host}{boot}", namespace())
}

/// Whether the labrun called `owner` is gone. The caller found the name on something that only this
/// machine can have: a process, a file in its memory, a container of its own daemon.
pub(crate) fn is_gone(owner: &str) -> bool {
    let Some(owner) = Owner::read(owner) else {
        return false;
    };
    let (host, boot) = here();
    owner.place.is_none_or(|place| place == (&host, &boot)) && owner.is_gone()
}

/// What is known of `owner` by the name of a folder on a disk that machines may share.
pub(crate) fn fate(owner: &str) -> Fate {
    let Some(owner) = Owner::read(owner) else {
        return Fate::MayLive;
    };
    let (host, boot) = here();
    match owner.place {
        None => Fate::UnknownMachine,
        Some((of, _)) if of != host => Fate::OtherMachine,
        Some((_, of)) if of != boot => Fate::EarlierBoot,
        Some(_) if owner.is_gone() => Fate::Gone,
        Some(_) => Fate::MayLive,
    }
}

/// Whether a process that started at `started`, clock ticks since boot, can be one of `owner`'s: none is
/// older than the labrun that started it.
pub(crate) fn can_own(owner: &str, started: u64) -> bool {
    Owner::read(owner).is_some_and(|owner| started >= owner.started)
}

impl<'a> Owner<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split('-');
        let pid = parts.next()?.parse().ok()?;
        let started = parts.next()?.parse().ok()?;
        let namespace = parts.next()?;
        let place = match parts.next() {
            None => None,
            Some(place) if place.len() == 2 * PLACE_DIGITS && place.is_ascii() => {
                Some(place.split_at(PLACE_DIGITS))
            }
            Some(_) => return None,
        };
        Some(Self {
            pid,
            started,
            namespace,
            place,
        })
    }

    fn is_gone(&self) -> bool {
        self.namespace == namespace() && start_time(self.pid) != Some(self.started)
    }
}

/// Digits of a host's and of a boot's name.
const PLACE_DIGITS: usize = 10;

/// This machine and its start, as names hold them. Machines that were cloned share an id and seldom a
/// name.
fn here() -> (String, String) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    let host = format!("{name}\n{}", read("/etc/machine-id").trim());
    let boot = read("/proc/sys/kernel/random/boot_id");
    let short = |text: &str| blake3::hash(text.as_bytes()).to_hex()[..PLACE_DIGITS].to_owned();
    (short(&host), short(boot.trim()))
}

/// The number of this process's PID namespace (`pid:[4026531836]`, namespaces(7)).
fn namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect();
    digits(&link.to_string_lossy())
}

/// An owner that is gone: its pid is above the kernel's highest.
#[cfg(test)]
pub(crate) fn gone() -> String {
    let (host, boot) = here();
    format!("4194304-1-{}-{host}{boot}", namespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_owner_of_this_machine_boot_and_namespace_is_known_to_be_gone() {
        let (host, boot) = here();
        let space = namespace();
        let other = "0".repeat(PLACE_DIGITS);
        for (owner, expected, gone_here) in [
            (of_this_process(), Fate::MayLive, false),
            (gone(), Fate::Gone, true),
            (format!("4194304-1-7-{host}{boot}"), Fate::MayLive, false),
            (
                format!("4194304-1-{space}-{host}{other}"),
                Fate::EarlierBoot,
                false,
            ),
            (
                format!("4194304-1-{space}-{other}{boot}"),
                Fate::OtherMachine,
                false,
            ),
            (format!("4194304-1-{space}"), Fate::UnknownMachine, true),
            (format!("4194304-1-{space}-x"), Fate::MayLive, false),
            ("nonsense".to_owned(), Fate::MayLive, false),
        ] {
            assert_eq!(fate(&owner), expected, "{owner}");
            assert_eq!(is_gone(&owner), gone_here, "{owner}");
        }
    }

    #[test]
    fn no_process_is_older_than_its_owner() {
        assert!(can_own("5-100-1", 100) && !can_own("5-100-1", 99) && !can_own("x", 100));
    }
}
