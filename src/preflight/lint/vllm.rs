//! What the version of vLLM that will run cannot do, or is reported to do wrong.

use super::Severity;
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::lmcache_keys::Version;
use crate::plan::server::LmcacheMode;
use crate::plan::tier::TierKind;
use crate::server::facts;

/// The first vLLM that is known to count prompt tokens by their source.
const PROVABLE: Version = Version::new(0, 24, 0);
/// The first vLLM whose simple connector keeps KV on a disk, of those that labrun knows.
const SIMPLE_DISK: Version = Version::new(0, 32, 0);
/// The first vLLM whose KV lies otherwise than LMCache in its process reads it, by public reports.
const PACKED: Version = Version::new(0, 26, 0);

/// Checks `cell` against its vLLM, where its version is known before the start.
pub(super) fn check(cell: &Cell, settings: &Settings, add: &mut impl FnMut(Severity, String)) {
    let Some(version) = facts::vllm_version(cell, settings) else {
        return;
    };
    let (tier, kind) = (&cell.tier.name, cell.tier.kind);
    if version < PROVABLE {
        let message = format!(
            "vLLM {version} does not count prompt tokens by their source: no state can be proven, and its \
             passes will be inconclusive; use {PROVABLE} or later"
        );
        add(Severity::Problem, message);
    }
    if kind == TierKind::SimpleDisk && version < SIMPLE_DISK {
        let message = format!(
            "tier `{tier}`: the simple connector of vLLM {version} has no disk, and would use RAM; use \
             {SIMPLE_DISK} or later"
        );
        add(Severity::Problem, message);
    }
    let in_process = cell.resolved.server.lmcache == LmcacheMode::InProcess;
    if kind.uses_lmcache() && in_process && version >= PACKED {
        let message = format!(
            "tier `{tier}`: LMCache in the process of vLLM {PACKED} and later is publicly reported to give \
             wrong answers (dynamo #14416, LMCache #4463), and LMCache keeps new versions working in \
             multi-process mode only (LMCache #4614); set `lmcache = \"multi-process\"` in [server], with a \
             build for vLLM's torch, and let the canaries show it (`labrun check`)"
        );
        add(Severity::Note, message);
    }
}
