//! The one table of evidence: the numbers beside the verdict of a pass, their units and what they
//! mean. `cell.json` has them by name.

#[cfg(test)]
use std::fmt::Write as _;

macro_rules! evidence {
    ($($variant:ident = $name:literal $meaning:literal;)+) => {
        /// A number that a verdict rests on, or that stands beside it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Evidence {
            $(#[doc = $meaning] $variant,)+
        }

        impl Evidence {
            /// All of it, in the order of the glossary.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in files, the unit last.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What exactly it is.
            #[cfg(test)]
            pub(crate) fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)+
                }
            }
        }
    };
}

evidence! {
    ComputedTokens = "computed_tokens" "Prompt tokens that the engine computed, by its counters.";
    GpuCacheTokens = "gpu_cache_tokens" "Prompt tokens from the GPU prefix cache, by the engine's counters.";
    ExternalTokens = "external_tokens" "Prompt tokens that came through the connector, by the engine's counters.";
    ExpectedHitTokens = "expected_hit_tokens" "Prompt tokens that a cache should have held before the pass, in whole chunks.";
    HitsPerRequestTokens = "hits_per_request_tokens" "Prompt tokens from any cache, per ok request.";
    SharedTokens = "shared_tokens" "Prompt tokens that earlier requests may have left in a cache.";
    RepeatedTokens = "repeated_tokens" "Of the shared tokens, those that the pass repeats itself: the GPU cache may serve them in any state.";
    LmcacheRamTokens = "lmcache_ram_tokens" "Tokens that LMCache served from RAM, by its own account.";
    LmcacheSecondLayerTokens = "lmcache_second_layer_tokens" "Tokens that LMCache served from its second layer (files or Redis), by its own account.";
    LmcacheLoadedTokens = "lmcache_loaded_tokens" "Tokens that LMCache's server loaded to the GPU, by its own account.";
    LmcacheStagedBytes = "lmcache_staged_bytes" "Bytes that LMCache's server staged on their way to the GPU, by its own account.";
    OffloadLoadBytes = "offload_load_bytes" "Bytes that vLLM's own offloading loaded to the GPU, by its counters.";
    OffloadStoreBytes = "offload_store_bytes" "Bytes that vLLM's own offloading took from the GPU, by its counters, until it had stored what the pass left.";
    OffloadSecondReadBytes = "offload_second_read_bytes" "Bytes that vLLM's own offloading read from tiers behind its RAM, by its counters.";
    OffloadSecondWriteBytes = "offload_second_write_bytes" "Bytes that vLLM's own offloading wrote to tiers behind its RAM, by its counters.";
    CachedRamTokens = "cached_ram_tokens" "Cached prompt tokens from RAM of vLLM's own tiers, by its counters.";
    CachedBehindTokens = "cached_behind_tokens" "Cached prompt tokens from disks and machines behind that RAM, by vLLM's counters.";
    CachedUnnamedTokens = "cached_unnamed_tokens" "Cached prompt tokens from a connector that names no tiers, by vLLM's counters.";
    StoredTokens = "stored_tokens" "Tokens that the tier stored in the pass and behind it.";
    ProbeExpectedTokens = "probe_expected_tokens" "Tokens of the probe that a cache should hold.";
    ProbeGpuTokens = "probe_gpu_tokens" "Tokens of the probe from the GPU prefix cache.";
    ProbeExternalTokens = "probe_external_tokens" "Tokens of the probe that came through the connector.";
    KvBytesPerToken = "kv_bytes_per_token" "KV bytes of one token, all layers and ranks.";
    PcieRxBytes = "pcie_rx_bytes" "Payload into the GPUs over PCIe.";
    PcieTxBytes = "pcie_tx_bytes" "Payload out of the GPUs over PCIe, until the tier had stored what the pass left.";
    DiskReadBytes = "disk_read_bytes" "Bytes that the server fetched from storage; what the page cache answers is not in it.";
    DiskWriteBytes = "disk_write_bytes" "Bytes that the server sent to storage, until the tier had stored what the pass left.";
    RedisReadBytes = "redis_read_bytes" "Bytes that Redis sent.";
    RedisWriteBytes = "redis_write_bytes" "Bytes that Redis received, until the tier had stored what the pass left.";
    PortReadBytes = "port_read_bytes" "Bytes from the TCP port of a connector's store, by the kernel's counts; at least as many where a connection's last were lost.";
    PortWriteBytes = "port_write_bytes" "Bytes to the TCP port of a connector's store, until the tier had stored what the pass left.";
    CanariesAsked = "canaries_asked" "Canary prompts that were asked again in this state.";
    CanariesAnswered = "canaries_answered" "Canary prompts that were answered both times, with text or token ids.";
    CanariesFromCache = "canaries_from_cache" "Canary prompts of which the server says that a cache served a part.";
    CanariesSame = "canaries_same" "Canary prompts whose answer stayed the same, but for the engine's noise.";
    CanariesScored = "canaries_scored" "Canary prompts that were answered with log-probabilities both times.";
    CanariesAltered = "canaries_altered" "Canary prompts that were also answered behind a document of which one chunk differs.";
    CanariesAlteredChanged = "canaries_altered_changed" "Of these, the ones whose answer changed. Where none did, equal answers prove nothing.";
    CanaryDistanceNats = "canary_distance_nats" "Largest difference of a log-probability between a canary's answers; absent where the text is another.";
    CanaryToleranceNats = "canary_tolerance_nats" "Largest difference that is noise, learnt from the same question asked twice in the same state; absent where its text differed.";
    InLoadCanaries = "in_load_canaries" "Canary prompts that were asked within the load; no statistic has them.";
    InLoadCanariesAnswered = "in_load_canaries_answered" "Of these, the ones that were answered in the cold load too.";
    InLoadCanariesSame = "in_load_canaries_same" "Of these, the ones whose answer is that of the cold load, but for the noise under load.";
    InLoadToleranceNats = "in_load_tolerance_nats" "Largest difference that is noise under load; absent where the same question had two texts.";
    GpuKvTokens = "gpu_kv_tokens" "Tokens of KV that the engine has room for, by its start log.";
    OverwrittenTokens = "overwritten_tokens" "Tokens of other text that overwrote the GPU's KV blocks before the server's first tier pass.";
    OverwriteS = "overwrite_s" "How long that took, outside of every pass.";
    LogStoredTokens = "log_stored_tokens" "Tokens in the `Stored` lines of LMCache's log.";
    LogRetrievedTokens = "log_retrieved_tokens" "Tokens in the `Retrieved` lines of LMCache's log.";
    TierLoadMeanMs = "tier_load_mean_ms" "Mean time of a load from the tier, by LMCache's log.";
    TierStoreMeanMs = "tier_store_mean_ms" "Mean time of a store into the tier, by LMCache's log.";
    LookupTimeouts = "lookup_timeouts" "Lookups of the tier that timed out, by LMCache's log: counted as misses.";
    RemoteErrors = "remote_errors" "Puts to or gets from the remote store that failed, by LMCache's log.";
    AllocationFailures = "allocation_failures" "Stores that were cut short for want of memory, by LMCache's log.";
    StoreFailures = "store_failures" "Stores that did not reach the second layer, by logs and counters.";
    LoadFailures = "load_failures" "Loads that failed of KV that a lookup had found, by logs and counters.";
    FileErrors = "file_errors" "Reads or writes of the tier's files that failed, by LMCache's log.";
    FillFailures = "fill_failures" "Failures that keep KV from being stored, from the begin of the cell to the pass, by logs and counters.";
    Documents = "documents" "Documents of which a cache should have had a part.";
    DocumentsMissed = "documents_missed" "Of these, those of which an answer had less from a cache than the plan asks for.";
    TierLoads = "tier_loads" "Loads from the tier, by LMCache's log; each rank of the engine logs its own.";
    TierStores = "tier_stores" "Stores into the tier, by LMCache's log; each rank of the engine logs its own.";
    ServerTtftMeanMs = "server_ttft_mean_ms" "Mean time to the first token of a request, by the server's own clock.";
    ClientTtftMeanMs = "client_ttft_mean_ms" "Mean time to the first token of every request that was answered, canaries within the load too, by the client's clock: the server's means are of the same.";
    QueueTimeMeanMs = "queue_time_mean_ms" "Mean time of a request in the engine's queue. LMCache in a process of its own looks up and loads in that time.";
    PrefillTimeMeanMs = "prefill_time_mean_ms" "Mean time of a request's prefill, by the engine.";
    Preemptions = "preemptions" "Requests that the engine preempted.";
    KvUsageEndPercent = "kv_usage_end_percent" "Share of the engine's KV blocks in use after the pass.";
    KvUsageMaxPercent = "kv_usage_max_percent" "Largest share of the engine's KV blocks in use, of those sampled.";
    RunningMaxRequests = "running_max_requests" "Most requests that ran in the engine at once, of those sampled.";
    WaitingMaxRequests = "waiting_max_requests" "Most requests that waited in the engine at once, of those sampled.";
    WaitingMeanRequests = "waiting_mean_requests" "Mean of the requests that waited in the engine.";
    ServerPromptTokens = "server_prompt_tokens" "Prompt tokens of the pass by the server's counters.";
    ServerOutputTokens = "server_output_tokens" "Output tokens of the pass by the server's counters.";
    UsagePromptTokens = "usage_prompt_tokens" "Prompt tokens of the pass by the usage in its answers.";
    UsageOutputTokens = "usage_output_tokens" "Output tokens of the pass by the usage in its answers.";
}

/// The glossary of evidence as Markdown: a row each.
#[cfg(test)]
fn evidence_markdown() -> String {
    let mut text = String::from("| evidence | meaning |\n|:--|:--|\n");
    for evidence in Evidence::ALL {
        let (name, meaning) = (evidence.name(), evidence.meaning());
        let _ = writeln!(text, "| `{name}` | {meaning} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_is_there_once() {
        let names: BTreeSet<_> = Evidence::ALL.iter().map(|one| one.name()).collect();
        assert_eq!(names.len(), Evidence::ALL.len());
    }

    #[test]
    fn the_page_in_the_docs_is_this_table() {
        let docs = include_str!("../docs/telemetry.md");
        assert!(
            docs.contains(&evidence_markdown()),
            "docs/telemetry.md must have:\n{}",
            evidence_markdown()
        );
    }
}
