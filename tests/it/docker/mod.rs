//! `launcher = "docker"` against the real Docker Engine: the simulator in containers.
//!
//! Each test has Docker to itself, and asserts that containers, networks and volumes are as before.

mod clean;
mod daemon_faults;
mod faults;
mod full_disks;
mod matrix;
mod proxy;
mod pull;
mod registry;
mod restart;
mod secrets;

use std::process::Command;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use crate::support::{Ended, Lab, wait_until};

static TURN: Mutex<()> = Mutex::new(());
static IMAGES: Once = Once::new();

/// Docker, for one test at a time.
pub(crate) struct Docker {
    _turn: MutexGuard<'static, ()>,
    before: String,
}

/// What `docker ...` prints.
#[track_caller]
pub(crate) fn docker(arguments: &[&str]) -> String {
    let ended = Command::new("docker").args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "docker {arguments:?}: {stderr}");
    String::from_utf8_lossy(&ended.stdout).trim().to_owned()
}

/// Containers, networks and volumes.
fn state() -> String {
    ["ps -a", "network ls", "volume ls"]
        .map(|list| {
            let mut arguments: Vec<&str> = list.split(' ').collect();
            arguments.push("-q");
            let printed = docker(&arguments);
            let mut ids: Vec<&str> = printed.lines().collect();
            ids.sort_unstable();
            format!("{list}: {ids:?}\n")
        })
        .concat()
}

impl Docker {
    /// Makes the images where they are not there, and looks at what there is.
    pub(crate) fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        IMAGES.call_once(|| {
            let script = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/scripts/build-docker-images.sh"
            );
            let made = Command::new(script)
                .arg(env!("CARGO_BIN_EXE_labrun"))
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", Ended::of(&made).stderr);
        });
        Self {
            _turn: turn,
            before: state(),
        }
    }

    /// Nothing was left behind.
    #[track_caller]
    pub(crate) fn assert_as_before(&self) {
        // A killed process's last request may be under way in the daemon.
        wait_until(Duration::from_secs(3), || state() == self.before);
        assert_eq!(state(), self.before, "{}", docker(&["ps", "-a"]));
    }
}

/// A plan for the simulator in a container.
pub(crate) struct DockerPlan<'a> {
    pub matrix: &'a str,
    pub run: &'a str,
    pub server: &'a str,
    /// Keys of [server.sim]; without it a real vLLM would be started.
    pub sim: Option<&'a str>,
    pub image: &'a str,
}

impl Default for DockerPlan<'_> {
    fn default() -> Self {
        Self {
            matrix: r#"tier = ["cpu"]"#,
            run: "",
            server: "",
            sim: Some("start_ms = 1"),
            image: r#"image = "labrun-test/sim""#,
        }
    }
}

/// Goes on in spite of problems that are foretold: the tests are about what comes of them.
const FORCED: [&str; 4] = ["plan.toml", "--out", "out", "--force"];

impl DockerPlan<'_> {
    pub(crate) fn text(&self) -> String {
        let requests = if self.run.contains("requests") {
            ""
        } else {
            "requests = 2"
        };
        let sim = self
            .sim
            .map_or(String::new(), |keys| format!("[server.sim]\n{keys}\n"));
        let pull = if self.image.contains("pull") {
            ""
        } else {
            "pull = \"never\""
        };
        format!(
            "name = \"d\"\nmodel = \"m\"\n[matrix]\n{}\nprompt_len = [512]\ngen_len = [4]\n\
             concurrency = [1]\nlabel = [\"rag\"]\n[run]\n{requests}\nwarmup = 0\ncanaries = 1\ncontrols = false\n{}\n\
             [workload.rag]\nkind = \"shared-prefix\"\n[server]\nlauncher = \"docker\"\n{}\n\
             {pull}\nstop_grace_s = 5\n{}\n{sim}",
            self.matrix, self.run, self.image, self.server
        )
    }

    /// Runs it into the folder `out` of `lab`.
    pub(crate) fn run(&self, lab: &Lab) -> Ended {
        lab.write("plan.toml", &self.text());
        lab.labrun(&FORCED)
    }
}

/// The output of `docker inspect` for the container in this role, once it runs.
#[track_caller]
pub(crate) fn inspect_when_running(role: &str) -> serde_json::Value {
    let filter = format!("label=labrun.role={role}");
    let mut id = String::new();
    let runs = wait_until(Duration::from_secs(30), || {
        id = docker(&["ps", "-q", "--filter", &filter]);
        !id.is_empty()
    });
    assert!(runs, "no container of {role} runs");
    let found: serde_json::Value = serde_json::from_str(&docker(&["inspect", &id])).unwrap();
    found[0].clone()
}
