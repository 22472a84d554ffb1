//! A server under profilers: its command line, arguments and environment, for the launcher that starts it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::plan::profile_spec::{ProfileSpec, Profiler, option_name};

/// Command-line program of Nsight Systems.
pub(crate) const NSYS: &str = "nsys";

/// How `nsys profile` is called, unless the plan's own arguments override it.
const DEFAULTS: [&str; 7] = [
    "--trace-fork-before-exec=true",
    "--cuda-graph-trace=node",
    "--capture-range=cudaProfilerApi",
    "--capture-range-end=repeat",
    // Backtraces of every thread of vLLM: gigabytes and minutes of writing for seconds of load.
    "--sample=none",
    "--cpuctxsw=none",
    "--force-overwrite=true",
];

/// Name of the folder of reports in a run's folder.
const REPORTS: &str = "profiles";

/// Where the reports of a server go, from its folder `<run>/servers/<number>`, which does not
/// outlive it: `<run>/profiles/server-<number>`, to which profilers add their extensions.
pub(crate) fn reports(server_folder: &Path) -> PathBuf {
    let run = server_folder.ancestors().nth(2).unwrap_or(server_folder);
    let number = server_folder.file_name().unwrap_or_default();
    let mut name = OsString::from("server-");
    name.push(number);
    run.join(REPORTS).join(name)
}

/// The arguments of `vllm serve` that profiling takes. `reports` is an absolute path.
pub(crate) fn vllm_arguments(profile: &ProfileSpec, reports: &Path) -> Vec<String> {
    let config = match profile.profiler {
        Profiler::Cuda => json!({"profiler": "cuda"}),
        Profiler::Torch => json!({"profiler": "torch", "torch_profiler_dir": reports}),
    };
    let mut all = vec!["--profiler-config".to_owned(), config.to_string()];
    if profile.layerwise_nvtx {
        all.push("--enable-layerwise-nvtx-tracing".to_owned());
    }
    all
}

/// The environment that profiling takes.
pub(crate) fn environment(profile: &ProfileSpec) -> &'static [(&'static str, &'static str)] {
    if profile.nsys {
        &[
            // nsys cannot follow workers that are forked after CUDA was touched.
            ("VLLM_WORKER_MULTIPROC_METHOD", "spawn"),
            ("VLLM_NVTX_SCOPES_FOR_PROFILING", "1"),
        ]
    } else {
        &[]
    }
}

/// `line` under `nsys profile`, where the plan asks for it; for a container, `reports` is a path in
/// it. The report holds what runs between /start_profile and /stop_profile, each time anew.
pub(crate) fn wrap(profile: &ProfileSpec, line: Vec<OsString>, reports: &Path) -> Vec<OsString> {
    if !profile.nsys {
        return line;
    }
    let mut wrapped: Vec<OsString> = [NSYS, "profile"].map(OsString::from).into();
    let defaults = DEFAULTS.iter().filter(|option| !is_given(profile, option));
    wrapped.extend(defaults.map(OsString::from));
    wrapped.push(format!("--trace={}", profile.trace.join(",")).into());
    let mut output = OsString::from("--output=");
    output.push(reports);
    wrapped.push(output);
    wrapped.extend(profile.nsys_args.iter().map(OsString::from));
    wrapped.extend(line);
    wrapped
}

/// Whether the plan gives `option` itself: nsys refuses one that is there twice.
fn is_given(profile: &ProfileSpec, option: &str) -> bool {
    let mut given = profile.nsys_args.iter();
    given.any(|own| option_name(own) == option_name(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_wrapped_as_vllm_documents_it() {
        let profile = ProfileSpec {
            nsys_args: vec!["--gpu-metrics-devices=all".to_owned()],
            layerwise_nvtx: true,
            ..ProfileSpec::default()
        };
        let reports = reports(Path::new("/r/run/servers/2"));
        let line = wrap(&profile, vec!["vllm".into(), "serve".into()], &reports);
        let text: Vec<_> = line.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(
            text.join(" "),
            "nsys profile --trace-fork-before-exec=true --cuda-graph-trace=node \
             --capture-range=cudaProfilerApi --capture-range-end=repeat --sample=none \
             --cpuctxsw=none --force-overwrite=true --trace=cuda,nvtx \
             --output=/r/run/profiles/server-2 --gpu-metrics-devices=all vllm serve"
        );
        assert_eq!(
            vllm_arguments(&profile, &reports),
            [
                "--profiler-config",
                "{\"profiler\":\"cuda\"}",
                "--enable-layerwise-nvtx-tracing"
            ]
        );
    }

    #[test]
    fn what_the_plan_gives_itself_is_not_given_twice() {
        let given = [
            "--sample=process-tree",
            "--cuda-graph-trace",
            "graph",
            "-c",
            "none",
        ];
        let profile = ProfileSpec {
            nsys_args: given.map(str::to_owned).into(),
            ..ProfileSpec::default()
        };
        let line = wrap(&profile, vec!["vllm".into()], Path::new("/x"));
        let text: Vec<_> = line.iter().map(|word| word.to_string_lossy()).collect();
        let text = text.join(" ");
        assert_eq!(text.matches("--sample").count(), 1, "{text}");
        assert_eq!(text.matches("--cuda-graph-trace").count(), 1, "{text}");
        assert!(
            !text.contains("--capture-range="),
            "it is there as -c: {text}"
        );
        assert!(text.contains("--cpuctxsw=none"), "{text}");
    }

    #[test]
    fn without_nsys_the_line_stays() {
        let profile = ProfileSpec {
            nsys: false,
            profiler: Profiler::Torch,
            ..ProfileSpec::default()
        };
        assert_eq!(
            wrap(&profile, vec!["vllm".into()], Path::new("/x")),
            ["vllm"]
        );
        assert!(environment(&profile).is_empty());
        assert_eq!(
            vllm_arguments(&profile, Path::new("/x"))[1],
            "{\"profiler\":\"torch\",\"torch_profiler_dir\":\"/x\"}"
        );
    }
}
