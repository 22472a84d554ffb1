//! A unix socket between labrun and the daemon, to cut: the machine's own daemon stays.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the proxy does with new connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes them on.
    Open,
    /// Accepts them and never answers.
    Silent,
    /// Breaks them at once.
    Cut,
}

/// The proxy; it ends with the test.
pub(crate) struct Proxy {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

struct State {
    mode: Mode,
    streams: Vec<UnixStream>,
}

impl Proxy {
    pub(crate) fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let state = Arc::new(Mutex::new(State {
            mode: Mode::Open,
            streams: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let mut state = shared.lock().unwrap();
                match state.mode {
                    Mode::Cut => drop(client),
                    Mode::Silent => state.streams.push(client),
                    Mode::Open => {
                        let daemon = UnixStream::connect("/var/run/docker.sock").unwrap();
                        pump(client.try_clone().unwrap(), daemon.try_clone().unwrap());
                        pump(daemon.try_clone().unwrap(), client.try_clone().unwrap());
                        state.streams.extend([client, daemon]);
                    }
                }
            }
        });
        Self {
            socket: socket.to_owned(),
            state,
        }
    }

    /// For `DOCKER_HOST`.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Changes what happens to new connections; cutting breaks those that there are.
    pub(crate) fn set(&self, mode: Mode) {
        let mut state = self.state.lock().unwrap();
        state.mode = mode;
        if mode == Mode::Cut {
            for stream in state.streams.drain(..) {
                let _gone = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Away for a while, and back.
    pub(crate) fn away_for(&self, time: Duration) {
        self.set(Mode::Cut);
        thread::sleep(time);
        self.set(Mode::Open);
    }
}

fn pump(mut from: UnixStream, mut to: UnixStream) {
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    if to.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            }
        }
        let _gone = to.shutdown(Shutdown::Write);
    });
}
