# labrun in an image. The simulator needs nothing else:
#
#   docker build -t labrun --build-arg LABRUN_COMMIT=$(git rev-parse HEAD) .
#   docker run --rm -v "$PWD/results:/labrun/results" labrun plans/quickstart.toml
#
# docs/docker.md says how labrun starts containers of vLLM from within its own.
ARG BUILDER=rust:1-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# What `labrun --version` and each manifest name.
ARG LABRUN_COMMIT
RUN cargo build --release --locked

FROM ${BASE}
# Servers of other machines may answer over HTTPS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/labrun /usr/local/bin/labrun
WORKDIR /labrun
COPY plans plans
COPY configs configs
COPY templates templates
ENTRYPOINT ["labrun"]
CMD ["--help"]
