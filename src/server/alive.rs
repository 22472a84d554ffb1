//! Shows until when a labrun lived: a file in memory that it writes every second while it may start servers.
//! What carries its mark and began later was started by somebody else.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::leftovers::{MEMORY, Mark, alive_name};
use crate::bounded;

/// How often the file is written.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How much later than the last beat a labrun may have started something: a beat and what the machine may
/// hold it up, seconds.
const SLACK_S: u64 = 2;

/// The most bytes of the file.
const MAX_BYTES: u64 = 64;

/// Beats until it is dropped.
#[derive(Debug)]
pub(crate) struct Alive {
    path: PathBuf,
    /// Dropped to end the heartbeat.
    stop: Option<Sender<()>>,
    heart: Option<JoinHandle<()>>,
}

impl Alive {
    /// Begins to beat for `mark`. Where there is no memory for it, `clean` asks before it ends anything.
    pub(crate) fn begin(mark: &Mark) -> Self {
        let path = Path::new(MEMORY).join(alive_name(mark));
        let (stop, stopped) = channel();
        let file = File::create_new(&path).inspect(beat).ok();
        let heart = file.map(|file| {
            std::thread::spawn(move || {
                while stopped.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                    beat(&file);
                }
            })
        });
        Self {
            path,
            stop: Some(stop),
            heart,
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(heart) = self.heart.take() {
            let _panicked = heart.join();
            let _absent = fs::remove_file(&self.path);
        }
    }
}

fn beat(file: &File) {
    // Overwritten in place: it only ever grows by a digit.
    let _unwritten = file.write_at(now_ticks().to_string().as_bytes(), 0);
}

/// Clock ticks since boot, as `/proc/<pid>/stat` counts them.
fn now_ticks() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let ticks = rustix::param::clock_ticks_per_second();
    now.tv_sec.cast_unsigned() * ticks + now.tv_nsec.cast_unsigned() * ticks / 1_000_000_000
}

/// The latest moment, clock ticks since boot, at which the labrun of the file at `path` can have started
/// anything; unknown where it left no file.
pub(crate) fn last_ticks(path: &Path) -> Option<u64> {
    let text = bounded::read(path, MAX_BYTES).ok()?;
    let beat: u64 = text.parse().ok()?;
    Some(beat + SLACK_S * rustix::param::clock_ticks_per_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::leftovers::start_time;

    #[test]
    fn a_beat_is_on_the_clock_of_processes_and_gone_with_its_labrun() {
        let mut mark = Mark::of_this_process("alive");
        mark.owner.push('x');
        let path = Path::new(MEMORY).join(alive_name(&mark));
        let alive = Alive::begin(&mark);
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let started = start_time(child.id()).unwrap();
        let last = last_ticks(&path).unwrap();
        let slack = SLACK_S * rustix::param::clock_ticks_per_second();
        assert!(
            started <= last && last - slack <= started + 1,
            "{started} {last}"
        );
        drop(alive);
        assert_eq!(last_ticks(&path), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
