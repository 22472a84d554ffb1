//! A real vLLM and a real LMCache server in containers, as `scripts/install-real-stack.sh` and
//! `scripts/build-docker-images.sh` make them: their folders are mounted read-only into a plain Debian.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::docker::Docker;
use crate::real_stack::stack;
use crate::support::Lab;

const PLAN: &str = r#"
name = "docker_real"
model = "tiny-llama"
[matrix]
tier = ["baseline", "cpu", "disk", "redis"]
prompt_len = [1056]
gen_len = [8]
concurrency = [2]
label = ["rag"]
[run]
controls = false
overwrite_gpu = false
requests = 6
order = "grouped"
reuse = "server"
[workload.rag]
kind = "shared-prefix"
question_len = 32
[tier.cpu]
max_local_cpu_size = 1.0
[tier.disk]
max_local_cpu_size = 1.0
extra_config = { use_odirect = true }
[tier.redis]
max_local_cpu_size = 1.0
[server]
launcher = "docker"
image = "labrun-test/python"
redis_image = "labrun-test/redis"
pull = "never"
command = ["@VENV@/bin/vllm", "serve"]
lmcache_command = ["@VENV@/bin/lmcache", "server"]
lmcache = "multi-process"
mounts = ["@STACK@:@STACK@:ro"@PYTHON@]
shm_size = "3GiB"
prompt_token_ids = [10, 760]
ready_timeout_s = 900
[server.args]
dtype = "float32"
max-model-len = 8192
max-num-seqs = 8
enforce-eager = true
[server.lmcache_args]
supported-transfer-mode = "auto"
l1-use-lazy = false
[server.env]
HF_HUB_OFFLINE = "1"
TRANSFORMERS_OFFLINE = "1"
VLLM_CPU_KVCACHE_SPACE = "2"
VLLM_CPU_OMP_THREADS_BIND = "nobind"
OMP_NUM_THREADS = "1"
"#;

/// The Python that the stack was made with, where it is not the image's own.
fn python(stack: &Path) -> Option<PathBuf> {
    let config = std::fs::read_to_string(stack.join("venv/pyvenv.cfg")).unwrap();
    let home = config
        .lines()
        .find_map(|line| line.strip_prefix("home = "))
        .unwrap();
    let prefix = Path::new(home.trim()).parent().unwrap().to_owned();
    (prefix != Path::new("/usr")).then_some(prefix)
}

fn plan(stack: &Path) -> String {
    let venv = stack.join("venv");
    let python = python(stack).map_or(String::new(), |prefix| {
        format!(", \"{0}:{0}:ro\"", prefix.display())
    });
    PLAN.replace("@VENV@", &venv.display().to_string())
        .replace("@STACK@", &stack.display().to_string())
        .replace("@PYTHON@", &python)
}

#[test]
#[ignore = "needs Docker and scripts/install-real-stack.sh, and takes minutes"]
fn docker_real_stack() {
    let docker = Docker::new();
    let lab = Lab::new();
    lab.write("plan.toml", &plan(&stack()));
    let config = stack().join("labrun.toml");
    let arguments = [
        "plan.toml",
        "--config",
        config.to_str().unwrap(),
        "--out",
        "out",
    ];
    let ended = lab.labrun(&arguments);
    let cells = lab.cells();
    for (_, cell) in &cells {
        assert_eq!(
            cell["outcome"]["kind"], "completed",
            "{:#}",
            cell["outcome"]
        );
    }
    let ended = ended.expect_code(0);
    assert!(!ended.stdout.contains("imulated"), "{}", ended.stdout);
    assert_eq!(cells.len(), 4);
    for (path, cell) in &cells {
        assert_eq!(cell["source"], "measured");
        let tier = cell["coordinates"]["tier"].as_str().unwrap();
        let roles: Vec<&str> = containers(cell)
            .iter()
            .map(|c| c["role"].as_str().unwrap())
            .collect();
        let expected: &[&str] = match tier {
            "baseline" => &["vllm"],
            "redis" => &["vllm", "lmcache", "redis"],
            _ => &["vllm", "lmcache"],
        };
        assert_eq!(roles, expected, "the engine ends first");
        for pass in cell["passes"].as_array().unwrap() {
            assert_eq!(pass["verdict"]["status"], "valid", "{tier}: {pass:#}");
        }
        if tier == "disk" {
            let warm = &cell["passes"][1]["evidence"];
            let needed = warm["external_tokens"].as_f64().unwrap()
                * warm["kv_bytes_per_token"].as_f64().unwrap();
            let read = warm["disk_read_bytes"].as_f64().unwrap();
            assert!(
                (read / needed - 1.0).abs() < 0.05,
                "{read} bytes read for {needed}"
            );
        }
        let log = std::fs::metadata(path.join("server.log")).unwrap().len();
        assert!(log > 0, "{} has no server log", path.display());
    }
    docker.assert_as_before();
}

fn containers(cell: &Value) -> &Vec<Value> {
    cell["server"]["containers"].as_array().unwrap()
}
