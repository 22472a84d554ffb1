//! The server's description of itself: labels, and the log of its start.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    SimServer,
    log::{Speaker, commas},
    metrics::Identity,
};
use crate::{
    plan::sim_spec::Fault,
    sim::{
        engine::PrefixCaching,
        lmcache_config::{Connector, DiskConfig, DiskIo},
    },
};

impl SimServer {
    pub(super) fn identity(&self) -> Identity {
        let options = &self.options;
        let spec = &options.spec;
        let offload = self.setup.engine.offload.as_ref();
        let blocks = spec.gpu_kv_tokens / u64::from(spec.block_size);
        let concurrency = spec.gpu_kv_tokens as f64 / f64::from(options.max_model_len);
        let caching = match options.prefix_caching {
            PrefixCaching::Enabled => "True",
            PrefixCaching::Disabled => "False",
        };
        let size = options
            .native_offload_gib
            .map_or("None".to_owned(), |gib| format!("{gib:?}"));
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Identity {
            model: options.model.clone(),
            served_model: options.served_model_name.clone(),
            cache_config: format!(
                r#"block_size="{}",cache_dtype="auto",enable_prefix_caching="{caching}",engine="0",gpu_memory_utilization="0.9",kv_cache_max_concurrency="{concurrency:?}",kv_cache_size_tokens="{}",kv_offloading_backend="native",kv_offloading_size="{size}",num_cpu_blocks="None",num_gpu_blocks="{blocks}",num_gpu_blocks_override="None",prefix_caching_hash_algo="sha256""#,
                spec.block_size, spec.gpu_kv_tokens
            ),
            created_s: created.as_secs_f64(),
            kv_bytes_per_token: spec.kv_bytes_per_token,
            block_tokens: u64::from(spec.block_size),
            version: options.version.clone(),
            healthy: offload.is_some() && !spec.has(Fault::Degraded),
        }
    }

    pub(super) fn log_start(&self) {
        let (log, options) = (&self.log, &self.options);
        let faults: Vec<&str> = options
            .spec
            .faults
            .iter()
            .map(|fault| fault.name())
            .collect();
        let faults = if faults.is_empty() {
            "none".to_owned()
        } else {
            faults.join(", ")
        };
        let text = format!(
            "labrun simulator: no model and no GPU; every time and byte count is simulated \
             (faults: {faults})"
        );
        log.line(Speaker::Process, &text);
        let api = Speaker::ApiServer;
        let text = format!("vLLM API server version {}", options.version);
        log.vllm(api, "INFO", "api_utils.py:286", &text);
        let text = format!("Using max model len {}", options.max_model_len);
        log.vllm(api, "INFO", "model.py:1725", &text);
        let text = format!(
            "Chunked prefill is enabled with max_num_batched_tokens={}.",
            options.spec.max_num_batched_tokens
        );
        log.vllm(api, "INFO", "scheduler.py:252", &text);
        let core = Speaker::EngineCore;
        let text = format!(
            "Initializing a V1 LLM engine (v{}) with config: model='{}'",
            options.version, options.model
        );
        log.vllm(core, "INFO", "core.py:133", &text);
    }

    pub(super) fn log_loaded(&self, load: Duration) {
        let (log, options) = (&self.log, &self.options);
        let (core, spec) = (Speaker::EngineCore, &options.spec);
        let gib = (spec.gpu_kv_tokens * spec.kv_bytes_per_token) as f64 / 1_073_741_824.0;
        let text = format!("Available KV cache memory: {gib:.2} GiB");
        log.vllm(core, "INFO", "gpu_worker.py:508", &text);
        let text = format!(
            "GPU KV cache size: {} tokens, Maximum concurrency for {} tokens per request: {:.2}x",
            commas(spec.gpu_kv_tokens),
            commas(u64::from(options.max_model_len)),
            spec.gpu_kv_tokens as f64 / f64::from(options.max_model_len)
        );
        log.vllm(core, "INFO", "kv_cache_utils.py:2146", &text);
        self.log_connector();
        let seconds = load.as_secs_f64();
        let text =
            format!("init engine (profile, create kv cache, warmup model) took {seconds:.2} s");
        log.vllm(core, "INFO", "core.py:337", &text);
        let text = format!("Starting vLLM server on http://{}", self.address);
        log.vllm(Speaker::ApiServer, "INFO", "api_server.py:581", &text);
    }

    /// vLLM's simple connector, by the lines of its scheduler and of its file.
    fn log_simple(&self, disk: Option<&DiskConfig>) {
        let say = |source: &str, text: &str| {
            self.log.vllm(Speaker::EngineCore, "INFO", source, text);
        };
        let text = "SimpleCPUOffloadScheduler: Allocating offload blocks (mode=eager)";
        say("manager.py:194", text);
        if let Some(DiskConfig { path, io, .. }) = disk {
            let page_cache = match io {
                DiskIo::Direct => "False",
                DiskIo::Buffered => "True",
            };
            let text = format!("DiskBackend: path={path}, (page_cache={page_cache})");
            say("disk_backend.py:165", &text);
        }
    }

    /// A tier that vLLM serves itself.
    fn log_own_tier(&self) {
        let offload = self.setup.engine.offload.as_ref();
        match offload.map(|offload| (offload.connector, &offload.disk)) {
            Some((Connector::Offloading, disk)) => {
                self.log_created("OffloadingConnector");
                if disk.is_some() {
                    let text = "Created secondary tier #0 (fs)";
                    self.log
                        .vllm(Speaker::EngineCore, "INFO", "spec.py:216", text);
                }
            }
            Some((Connector::Simple, disk)) => {
                self.log_created("SimpleCPUOffloadConnector");
                self.log_simple(disk.as_ref());
            }
            _ => {}
        }
    }

    fn log_created(&self, connector: &str) {
        let text =
            format!("Creating v1 connector with name: {connector} and engine_id: labrun-sim");
        let log = &self.log;
        log.vllm(Speaker::EngineCore, "INFO", "factory.py:62", &text);
    }

    fn log_connector(&self) {
        let (log, spec) = (&self.log, &self.options.spec);
        self.log_own_tier();
        let Some(loaded) = &self.setup.lmcache else {
            return;
        };
        self.log_created("LMCacheConnectorV1");
        let file = self
            .options
            .lmcache_config
            .as_deref()
            .unwrap_or("".as_ref())
            .display();
        for key in &loaded.unknown_keys {
            let text = format!("Unknown configuration key: {key} (source: file: {file})");
            log.lmcache(
                "WARNING",
                "config_base.py:210:lmcache.v1.config_base",
                &text,
            );
        }
        let text = format!("Creating LMCacheEngine with config: {}", loaded.shown);
        log.lmcache("INFO", "cache_engine.py:149:lmcache.v1.cache_engine", &text);
        if let Some(disk) = &loaded.offload.disk {
            let source = "local_disk_backend.py:133:lmcache.v1.storage_backend.local_disk_backend";
            let path = &disk.path;
            let text =
                format!("Local disk cache path: {path} (device cuda:0, 1 path(s) configured)");
            log.lmcache("INFO", source, &text);
            let direct = match disk.io {
                DiskIo::Direct => "True",
                DiskIo::Buffered => "False",
            };
            log.lmcache(
                "INFO",
                source,
                &format!("Using O_DIRECT for disk I/O: {direct}"),
            );
        }
        let metadata = if spec.has(Fault::Degraded) {
            let text = "Failed to initialize LMCacheManager components: simulated fault. System \
                        will operate in degraded mode (recompute).";
            log.lmcache("ERROR", "manager.py:212:lmcache.v1.manager", text);
            "None".to_owned()
        } else {
            format!(
                "LMCacheMetadata(model_name='{}', world_size=1)",
                self.options.model
            )
        };
        let text = format!(
            "LMCache initialized for role KVConnectorRole.WORKER with version 0.5.6+labrun-sim, \
             vllm version {}, lmcache cache_engine metadata: {metadata}",
            self.options.version
        );
        log.lmcache(
            "INFO",
            "vllm_v1_adapter.py:492:lmcache.integration.vllm.vllm_v1_adapter",
            &text,
        );
    }
}
