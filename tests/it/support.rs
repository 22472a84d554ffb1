//! A scratch folder and labrun in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A folder of its own for one test.
pub(crate) struct Lab {
    folder: TempDir,
}

/// A plan for the simulator that runs in a second or two; `@AXES@` and `@MORE@` are filled in.
const SIM_PLAN: &str = r#"
name = "t"
model = "m"
[matrix]
tier = @TIERS@
prompt_len = [1024]
gen_len = [4]
concurrency = [@CONCURRENCY@]
label = ["rag"]
[run]
requests = @REQUESTS@
warmup = 1
canaries = 1
[workload.rag]
kind = "shared-prefix"
[server]
launcher = "sim"
@SERVER@
[server.sim]
start_ms = @START_MS@
@SIM@
"#;

/// What a simulator plan of a test differs in.
pub(crate) struct SimPlan<'a> {
    pub tiers: &'a str,
    pub concurrency: &'a str,
    pub requests: u32,
    pub server: &'a str,
    pub start_ms: u32,
    pub sim: &'a str,
}

impl Default for SimPlan<'_> {
    fn default() -> Self {
        Self {
            tiers: r#"["baseline", "cpu"]"#,
            concurrency: "1",
            requests: 3,
            server: "",
            start_ms: 1,
            sim: "",
        }
    }
}

impl SimPlan<'_> {
    pub(crate) fn text(&self) -> String {
        SIM_PLAN
            .replace("@TIERS@", self.tiers)
            .replace("@CONCURRENCY@", self.concurrency)
            .replace("@REQUESTS@", &self.requests.to_string())
            .replace("@SERVER@", self.server)
            .replace("@START_MS@", &self.start_ms.to_string())
            .replace("@SIM@", self.sim)
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The shared library `name` in the folder, from a C file of `tests/it`, by the C compiler that
    /// builds labrun.
    pub(crate) fn c_library(&self, name: &str, source: &str) -> PathBuf {
        let library = self.path(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/it")
            .join(source);
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .expect("a C compiler");
        assert!(built.status.success(), "{built:?}");
        library
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// labrun in this folder, with none of the caller's settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_labrun").as_ref(), arguments)
    }

    /// The same, of a labrun that has another name.
    pub(crate) fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LABRUN_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn labrun(&self, arguments: &[&str]) -> Ended {
        Ended::of(&self.command(arguments).output().unwrap())
    }

    /// Runs a simulator plan into the folder `out`.
    pub(crate) fn run_sim(&self, plan: &SimPlan<'_>) -> Ended {
        self.write("plan.toml", &plan.text());
        self.labrun(&["plan.toml", "--out", "out"])
    }

    /// Runs `plan.toml` as two shards, into the folders that it returns.
    pub(crate) fn run_halves(&self) -> [&'static str; 2] {
        for (shard, out) in [("1/2", "part1"), ("2/2", "part2")] {
            self.labrun(&["plan.toml", "--shard", shard, "--out", out])
                .expect_code(0);
        }
        ["part1", "part2"]
    }

    /// Every complete cell's `cell.json`, by folder name.
    pub(crate) fn cells(&self) -> Vec<(PathBuf, serde_json::Value)> {
        self.cells_of("out")
    }

    /// Those of the run in the folder `out`.
    pub(crate) fn cells_of(&self, out: &str) -> Vec<(PathBuf, serde_json::Value)> {
        let Ok(entries) = std::fs::read_dir(self.path(out).join("cells")) else {
            return Vec::new();
        };
        let mut cells: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'))
            .map(|path| {
                let text = std::fs::read(path.join("cell.json")).unwrap();
                (path, serde_json::from_slice(&text).unwrap())
            })
            .collect();
        cells.sort_by_key(|(path, _)| path.clone());
        cells
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Every file below `name`, with its bytes, sorted.
    pub(crate) fn files(&self, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        collect(&self.path(name), &mut found);
        found.sort();
        found
    }

    /// A simulator of the model `m`, and its port.
    pub(crate) fn simulator(&self) -> (Kill, u16) {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut server = self.command(&["sim", "--model", "m", "--port", &port.to_string()]);
        let child = Kill(server.stderr(Stdio::null()).spawn().unwrap());
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(wait_until(Duration::from_secs(20), listens));
        (child, port)
    }

    /// Processes whose command line names this lab's folder: its servers.
    pub(crate) fn servers(&self) -> Vec<String> {
        let folder = self.folder.path().to_string_lossy().into_owned();
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                std::fs::read(entry.path().join("environ"))
                    .ok()
                    .map(|e| (entry, e))
            })
            .filter(|(entry, environment)| {
                let link = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
                let marked = environment.windows(10).any(|part| part == b"LABRUN_RUN");
                marked && link.to_string_lossy().starts_with(&folder)
            })
            .map(|(entry, _)| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Waits until no server of this lab is left.
    #[track_caller]
    pub(crate) fn assert_no_server_is_left(&self) {
        let gone = wait_until(Duration::from_secs(10), || self.servers().is_empty());
        assert!(gone, "left behind: {:?}", self.servers());
    }
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
}

/// Exit code and output of a program.
pub(crate) struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

/// Asks again and again; `false` when the limit is over first.
pub(crate) fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < limit {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    holds()
}

/// A simulator that runs already, of a model `sim`.
pub(crate) struct SimServer {
    pub port: u16,
    _child: Kill,
}

impl SimServer {
    pub(crate) fn start(lab: &Lab) -> Self {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut server = lab.command(&["sim", "--port", &port.to_string()]);
        let child = Kill(server.stderr(Stdio::null()).spawn().unwrap());
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(wait_until(Duration::from_secs(20), listens));
        Self {
            port,
            _child: child,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Ends a child when the test ends, however it ends.
pub(crate) struct Kill(pub Child);

impl Drop for Kill {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}
