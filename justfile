# `just` lists the recipes. CI needs none of them: .ci/run holds the plain commands.

# List the recipes
default:
    @just --list

# The whole job on the simulator: no GPU, no Docker, no Python, no network
quickstart:
    cargo run --release -- plans/quickstart.toml

# The long-context matrix on this machine's GPU (or another plan)
sweep plan="plans/long_context.toml" *args:
    cargo run --release -- {{ plan }} {{ args }}

# A real vLLM with a real LMCache on the CPU
real-cpu:
    scripts/install-real-stack.sh
    cargo run --release -- plans/real_cpu.toml --config "${LABRUN_REAL_STACK:-$HOME/.cache/labrun-real-stack}/labrun.toml"

# All tests but those of the real stack
test *args:
    cargo test --release {{ args }}

# Formatting and lints, warnings as errors
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings

# The load client against a bare socket reader
bench *args:
    cargo bench --bench client {{ args }}

# What CI runs
ci:
    .ci/run
