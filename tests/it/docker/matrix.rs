//! The whole matrix through containers.

use serde_json::Value;

use super::{Docker, DockerPlan};
use crate::support::Lab;

const TIERS: &str = r#"tier = ["baseline", "cpu", "disk", "redis"]"#;

#[test]
#[ignore = "needs Docker"]
fn the_example_plan_is_measured_and_proven_and_leaves_nothing() {
    let docker = Docker::new();
    let lab = Lab::new();
    let plan = concat!(env!("CARGO_MANIFEST_DIR"), "/plans/docker_sim.toml");
    lab.labrun(&[plan, "--out", "out"]).expect_code(0);
    let cells = lab.cells();
    assert_eq!(cells.len(), 4);
    for (path, cell) in &cells {
        assert_eq!(cell["outcome"]["kind"], "completed", "{cell}");
        assert_eq!(cell["source"], "simulated");
        assert_eq!(cell["server"]["launcher"], "docker");
        assert!(cell["server"]["ready_s"].as_f64().unwrap() > 0.0);
        for pass in cell["passes"].as_array().unwrap() {
            assert_eq!(pass["verdict"]["status"], "valid", "{pass}");
        }
        let roles: Vec<&str> = containers(cell)
            .map(|c| c["role"].as_str().unwrap())
            .collect();
        let expected: &[&str] = match cell["coordinates"]["tier"].as_str().unwrap() {
            "redis" => &["sim", "redis"],
            _ => &["sim"],
        };
        assert_eq!(roles, expected);
        for container in containers(cell) {
            assert_eq!(container["exit_code"], 0, "{container}");
            assert_eq!(container["oom_killed"], false);
            assert_eq!(container["restart_count"], 0);
            assert!(
                container["image_id"]
                    .as_str()
                    .unwrap()
                    .starts_with("sha256:")
            );
            let at = |name: &str| container[name].as_str().unwrap().to_owned();
            assert!(at("started_at") < at("finished_at"), "{container}");
        }
        let log = std::fs::read_to_string(path.join("server.stderr.log")).unwrap();
        assert!(
            log.contains("simulated") || log.contains("labrun-sim"),
            "{log}"
        );
    }
    docker.assert_as_before();
}

fn containers(cell: &Value) -> impl Iterator<Item = &Value> {
    cell["server"]["containers"].as_array().unwrap().iter()
}

#[test]
#[ignore = "needs Docker"]
fn a_server_that_cells_share_is_one_container_and_its_redis_is_flushed_between() {
    let docker = Docker::new();
    let lab = Lab::new();
    let plan = DockerPlan {
        matrix: TIERS,
        run: "repeats = 2\nreuse = \"server\"\norder = \"grouped\"",
        server: "redis_image = \"labrun-test/redis\"",
        ..DockerPlan::default()
    };
    plan.run(&lab).expect_code(0);
    let cells = lab.cells();
    assert_eq!(cells.len(), 8);
    let reused = cells
        .iter()
        .filter(|(_, cell)| cell["server"]["reused"] == true);
    assert_eq!(reused.count(), 4, "one start a tier");
    for (_, cell) in &cells {
        assert_eq!(cell["passes"][0]["verdict"]["status"], "valid", "{cell}");
    }
    docker.assert_as_before();
}

#[test]
#[ignore = "needs Docker"]
fn a_container_gets_what_the_plan_sets_and_is_on_this_machine_alone() {
    let docker = Docker::new();
    let lab = Lab::new();
    let shared = lab.write("shared/file", "x");
    let server = format!(
        "mounts = [\"{}:/data:ro\"]\nipc = \"private\"\nshm_size = \"128MiB\"\nuser = \"0:0\"\n\
         cpuset = \"0\"\nmemory = \"512MiB\"\nulimits = {{ memlock = 65536, nofile = 4096 }}\n\
         env = {{ OMP_NUM_THREADS = \"3\" }}",
        shared.parent().unwrap().display()
    );
    let plan = DockerPlan {
        matrix: "tier = [\"disk\"]",
        run: "requests = 400",
        server: &server,
        sim: Some("start_ms = 1"),
        ..DockerPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    let running = lab.command(&super::FORCED).spawn().unwrap();
    let mut running = crate::support::Kill(running);
    let found = super::inspect_when_running("sim");
    let host = &found["HostConfig"];
    assert_eq!(host["IpcMode"], "private");
    assert_eq!(host["ShmSize"], 128 << 20);
    assert_eq!(host["Memory"], 512 << 20);
    assert_eq!(host["CpusetCpus"], "0");
    assert_eq!(host["Ulimits"].as_array().unwrap().len(), 2);
    let binding = &host["PortBindings"]["8000/tcp"][0];
    assert_eq!(binding["HostIp"], "127.0.0.1");
    let config = &found["Config"];
    assert_eq!(config["User"], "0:0");
    let env: Vec<&str> = config["Env"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        env.contains(&"PYTHONHASHSEED=0") && env.contains(&"OMP_NUM_THREADS=3"),
        "{env:?}"
    );
    // The image sets LMCACHE_STRAY; the process does not have it.
    let pid = &found["State"]["Pid"];
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains("PYTHONHASHSEED=0"), "{environment}");
    assert!(!environment.contains("LMCACHE_STRAY"), "{environment}");
    let labels = config["Labels"].as_object().unwrap();
    for name in ["run", "cell", "owner", "version"] {
        assert!(labels.contains_key(&format!("labrun.{name}")), "{labels:?}");
    }
    let mounts = found["Mounts"].to_string();
    for mounted in ["/run/labrun/lmcache.yaml", "/data", "scratch"] {
        assert!(mounts.contains(mounted), "{mounted}: {mounts}");
    }
    let yaml = found["Mounts"].as_array().unwrap().iter();
    let yaml = yaml
        .clone()
        .find(|m| m["Destination"] == "/run/labrun/lmcache.yaml")
        .unwrap();
    assert_eq!(yaml["RW"], false);
    // Two signals end it at once.
    for _ in 0..2 {
        let id = running.0.id().to_string();
        std::process::Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(running.0.wait().unwrap().code(), Some(130));
    docker.assert_as_before();
}
