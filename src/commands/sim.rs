//! `labrun sim`: serves the simulator.

use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use super::ExitStatus;
use crate::bounded;
use crate::cli::SimArgs;
use crate::plan::sim_spec::{MODEL_LEN, SimSpec};
use crate::sim::{
    ParentWatch, PrefixCaching, RedisKeeps, SimExit, SimOptions, VERSION, VERSION_SUFFIX, serve,
    termination,
};

/// Serves until it is stopped.
pub(super) fn sim(args: &SimArgs, runtime: &Runtime) -> Result<ExitStatus> {
    // A run starts it by a link, whose name, `exe`, would mean nothing to anyone.
    let _unnamed = rustix::thread::set_name(c"labrun");
    let mut spec = match &args.spec {
        Some(path) => read_spec(path)?,
        None => SimSpec::default(),
    };
    for name in &args.fault {
        spec.faults.push(name.parse()?);
    }
    let max_model_len = u32::try_from(spec.gpu_kv_tokens.min(MODEL_LEN)).unwrap_or(u32::MAX);
    let options = SimOptions {
        host: args.host.to_string(),
        port: args.port,
        spec,
        lmcache_config: args.lmcache_config.clone(),
        native_offload_gib: args.kv_offloading_size,
        kv_transfer_config: args.kv_transfer_config.clone(),
        prefix_caching: if args.no_enable_prefix_caching {
            PrefixCaching::Disabled
        } else {
            PrefixCaching::Enabled
        },
        max_model_len,
        version: match &args.vllm_version {
            Some(version) => format!("{version}{VERSION_SUFFIX}"),
            None => VERSION.to_owned(),
        },
        redis: if args.keep_redis {
            RedisKeeps::Chunks
        } else {
            RedisKeeps::Nothing
        },
        parent: if args.exit_with_parent {
            ParentWatch::ExitWithParent
        } else {
            ParentWatch::Ignore
        },
        ..SimOptions::for_model(&args.model)
    };
    options.check()?;
    let exit = runtime.block_on(serve(options, termination()))?;
    Ok(match exit {
        SimExit::Stopped | SimExit::ParentEnded => ExitStatus::Success,
        SimExit::Fault(_) => ExitStatus::CellsFailed,
    })
}

/// The most bytes of a spec.
const MAX_SPEC_BYTES: u64 = 1 << 20;

fn read_spec(path: &Path) -> Result<SimSpec> {
    let text = bounded::read(path, MAX_SPEC_BYTES)
        .with_context(|| format!("reading the spec `{}`", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("`{}` is not a simulator spec", path.display()))
}
