//! How the terminal shows keys such as Ctrl-C. Its `^C` would stand behind the live line and move the cursor
//! below it: the line would stay on the screen for good.

use std::io::stderr;

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcgetpgrp, tcsetattr};

/// A terminal that does not write `^C` where it is typed, until this is dropped.
#[derive(Debug)]
pub(super) struct HiddenKeys(());

impl HiddenKeys {
    /// Hides the keys, unless they are hidden already or the terminal is not ours to change.
    pub(super) fn begin() -> Option<Self> {
        show(false).then_some(Self(()))
    }
}

impl Drop for HiddenKeys {
    fn drop(&mut self) {
        show(true);
    }
}

/// Shows or hides keys; returns whether that changed anything. A process in the background must not
/// change the terminal: it would be stopped.
fn show(shown: bool) -> bool {
    let terminal = stderr();
    if tcgetpgrp(&terminal).ok() != Some(getpgrp()) {
        return false;
    }
    let Ok(mut modes) = tcgetattr(&terminal) else {
        return false;
    };
    if modes.local_modes.contains(LocalModes::ECHOCTL) == shown {
        return false;
    }
    modes.local_modes.set(LocalModes::ECHOCTL, shown);
    tcsetattr(&terminal, OptionalActions::Now, &modes).is_ok()
}
