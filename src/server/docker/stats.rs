//! What a container uses of the machine, as its daemon reports it once a second.

use std::fs::File;
use std::io::Write as _;

use anyhow::Result;
use bollard::Docker;
use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptions;
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::logs::{LogFiles, appended};

/// The file of samples. A cell does not depend on them: nothing fails without them.
#[derive(Debug)]
pub(super) struct Samples(File);

impl Samples {
    /// Opens the file of samples for appending.
    pub(super) fn open(files: &LogFiles) -> Result<Self> {
        appended(&files.stats).map(Self)
    }

    /// Appends a line a second until the container ends.
    pub(super) async fn take(mut self, docker: Docker, id: String, role: &'static str) {
        let options = StatsOptions {
            stream: true,
            one_shot: false,
        };
        let mut answers = docker.stats(&id, Some(options));
        while let Some(Ok(answer)) = answers.next().await {
            let Some(line) = sample(role, &answer) else {
                continue;
            };
            if writeln!(self.0, "{line}").is_err() {
                return;
            }
        }
    }
}

/// Counters are since the container's start.
fn sample(role: &str, answer: &ContainerStatsResponse) -> Option<Value> {
    let cpu_ns = answer.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage?;
    let memory = answer.memory_stats.as_ref();
    let mut line = json!({"role": role});
    line["at"] = serde_json::to_value(&answer.read).unwrap_or_default();
    line["cpu_s"] = json!(cpu_ns as f64 / 1e9);
    line["memory_bytes"] = json!(memory.and_then(|memory| memory.usage));
    line["memory_limit_bytes"] = json!(memory.and_then(|memory| memory.limit));
    let blocks = |operation: &str| -> Option<u64> {
        let entries = answer
            .blkio_stats
            .as_ref()?
            .io_service_bytes_recursive
            .as_ref()?;
        let of = entries.iter().filter(|entry| {
            entry
                .op
                .as_deref()
                .is_some_and(|op| op.eq_ignore_ascii_case(operation))
        });
        Some(of.filter_map(|entry| entry.value).sum())
    };
    line["disk_read_bytes"] = json!(blocks("read"));
    line["disk_write_bytes"] = json!(blocks("write"));
    let networks = answer.networks.as_ref();
    let received: Option<u64> =
        networks.map(|all| all.values().filter_map(|network| network.rx_bytes).sum());
    let sent: Option<u64> =
        networks.map(|all| all.values().filter_map(|network| network.tx_bytes).sum());
    line["network_received_bytes"] = json!(received);
    line["network_sent_bytes"] = json!(sent);
    line["processes"] = json!(answer.pids_stats.as_ref().and_then(|pids| pids.current));
    Some(line)
}
