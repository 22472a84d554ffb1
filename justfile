# `just` lists the recipes. CI needs none of them: .ci/run holds the plain commands.

# List the recipes
default:
    @just --list

# The whole job on the simulator: no GPU, no Docker, no Python, no network
[group('run')]
quickstart:
    cargo run --release -- plans/quickstart.toml

# The long-context matrix on this machine's GPU (or another plan)
[group('run')]
sweep plan="plans/long_context.toml" *args:
    cargo run --release -- {{ plan }} {{ args }}

# A real vLLM with a real LMCache on the CPU
[group('run')]
real-cpu: install-real-stack
    cargo run --release -- plans/real_cpu.toml --config "${LABRUN_REAL_STACK:-$HOME/.cache/labrun-real-stack}/labrun.toml"

# Install a CPU build of vLLM, LMCache and a tiny model: 6 GB in ~/.cache
[group('install')]
install-real-stack:
    scripts/install-real-stack.sh

# Build the Docker images of the simulator and of Redis
[group('install')]
images:
    cargo build --release
    scripts/build-docker-images.sh target/release/labrun

# All tests but those of the real stack
[group('check')]
test *args:
    cargo test --release {{ args }}

# Unit tests, with those that pause the clock and with checks of overflow
[group('check')]
unit *args:
    cargo test --features paused-clock --lib {{ args }}

# Accept new snapshots, write docs/plan.md and plans/plan.schema.json, and print what the other documents
# should hold; read the diff afterwards
[group('check')]
bless *args:
    INSTA_UPDATE=always cargo test {{ args }}
    git diff --stat

# Formatting and lints, warnings as errors
[group('check')]
lint:
    cargo fmt --check
    cargo clippy --all-targets --features paused-clock -- -D warnings

# Licenses, bans and sources of the dependencies; needs `cargo install cargo-deny`
[group('check')]
deny:
    cargo deny check bans licenses sources

# The API documentation, and the tests that hold docs/ to the code
[group('check')]
docs:
    cargo doc --no-deps --document-private-items
    cargo test --test it -- fault_doc doctor reference
    cargo test --lib -- glossary

# The load client against a bare socket reader
[group('check')]
bench *args:
    cargo bench --bench client {{ args }}

# What CI runs
[group('check')]
ci:
    .ci/run
