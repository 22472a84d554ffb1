//! `[profile]`: which profilers watch the server while it is measured.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::reader::TableReader;
use super::server::{Launcher, ServerSpec};
use super::value::{boolean, string};

/// What vLLM's own profiler routes start and stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profiler {
    /// The CUDA profiler's range, in which Nsight Systems captures.
    Cuda,
    /// PyTorch's profiler, which writes traces of its own; it also works on a CPU.
    Torch,
}

impl Profiler {
    const NAMED: [(&'static str, Profiler); 2] = [("cuda", Self::Cuda), ("torch", Self::Torch)];

    /// The name that plans and vLLM use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Torch => "torch",
        }
    }
}

/// The long name of the option of `nsys profile` that `word` gives; `word` itself where it is none.
pub(crate) fn option_name(word: &str) -> &str {
    let short = match word.as_bytes() {
        [b'-', letter, ..] => *letter,
        _ => b'-',
    };
    match short {
        b't' => "--trace",
        b'o' => "--output",
        b's' => "--sample",
        b'c' => "--capture-range",
        b'f' => "--force-overwrite",
        _ => word.split_once('=').map_or(word, |(name, _)| name),
    }
}

/// `[profile]`, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileSpec {
    /// Whether the server is started under `nsys profile`.
    pub nsys: bool,
    /// What is started before, and stopped after, each measured window.
    pub profiler: Profiler,
    /// What Nsight Systems traces (`nsys profile --trace`).
    pub trace: Vec<String>,
    /// More arguments of `nsys profile`, as they are.
    pub nsys_args: Vec<String>,
    /// Whether vLLM marks each layer with an NVTX range.
    pub layerwise_nvtx: bool,
}

impl Default for ProfileSpec {
    /// What an empty `[profile]` means.
    fn default() -> Self {
        Self {
            nsys: true,
            profiler: Profiler::Cuda,
            trace: ["cuda", "nvtx"].map(str::to_owned).into(),
            nsys_args: Vec::new(),
            layerwise_nvtx: false,
        }
    }
}

impl ProfileSpec {
    /// Reads `[profile]` for a server that was read before.
    pub fn read(table: &TableReader<'_>, server: &ServerSpec) -> Self {
        let mut spec = Self::default();
        if let Some(located) = table.read("nsys", boolean) {
            spec.nsys = located.value;
        }
        if let Some(located) = table.choice("profiler", &Profiler::NAMED) {
            spec.profiler = located.value;
        }
        let words = |key: &str| {
            let located = table.list(key, string);
            located.map(|located| located.value.into_iter().map(|word| word.value).collect())
        };
        if let Some(trace) = words("trace") {
            spec.trace = trace;
        }
        if let Some(arguments) = words("nsys_args") {
            for (ours, hint) in [
                ("--trace", "say it with `trace` in [profile]"),
                (
                    "--output",
                    "remove it: reports lie in the run's folder, under `profiles`",
                ),
            ] {
                let own = arguments.iter().find(|word| option_name(word) == ours);
                if let Some(word) = own {
                    table.problem(format!("`{word}` in `nsys_args` is labrun's to set"), hint);
                }
            }
            spec.nsys_args = arguments;
        }
        if let Some(located) = table.read("layerwise_nvtx", boolean) {
            spec.layerwise_nvtx = located.value;
        }
        table.finish();
        spec.check(table, server);
        spec
    }

    fn check(&self, table: &TableReader<'_>, server: &ServerSpec) {
        match server.launcher {
            Launcher::Docker if server.docker.as_ref().is_some_and(|spec| spec.simulator) => table
                .problem(
                    "[profile] profiles a server, and the simulator runs no kernels",
                    "remove it, or `simulator`",
                ),
            Launcher::Sim => table.problem(
                "[profile] profiles a server, and the simulator runs no kernels",
                "remove it, or use another `launcher`",
            ),
            Launcher::External if self.nsys || self.layerwise_nvtx => table.problem(
                "an external server runs already: it cannot be put under nsys any more",
                "add `nsys = false`, and start the server with --profiler-config.profiler",
            ),
            _ => {}
        }
        let flag = |name: &str| server.args.get(name).and_then(Value::as_bool);
        if self.layerwise_nvtx && flag("enforce-eager") != Some(true) {
            table.problem(
                "`layerwise_nvtx` shows nothing where CUDA graphs run",
                "add `enforce-eager = true` to [server.args]; the numbers are then of eager mode",
            );
        }
        if self.nsys && self.profiler == Profiler::Torch {
            table.problem(
                "nsys captures in the CUDA profiler's range, which `profiler = \"torch\"` never opens",
                "remove `profiler`, or add `nsys = false`",
            );
        }
        let ours = |name: &&String| {
            name.starts_with("profiler-config") || *name == "enable-layerwise-nvtx-tracing"
        };
        for name in server.args.keys().filter(ours) {
            table.problem(
                format!("`{name}` in [server.args] is set by [profile] too"),
                "remove one",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::Plan;

    fn problems(launcher: &str, args: &str, profile: &str) -> Vec<String> {
        let text = format!(
            "name = \"t\"\nmodel = \"m\"\n[matrix]\ntier = [\"baseline\"]\nprompt_len = [512]\n\
             gen_len = [8]\nconcurrency = [1]\nlabel = [\"rag\"]\n[workload.rag]\n\
             kind = \"shared-prefix\"\n[server]\n{launcher}\n[server.args]\n{args}\n\
             [profile]\n{profile}\n"
        );
        match Plan::parse(&text, "t.toml") {
            Ok(plan) => {
                assert!(plan.variants[0].resolved.server.profile.is_some());
                Vec::new()
            }
            Err(problems) => problems.problems.into_iter().map(|p| p.message).collect(),
        }
    }

    #[test]
    fn what_cannot_be_profiled_is_refused() {
        let process = "launcher = \"process\"";
        let none: [String; 0] = [];
        assert_eq!(problems(process, "", ""), none);
        let eager = "enforce-eager = true";
        assert_eq!(problems(process, eager, "layerwise_nvtx = true"), none);
        assert_eq!(
            problems(process, "", "profiler = \"torch\"\nnsys = false"),
            none
        );
        let external = "launcher = \"external\"\nurl = \"http://h:1\"";
        assert_eq!(problems(external, "", "nsys = false"), none);
        for (server, args, profile, word) in [
            ("launcher = \"sim\"", "", "", "runs no kernels"),
            (external, "", "", "runs already"),
            (process, "", "layerwise_nvtx = true", "CUDA graphs"),
            (process, "", "profiler = \"torch\"", "never opens"),
            (
                process,
                "profiler-config = { profiler = \"cuda\" }",
                "",
                "set by [profile] too",
            ),
            (process, "", "nsis = true", "nsis"),
            (process, "", "nsys_args = [\"-t\", \"osrt\"]", "`-t`"),
            (
                process,
                "",
                "nsys_args = [\"--output=x\"]",
                "labrun's to set",
            ),
        ] {
            let problems = problems(server, args, profile);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(word), "{problems:?}");
        }
    }
}
