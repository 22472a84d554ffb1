//! Options of a simulator process.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use super::{
    engine::{EngineConfig, PrefixCaching},
    keep::Keeper,
    lmcache_config::{Connector, LoadedConfig, OffloadConfig},
    server::{LogSink, VERSION, VERSION_SUFFIX},
};
use crate::bounded;
use crate::plan::sim_spec::SimSpec;

/// The most bytes of an LMCache configuration.
const MAX_LMCACHE_BYTES: u64 = 1 << 20;

/// Whether the process watches its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParentWatch {
    /// It lives until it is stopped.
    Ignore,
    /// It ends when its standard input does (`--exit-with-parent`).
    ExitWithParent,
}

/// Whether the Redis tier outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RedisKeeps {
    /// It is in the process's memory, and no Redis is asked.
    Nothing,
    /// The Redis of the LMCache configuration stores its chunks when the process is stopped, and
    /// returns them when it starts (`--keep-redis`).
    Chunks,
}

/// Everything that `labrun sim` takes. Start from [`SimOptions::for_model`].
#[derive(Clone, Debug)]
pub(crate) struct SimOptions {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 for any free one.
    pub port: u16,
    /// Model path or name, as given to vLLM.
    pub model: String,
    /// Name that requests use.
    pub served_model_name: String,
    /// The machine, the model and the faults.
    pub spec: SimSpec,
    /// LMCache YAML: offloading through LMCache.
    pub lmcache_config: Option<PathBuf>,
    /// Host memory for vLLM's own offloading, GiB.
    pub native_offload_gib: Option<f64>,
    /// vLLM's `--kv-transfer-config`: another of its own tiers.
    pub kv_transfer_config: Option<String>,
    /// The GPU prefix cache.
    pub prefix_caching: PrefixCaching,
    /// Longest prompt and answer together, tokens.
    pub max_model_len: u32,
    /// The version that it reports; ends in [`VERSION_SUFFIX`].
    pub version: String,
    /// Whether the Redis tier outlives the process.
    pub redis: RedisKeeps,
    /// Whether to end with the parent process.
    pub parent: ParentWatch,
    /// Where the log goes.
    pub log: LogSink,
}

impl SimOptions {
    /// The defaults for a model: port 8000 of the loopback interface, the calibrated machine, no
    /// offloading.
    pub(crate) fn for_model(model: &str) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8_000,
            model: model.to_owned(),
            served_model_name: model.to_owned(),
            spec: SimSpec::default(),
            lmcache_config: None,
            native_offload_gib: None,
            kv_transfer_config: None,
            prefix_caching: PrefixCaching::Enabled,
            max_model_len: 32_768,
            version: VERSION.to_owned(),
            redis: RedisKeeps::Nothing,
            parent: ParentWatch::Ignore,
            log: LogSink::Stderr,
        }
    }

    /// Checks the options without starting anything.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.setup().map(drop)
    }

    /// Checks the options and reads the LMCache YAML.
    pub(crate) fn setup(&self) -> anyhow::Result<Setup> {
        let spec = &self.spec;
        let problems = spec.problems();
        ensure!(
            problems.is_empty(),
            "the simulator's spec is unsound: {}",
            problems.join("; ")
        );
        ensure!(!self.model.is_empty(), "the model has no name; give one");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".+-_".contains(c);
        ensure!(
            self.version.chars().all(is_plain),
            "the version `{}` has odd characters; write one such as 0.32.0",
            self.version
        );
        ensure!(
            self.version.ends_with(VERSION_SUFFIX),
            "the version `{}` looks like a real server's; end it in `{VERSION_SUFFIX}`",
            self.version
        );
        ensure!(
            u64::from(self.max_model_len) <= spec.gpu_kv_tokens,
            "one request of `max_model_len` {} tokens needs more KV than `gpu_kv_tokens` {}; \
             lower the first or raise the second",
            self.max_model_len,
            spec.gpu_kv_tokens
        );
        let tiers = [
            self.lmcache_config.is_some(),
            self.native_offload_gib.is_some(),
            self.kv_transfer_config.is_some(),
        ];
        ensure!(
            tiers.into_iter().filter(|given| *given).count() < 2,
            "more than one of an LMCache configuration, native offloading and a KV transfer \
             configuration is given; choose one"
        );
        let lmcache = self.load_lmcache()?;
        let offload = match &lmcache {
            Some(loaded) => Some(loaded.offload.clone()),
            None => self.own_tier()?,
        };
        let prefix_caching = self.prefix_caching;
        let engine = EngineConfig {
            spec: spec.clone(),
            prefix_caching,
            offload,
        };
        Ok(Setup { engine, lmcache })
    }

    /// vLLM's own tier.
    fn own_tier(&self) -> anyhow::Result<Option<OffloadConfig>> {
        let block_tokens = self.spec.block_size;
        if let Some(text) = &self.kv_transfer_config {
            let config = OffloadConfig::from_transfer_config(text, block_tokens);
            return config
                .context("the KV transfer configuration cannot be used")
                .map(Some);
        }
        let Some(gib) = self.native_offload_gib else {
            return Ok(None);
        };
        ensure!(
            gib.is_finite() && gib > 0.0,
            "native offloading gets {gib} GiB; give a finite number above 0"
        );
        let bytes = (gib * 1_073_741_824.0) as u64;
        Ok(Some(OffloadConfig::native(bytes, block_tokens)))
    }

    fn load_lmcache(&self) -> anyhow::Result<Option<LoadedConfig>> {
        let Some(path) = &self.lmcache_config else {
            return Ok(None);
        };
        let shown = path.display();
        let text = bounded::read(path, MAX_LMCACHE_BYTES)
            .with_context(|| format!("the LMCache configuration {shown} cannot be read"))?;
        let loaded = OffloadConfig::from_yaml(&text)
            .with_context(|| format!("the LMCache configuration {shown} cannot be used"))?;
        let (chunk, block) = (loaded.offload.chunk_tokens, self.spec.block_size);
        ensure!(
            chunk.is_multiple_of(block),
            "`chunk_size` {chunk} in {shown} is not a multiple of the GPU block of {block} tokens; \
             make it one"
        );
        Ok(Some(loaded))
    }
}

impl Setup {
    /// What keeps the tier's chunks for `options` beyond the process, if anything does.
    pub(crate) fn keeper(&self, options: &SimOptions) -> Option<Keeper> {
        let offload = self.engine.offload.as_ref()?;
        match (&offload.remote, &offload.disk) {
            (Some(url), _) if options.redis == RedisKeeps::Chunks => {
                Some(Keeper::Redis(url.clone()))
            }
            (None, Some(disk)) if offload.connector == Connector::Offloading => {
                Some(Keeper::Folder(PathBuf::from(&disk.path)))
            }
            _ => None,
        }
    }
}

/// Checked options.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) engine: EngineConfig,
    pub(crate) lmcache: Option<LoadedConfig>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(change: impl FnOnce(&mut SimOptions)) -> String {
        let mut options = SimOptions::for_model("m");
        change(&mut options);
        format!("{:#}", options.check().unwrap_err())
    }

    #[test]
    fn the_defaults_are_sound() {
        SimOptions::for_model("m").check().unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_with_advice() {
        assert!(error(|o| o.spec.block_size = 0).contains("`block_size` is 0"));
        assert!(error(|o| o.max_model_len = 300_000).contains("more KV than"));
        assert!(error(|o| o.native_offload_gib = Some(-1.0)).contains("above 0"));
        assert!(error(|o| o.version = "0.33.0".to_owned()).contains("a real server's"));
        assert!(error(|o| o.version = format!("\"{VERSION}")).contains("odd characters"));
        assert!(error(|o| o.lmcache_config = Some("/nowhere/l.yaml".into())).contains("/nowhere"));
        let both = |o: &mut SimOptions| {
            o.lmcache_config = Some("l.yaml".into());
            o.native_offload_gib = Some(1.0);
        };
        assert!(error(both).contains("choose one"));
    }

    #[test]
    fn the_yaml_is_read_and_checked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let with = |yaml: &str| {
            std::fs::write(file.path(), yaml).unwrap();
            let mut options = SimOptions::for_model("m");
            options.lmcache_config = Some(file.path().to_owned());
            options.setup()
        };
        assert!(with("chunk_size: 256").unwrap().engine.offload.is_some());
        assert!(format!("{:#}", with("chunk_size: 100").unwrap_err()).contains("not a multiple"));
        let error = format!("{:#}", with("remote_url: s3://b").unwrap_err());
        assert!(
            error.contains("cannot be used") && error.contains("s3"),
            "{error}"
        );
    }
}
