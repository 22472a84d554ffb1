//! Waking at an instant, to the microsecond.
//!
//! The runtime's timer counts whole milliseconds and rounds up, which would make every open-loop
//! send half a millisecond late on average. A kernel timer on the runtime's own event queue wakes
//! it within microseconds, at the cost of one descriptor.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// Which clock a load waits by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timer {
    /// A kernel timer: precise.
    #[default]
    Precise,
    /// The runtime's timer: whole milliseconds, and virtual where a test pauses time.
    Runtime,
}

/// A timer that is set again for each wait.
#[derive(Debug)]
pub(crate) enum Alarm {
    Precise(AsyncFd<OwnedFd>),
    Runtime,
}

impl Alarm {
    /// An alarm; must be made inside a runtime.
    pub(crate) fn new(timer: Timer) -> io::Result<Self> {
        if timer == Timer::Runtime {
            return Ok(Self::Runtime);
        }
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: an `OwnedFd` is open and names the same file for as long as the `AsyncFd` has it,
        // which is until both are dropped.
        let registered = unsafe { AsyncFd::register(descriptor) };
        Ok(Self::Precise(registered?))
    }

    /// Returns at `instant`, or at once if that is past.
    pub(crate) async fn wait_until(&self, instant: Instant) {
        let Self::Precise(descriptor) = self else {
            return sleep_until(instant).await;
        };
        let left = instant.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if set(descriptor, left).is_err() {
            return sleep_until(instant).await;
        }
        // An earlier wait may have been dropped with its wake-up pending: the time decides.
        while Instant::now() < instant {
            let Ok(mut ready) = descriptor.readable().await else {
                return sleep_until(instant).await;
            };
            let mut expirations = [0_u8; 8];
            let read = ready.try_io(|inner| Ok(rustix::io::read(inner, &mut expirations)?));
            // Not expired yet: `try_io` has cleared the readiness, and the loop waits again.
            let _not_yet = read.is_err();
        }
    }
}

/// Makes the timer expire `left` from now, once.
fn set(descriptor: &AsyncFd<OwnedFd>, left: Duration) -> io::Result<()> {
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let value = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
    let once = Itimerspec {
        it_interval: zero,
        it_value: value,
    };
    timerfd_settime(descriptor, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_never_wakes_early_and_can_be_set_again() {
        let alarm = Alarm::new(Timer::Precise).unwrap();
        for micros in [300, 0, 1500] {
            let until = Instant::now() + Duration::from_micros(micros);
            alarm.wait_until(until).await;
            assert!(Instant::now() >= until);
        }
        let long = Instant::now() + Duration::from_secs(60);
        let dropped = tokio::time::timeout(Duration::from_millis(2), alarm.wait_until(long));
        assert!(
            dropped.await.is_err(),
            "a wait that is dropped leaves the alarm usable"
        );
        alarm
            .wait_until(Instant::now() + Duration::from_micros(200))
            .await;
    }
}
