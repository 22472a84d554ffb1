#!/usr/bin/env bash
# Puts NVIDIA's Nsight Systems into one folder, from Debian's archive (non-free); needs no GPU.
# usage: scripts/install-nsys.sh [DIR]      default: $LABRUN_NSYS or ~/.cache/labrun-nsys; 170 MB to fetch. Safe to
# repeat. Its `nsys` is then in DIR/bin.
set -euo pipefail
dir=${1:-${LABRUN_NSYS:-$HOME/.cache/labrun-nsys}}
mkdir -p "$dir/lists/partial" "$dir/root"
dir=$(cd "$dir" && pwd)
if [ ! -e "$dir/ready" ]; then
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  keys=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb [signed-by=$keys] http://deb.debian.org/debian $suite non-free" > "$dir/sources.list"
  apt() {
    apt-get -q -o Acquire::Retries=3 \
      -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=- \
      -o Dir::State::Lists="$dir/lists" -o APT::Sandbox::User=root "$@"
  }
  apt update
  (cd "$dir" && apt download nsight-systems nsight-systems-target)
  # Their dependencies are a whole desktop; what the command line needs of it is this.
  libraries=/usr/lib/x86_64-linux-gnu
  test -e $libraries/libssh.so.4 && test -e $libraries/libpfm.so.4 \
    || { apt-get update -q && apt-get install -qy libssh-4 libpfm4; }
  for package in "$dir"/*.deb; do
    dpkg -x "$package" "$dir/root"
    rm "$package"
  done
  # nsys looks for its importer beside the folder that it really lies in.
  host=$dir/root/usr/lib/nsight-systems/host-linux-x64
  target=$dir/root$libraries/nsight-systems
  ln -sfn "$host" "$target/host-linux-x64"
  for name in libssh.so libssh.so.4; do ln -sfn $libraries/libssh.so.4 "$host/$name"; done
  mkdir -p "$dir/bin"
  ln -sfn "$target/target-linux-x64/nsys" "$dir/bin/nsys"
  touch "$dir/ready"
fi
"$dir/bin/nsys" --version
