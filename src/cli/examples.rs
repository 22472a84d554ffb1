//! Examples at the end of each command's help.

/// Examples by command. Commands whose help needs more words have them there.
const EXAMPLES: [(&str, &str); 18] = [
    (
        "run",
        "  labrun run plans/quickstart.toml\n  \
           labrun run plans/quickstart.toml --set run.requests=12 --only tier=cpu\n  \
           labrun run --model sim --tier cpu,disk --prompt-len 1k,4k --requests 8 --launcher sim\n  \
           labrun run --resume out",
    ),
    (
        "init",
        "  labrun init my.toml\n  labrun init my.toml --tiers cpu,redis --workload agent",
    ),
    ("plan", "  labrun plan plans/long_context.toml"),
    (
        "doctor",
        "  labrun doctor\n  labrun doctor plans/long_context.toml --config settings.toml",
    ),
    ("ls", "  labrun ls\n  labrun ls --json"),
    ("open", "  labrun open\n  labrun open latest:quickstart"),
    (
        "report",
        "  labrun report RUN\n  \
           labrun report RUN --slo ttft=500ms\n  \
           labrun report MONDAY TUESDAY --out both",
    ),
    (
        "diff",
        "  labrun diff RUN_A RUN_B\n  \
           labrun diff main HEAD --format markdown --fail-on 'ttft_p50 > 5% where tier=cpu'",
    ),
    ("keep", "  labrun keep RUN --into results/before"),
    (
        "export",
        "  labrun export RUN --format csv\n  labrun export RUN --format vllm-bench --out exported",
    ),
    (
        "import",
        "  labrun import metrics_*.csv --out imported\n  \
           labrun import bench-*.json --out imported --tier cpu --state tier-hit",
    ),
    (
        "plot",
        "  labrun plot --input 'metrics_*.csv' --output-prefix comparison",
    ),
    (
        "bench",
        "  labrun bench http://127.0.0.1:8000 --model sim --prompt-len 512 --gen-len 64 --concurrency 8\n  \
           labrun bench http://127.0.0.1:8000 --model sim --rate-rps 4 --for-s 60 --json\n  \
           labrun bench --calibrate",
    ),
    (
        "sim",
        "  labrun sim --port 8000\n  labrun sim --port 8000 --fault false-hit",
    ),
    ("telemetry", "  labrun telemetry --seconds 10 --out seen"),
    ("merge", "  labrun merge whole part1 part2"),
    (
        "submit",
        "  labrun submit plans/long_context.toml --slurm --shards 8 --out out\n  \
           labrun submit out --slurm --resume",
    ),
    ("clean", "  labrun clean --dry-run\n  labrun clean"),
];

/// `command` with an example for each of its commands, above what its help says besides.
pub(super) fn add(command: clap::Command) -> clap::Command {
    EXAMPLES
        .into_iter()
        .fold(command, |command, (name, lines)| {
            command.mut_subcommand(name, |sub| {
                let noun = if lines.contains('\n') {
                    "Examples"
                } else {
                    "Example"
                };
                let rest = sub.get_after_help().map(|text| format!("\n\n{text}"));
                let text = format!("{noun}:\n{lines}{}", rest.unwrap_or_default());
                sub.after_help(text)
            })
        })
}
