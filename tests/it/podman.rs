//! `launcher = "docker"` against Podman's Docker-compatible socket.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::docker::registry::program_root;
use crate::support::{Ended, Kill, Lab, wait_until};

const PLAN: &str = r#"
name = "podman"
model = "m"
[matrix]
tier = @TIERS@
prompt_len = [512]
gen_len = [4]
concurrency = [1]
label = ["rag"]
[run]
requests = 2
warmup = 0
canaries = 1
controls = false
states = ["cold", "tier", "restart"]
[workload.rag]
kind = "shared-prefix"
[server]
launcher = "docker"
image = "labrun-test/labrun"
redis_image = "labrun-test/redis-server"
pull = "never"
@MORE@
ulimits = { nofile = 4096, nproc = 1024 }
[server.sim]
start_ms = 1
"#;

/// Podman with storage of its own, in `lab`.
struct Podman {
    lab: Lab,
    _service: Kill,
}

fn podman(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = Command::new("podman");
    for (option, folder) in [("--root", "storage"), ("--runroot", "run")] {
        command.arg(option).arg(lab.path(folder));
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

impl Podman {
    fn start() -> Self {
        let lab = Lab::new();
        let redis = PathBuf::from("/usr/bin/redis-server");
        for program in [Path::new(env!("CARGO_BIN_EXE_labrun")), &redis] {
            let name = program.file_name().unwrap().to_str().unwrap();
            let folder = lab.path(name);
            std::fs::create_dir_all(&folder).unwrap();
            program_root(&folder, program.to_str().unwrap());
            let file = "FROM scratch\nENV PATH=/usr/local/bin\nCOPY program /\n";
            std::fs::write(folder.join("Dockerfile"), file).unwrap();
            let tag = format!("labrun-test/{name}");
            let mut build = podman(&lab, &["build", "-q", "-t", &tag]);
            let built = build.arg(&folder).output().unwrap();
            assert!(built.status.success(), "{}", Ended::of(&built).stderr);
        }
        let socket = format!("unix://{}", lab.path("podman.sock").display());
        let mut service = podman(&lab, &["system", "service", "--time=0", &socket]);
        let service = Kill(service.spawn().unwrap());
        let listens = || lab.path("podman.sock").exists();
        assert!(wait_until(Duration::from_secs(20), listens));
        Self {
            lab,
            _service: service,
        }
    }

    fn run(&self, out: &str, tiers: &str, more: &str) -> Ended {
        let plan = PLAN.replace("@TIERS@", tiers).replace("@MORE@", more);
        self.lab.write("plan.toml", &plan);
        let mut command = self.lab.command(&["plan.toml", "--out", out]);
        let host = format!("unix://{}", self.lab.path("podman.sock").display());
        Ended::of(&command.env("DOCKER_HOST", host).output().unwrap())
    }

    #[track_caller]
    fn assert_nothing_is_left(&self) {
        let left = podman(&self.lab, &["ps", "-aq"]).output().unwrap();
        assert_eq!(Ended::of(&left).stdout, "");
        let networks = podman(&self.lab, &["network", "ls"]).output().unwrap();
        let networks = Ended::of(&networks).stdout;
        assert!(!networks.contains("labrun"), "{networks}");
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Its storage is mounted by now.
        let _done = podman(&self.lab, &["rm", "-af"]).status();
        let _done = podman(&self.lab, &["rmi", "-af"]).status();
        let _done = Command::new("umount")
            .arg(self.lab.path("storage/overlay"))
            .status();
    }
}

#[test]
#[ignore = "needs Podman 4, redis-server, and root"]
fn tiers_and_a_redis_of_their_own_are_measured_in_podman_and_gpus_are_refused() {
    let podman = Podman::start();
    podman
        .run("out", r#"["baseline", "cpu", "disk", "redis"]"#, "")
        .expect_code(0);
    let cells = podman.lab.cells();
    assert_eq!(cells.len(), 4);
    for (_, cell) in &cells {
        for pass in cell["passes"].as_array().unwrap() {
            assert_eq!(pass["verdict"]["status"], "valid", "{pass}");
        }
        for container in cell["server"]["containers"].as_array().unwrap() {
            assert_eq!(container["exit_code"], 0, "{container}");
        }
    }
    podman.assert_nothing_is_left();

    podman
        .run("gpus", r#"["cpu"]"#, "gpus = \"all\"")
        .expect_code(1);
    let cell = podman.lab.cells_of("gpus").remove(0).1;
    let error = cell["outcome"]["error"].as_str().unwrap();
    assert!(error.contains("took no notice of `gpus`"), "{error}");
    podman.assert_nothing_is_left();
}
