//! One writer a run folder. The kernel holds the lock (flock(2)) and gives it back when its owner
//! ends, however it ends; the file names the owner, for whoever is refused.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::bounded;
pub(crate) use crate::record::whole::LOCK_FILE;
use crate::record::whole::STALE_AFTER;

/// How often a lock that another has is tried again.
const TRIES: u32 = 5;

/// The longest description of an owner.
const MAX_LOCK_BYTES: u64 = 64 << 10;

/// How often the owner touches the file, for machines whose kernels do not share locks.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Who holds a run folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Its process.
    pub pid: u32,
    /// Its machine.
    pub host: String,
    /// Since when, RFC 3339.
    pub since: String,
}

impl Owner {
    /// This process.
    pub(crate) fn of_this_process() -> Self {
        Self {
            pid: std::process::id(),
            host: host(),
            since: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        }
    }
}

fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// A run folder that only this process writes to, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    file: File,
    /// Dropped to end the heartbeat.
    stop: Option<Sender<()>>,
    heart: Option<JoinHandle<()>>,
    /// The owner that was gone without giving the folder back.
    pub stale: Option<Owner>,
}

impl Lock {
    /// Takes the folder, which must exist, or reports who has it.
    pub(crate) fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        let mut tries = 0;
        loop {
            let mut file = bounded::open_to_write(&path)
                .with_context(|| format!("opening its `{LOCK_FILE}`"))
                .with_context(|| {
                    format!("cannot write in the run folder `{}`", folder.display())
                })?;
            let taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
            let owner = read_owner(&mut file);
            match taken {
                Ok(()) => {}
                // Whoever looks whether a run goes on holds it for a moment.
                Err(error) if error == rustix::io::Errno::WOULDBLOCK && tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
                Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
                    return Err(refusal(folder, owner.as_ref()));
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("locking `{}`", path.display()));
                }
            }
            // Whoever gave it back meanwhile removed the file; a lock on that one guards nothing.
            let still_there = fs::metadata(&path)
                .is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
            if !still_there {
                continue;
            }
            if let Some(owner) = owner.as_ref().filter(|owner| owner.host != host()) {
                refuse_if_it_beats(folder, &file, owner)?;
            }
            return Self::own(path, file, owner);
        }
    }

    fn own(path: PathBuf, mut file: File, stale: Option<Owner>) -> Result<Self> {
        let text = serde_json::to_string(&Owner::of_this_process())?;
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{text}"));
        written.with_context(|| format!("writing `{}`", path.display()))?;
        let (stop, stopped) = channel();
        let beating = file.try_clone()?;
        let heart = std::thread::spawn(move || {
            while stopped.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                // Only a hint to other machines; the kernel's lock is what counts here.
                let _unwritten = beating.set_modified(SystemTime::now());
            }
        });
        Ok(Self {
            path,
            file,
            stop: Some(stop),
            heart: Some(heart),
            stale,
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(heart) = self.heart.take() {
            let _panicked = heart.join();
        }
        // Removed while it is locked, so that nobody locks a file that is about to go.
        let _absent = fs::remove_file(&self.path);
        let _unlocked = flock(&self.file, FlockOperation::Unlock);
    }
}

fn read_owner(file: &mut File) -> Option<Owner> {
    let mut text = String::new();
    file.take(MAX_LOCK_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn refusal(folder: &Path, owner: Option<&Owner>) -> anyhow::Error {
    let who = owner.map_or_else(String::new, |owner| {
        format!(
            ": process {} on {}, since {}",
            owner.pid, owner.host, owner.since
        )
    });
    anyhow!(
        "another labrun writes to `{}`{who}; wait for it, or name another folder with --out",
        folder.display()
    )
}

/// Another machine's lock may be unknown to this kernel: its heartbeat shows whether it lives.
fn refuse_if_it_beats(folder: &Path, file: &File, owner: &Owner) -> Result<()> {
    let touched = file.metadata()?.modified()?;
    let age = SystemTime::now().duration_since(touched);
    if age.is_ok_and(|age| age >= STALE_AFTER) {
        return Ok(());
    }
    bail!(
        "process {} on {} had `{}` less than {} s ago and this machine cannot see whether it still \
         runs; wait that long, or remove `{}` if it is gone",
        owner.pid,
        owner.host,
        folder.display(),
        STALE_AFTER.as_secs(),
        folder.join(LOCK_FILE).display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        assert_eq!(first.stale, None);
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(error.contains(&format!(": process {pid} on ")), "{error}");
        drop(first);
        assert!(!dir.path().join(LOCK_FILE).exists());
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_link_in_the_place_of_the_lock_is_refused_and_its_target_stays() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(LOCK_FILE)).unwrap();
        let error = format!("{:#}", Lock::take(dir.path()).unwrap_err());
        assert!(
            error.ends_with("opening its `.lock`: it is a link; remove it"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn a_lock_whose_owner_is_gone_is_taken_over_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let gone = Owner {
            pid: 1,
            ..Owner::of_this_process()
        };
        let text = serde_json::to_string(&gone).unwrap();
        fs::write(dir.path().join(LOCK_FILE), text).unwrap();
        assert_eq!(Lock::take(dir.path()).unwrap().stale, Some(gone));
        fs::write(dir.path().join(LOCK_FILE), "torn {").unwrap();
        assert_eq!(Lock::take(dir.path()).unwrap().stale, None);
    }

    #[test]
    fn another_machines_lock_is_stale_only_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        let far = Owner {
            host: "elsewhere".to_owned(),
            ..Owner::of_this_process()
        };
        fs::write(&path, serde_json::to_string(&far).unwrap()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("on elsewhere had"), "{error}");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - STALE_AFTER).unwrap();
        assert_eq!(Lock::take(dir.path()).unwrap().stale, Some(far));
    }
}
