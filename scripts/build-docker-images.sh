#!/usr/bin/env bash
# Makes the images of the Docker tests, without a registry: a Debian by debootstrap and `docker
# import`, on it one with Debian's redis-server and one with labrun's simulator.
# usage: scripts/build-docker-images.sh [LABRUN]    LABRUN: the program for the simulator's image; without it only the other
# images are made. Safe to repeat: existing, unchanged images stay.
#   labrun-test/base:bookworm  labrun-test/redis:latest  labrun-test/python:latest  labrun-test/sim:latest
#   labrun-test/builder:latest  stands in for Rust's image: its `cargo` gives the program that was built here
set -euo pipefail
cache=${LABRUN_DOCKER_CACHE:-$HOME/.cache/labrun-docker}
mkdir -p "$cache"
exec 9> "$cache/lock"
flock 9

is_there() { docker image inspect "$1" > /dev/null 2>&1; }

if ! is_there labrun-test/base:bookworm; then
  if [ ! -e "$cache/base.tar" ]; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --include=redis-server bookworm "$root" > "$cache/debootstrap.log" \
      || { tail "$cache/debootstrap.log" >&2; exit 1; }
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}
    tar -C "$root" -c --exclude=./dev . > "$cache/base.tar.part"
    mv "$cache/base.tar.part" "$cache/base.tar"
  fi
  docker import "$cache/base.tar" labrun-test/base:bookworm > /dev/null
fi

if ! is_there labrun-test/redis:latest; then
  printf 'FROM labrun-test/base:bookworm\nENTRYPOINT ["redis-server"]\n' \
    | docker build -q -t labrun-test/redis:latest - > /dev/null
fi

if ! is_there labrun-test/python:latest; then
  # What a Python and a vLLM that are mounted from the host need of the system.
  printf 'FROM labrun-test/base:bookworm\nRUN apt-get update -q && apt-get install -q -y --no-install-recommends python3 libnuma1 libgomp1 ca-certificates && rm -rf /var/lib/apt/lists/*\n' \
    | docker build -q --network host -t labrun-test/python:latest - > /dev/null
fi

if [ $# -gt 0 ]; then
  # By size and time: hashing a debug program takes longer than building the image.
  key=$(stat -c '%s-%Y' "$1")
  if [ "$(docker image inspect -f '{{index .Config.Labels "program"}}' labrun-test/sim:latest 2> /dev/null)" != "$key" ]; then
    build=$(mktemp -d --tmpdir="$cache")
    trap 'rm -rf "$build" "${root:-}"' EXIT
    strip -o "$build/labrun" "$1"
    printf 'FROM labrun-test/base:bookworm\nLABEL program=%s\nENV LMCACHE_STRAY=1\nCOPY labrun /usr/local/bin/labrun\n' "$key" \
      > "$build/Dockerfile"
    docker build -q -t labrun-test/sim:latest "$build" > /dev/null
    # What an earlier build left without a name.
    docker image prune -f --filter label=program > /dev/null
  fi
  if ! is_there labrun-test/builder:latest || [ "$(docker image inspect -f '{{index .Config.Labels "program"}}' labrun-test/builder:latest)" != "$key" ]; then
    printf '%s\n' 'FROM labrun-test/python:latest' "LABEL program=$key" \
      'COPY --from=labrun-test/sim:latest /usr/local/bin/labrun /usr/local/bin/labrun' \
      'RUN printf "#!/bin/sh\nmkdir -p target/release && cp /usr/local/bin/labrun target/release/\n" > /usr/local/bin/cargo && chmod +x /usr/local/bin/cargo' \
      | docker build -q -t labrun-test/builder:latest - > /dev/null
  fi
fi
