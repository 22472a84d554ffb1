//! Checks across the tables of a plan.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;
use toml::de::DeValue;

use super::adapter::{NIXL_STORE, RAW_BLOCK};
use super::axes::{Axes, check_names};
use super::problem::list;
use super::reader::{Located, Problems, TableReader};
use super::run::RunSpec;
use super::server::{Launcher, LmcacheMode, ServerSpec};
use super::shape::{MAX_CELLS, Shape, cells, shapes};
use super::sim_spec::MODEL_LEN;
use super::state::CacheState;
use super::tier::{TierKind, TierSpec};
use super::value::string;
use super::workload_spec::{WorkloadKind, WorkloadSpec};
use crate::units::grouped;

/// The most prompt tokens of a cell and state.
const MAX_PROMPT_TOKENS: u64 = 2_000_000_000;

/// The longest name of a tier or a workload, characters.
const MAX_NAME_CHARS: usize = 60;

/// The longest name of a model: a path, or a repository of a hub.
const MAX_MODEL_CHARS: usize = 500;

/// The keys of a tier that the templates of multi-process mode read.
const MULTI_PROCESS_KEYS: [&str; 3] = ["cache_policy", "chunk_size", "max_local_cpu_size"];

/// The tables of a plan, and what was read from them.
pub(super) struct Parts<'a, 't> {
    /// The table `[matrix]`, if there is one.
    pub matrix: Option<&'a TableReader<'t>>,
    /// The table `[run]`, if there is one.
    pub run: Option<&'a TableReader<'t>>,
    /// The table `[tier]`, if there is one.
    pub tier: Option<&'a TableReader<'t>>,
    /// The table `[workload]`, if there is one.
    pub workload: Option<&'a TableReader<'t>>,
    /// The axes read from `[matrix]`.
    pub axes: &'a Axes,
    /// The values read from `[run]`.
    pub run_spec: &'a RunSpec,
    /// The values read from `[server]`, if it could be read.
    pub server_spec: Option<&'a ServerSpec>,
    /// Every tier.
    pub tiers: &'a BTreeMap<String, TierSpec>,
    /// Every workload.
    pub workloads: &'a BTreeMap<String, WorkloadSpec>,
    /// Collects the problems.
    pub problems: &'a Problems,
}

/// Reports a name of a tier or a workload that cannot stand in file names as it is.
pub(super) fn name(problems: &Problems, what: &str, name: &Located<String>) {
    let fits = name
        .value
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
    if !fits || name.value.is_empty() || name.value.len() > MAX_NAME_CHARS {
        problems.add(
            name.span.clone(),
            format!("`{}` cannot name a {what}", name.value),
            format!("use 1 to {MAX_NAME_CHARS} letters, digits, `-`, `_`, `.` and `+`"),
        );
    }
}

/// The model's name, which is an argument of the server and part of every request.
pub(super) fn model(value: &DeValue<'_>) -> Result<String, String> {
    let expected =
        format!("a model's name of 1 to {MAX_MODEL_CHARS} characters, beginning with no `-`");
    let text = string(value)?;
    let fits = !text.trim().is_empty() && text.chars().count() <= MAX_MODEL_CHARS;
    if fits && !text.starts_with('-') {
        Ok(text)
    } else {
        Err(expected)
    }
}

impl Parts<'_, '_> {
    /// Reports settings that do not fit together.
    pub(super) fn check(&self) {
        self.names();
        let count = cells(self.axes, self.run_spec.repeats.get());
        if count > MAX_CELLS {
            self.problems.add(
                self.axes.span.clone(),
                format!(
                    "the matrix has {} cells; at most {} can run",
                    grouped(count),
                    grouped(MAX_CELLS)
                ),
                "shorten an axis, or lower `repeats`",
            );
            return;
        }
        let shapes = shapes(self.axes);
        self.question_lens(&shapes);
        self.prompt_tokens(&shapes);
        self.gpu_state();
        self.restart_state(&shapes);
        if let Some(server) = self.server_spec {
            self.simulated_lens(&shapes, server);
            self.chunks(&shapes, server);
            self.multi_process(&shapes, server);
            self.connectors(&shapes, server);
        }
    }

    fn names(&self) {
        let Some(matrix) = self.matrix else { return };
        let written = |table: Option<&TableReader<'_>>| -> Vec<String> {
            let keys = table.map(TableReader::keys).unwrap_or_default();
            keys.into_iter().map(|key| key.value).collect()
        };
        // A tier with a wrong table is still defined; its problem is reported there.
        let own = written(self.tier);
        let mut tiers: Vec<&str> = self.tiers.keys().map(String::as_str).collect();
        tiers.extend(own.iter().map(String::as_str));
        let own = written(self.workload);
        let mut labels: Vec<&str> = own.iter().map(String::as_str).collect();
        // One that the plan does not write is defined where it does not name it either.
        let is_implied = |label: &Located<String>| label.span == self.axes.span;
        if own.is_empty() && self.axes.label.iter().any(is_implied) {
            labels.extend(self.workloads.keys().map(String::as_str));
        }
        check_names(matrix, &self.axes.tier, &tiers, "tier", "tier");
        check_names(matrix, &self.axes.label, &labels, "workload", "workload");
        for part in &self.axes.include {
            check_names(matrix, part.tier.as_slice(), &tiers, "tier", "tier");
            let label = part.label.as_slice();
            check_names(matrix, label, &labels, "workload", "workload");
        }
    }

    /// The workload's kind, where its prompts have the length of the matrix.
    fn sized(&self, shape: &Shape<'_>) -> Option<&WorkloadKind> {
        let kind = &self.workloads.get(shape.label)?.kind;
        kind.path().is_none().then_some(kind)
    }

    /// Where `key` of the matrix stands for `shape`.
    fn span(&self, shape: &Shape<'_>, key: &str) -> Range<usize> {
        match (shape.included, self.matrix) {
            (Some(part), _) => part.span.clone(),
            (None, Some(matrix)) => span_in(Some(matrix), key),
            (None, None) => 0..0,
        }
    }

    fn question_lens(&self, shapes: &[Shape<'_>]) {
        let mut reported: Vec<Range<usize>> = Vec::new();
        let mut shortest: Vec<&Shape<'_>> = shapes.iter().collect();
        shortest.sort_by_key(|shape| shape.prompt_len);
        for shape in shortest {
            let Some(question_len) = self.sized(shape).and_then(WorkloadKind::question_len) else {
                continue;
            };
            let span = match shape.included {
                Some(part) => part.span.clone(),
                None => key_span(self.workload, shape.label),
            };
            if question_len >= shape.prompt_len && !reported.contains(&span) {
                self.problems.add(
                    span.clone(),
                    format!(
                        "workload `{}` asks questions of {question_len} tokens in prompts of {}",
                        shape.label, shape.prompt_len
                    ),
                    "lower `question_len`, or raise `prompt_len`",
                );
                reported.push(span);
            }
        }
    }

    fn prompt_tokens(&self, shapes: &[Shape<'_>]) {
        let requests = u64::from(self.run_spec.requests.get());
        let longest = shapes
            .iter()
            .filter(|shape| self.sized(shape).is_some())
            .max_by_key(|shape| shape.prompt_len);
        let Some(longest) = longest else { return };
        let tokens = requests * u64::from(longest.prompt_len);
        if tokens > MAX_PROMPT_TOKENS {
            self.problems.add(
                self.span(longest, "prompt_len"),
                format!(
                    "{} requests of {} tokens are {} prompt tokens a cell; at most {} fit, because \
                     prompts are built before the clock starts",
                    grouped(requests),
                    grouped(longest.prompt_len),
                    grouped(tokens),
                    grouped(MAX_PROMPT_TOKENS),
                ),
                "lower `requests` or `prompt_len`",
            );
        }
    }

    fn gpu_state(&self) {
        let off = self
            .server_spec
            .is_some_and(|server| !server.gpu_prefix_cache());
        if off && self.run_spec.states.contains(&CacheState::Gpu) {
            self.problems.add(
                span_in(self.run, "states"),
                "the cache state `gpu-hit` needs the GPU prefix cache, which [server.args] turns off",
                "remove `gpu-hit`, or turn `enable-prefix-caching` on",
            );
        }
    }

    fn restart_state(&self, shapes: &[Shape<'_>]) {
        let Some(server) = self.server_spec else {
            return;
        };
        let mut used = self.tiers.values();
        // Of what outlives a real server, the simulator leaves the files behind vLLM's own RAM alone.
        let lost = used.find(|tier| {
            let outlives = tier.survives_restart(server.lmcache);
            let is_used = shapes.iter().any(|shape| shape.tier == tier.name);
            is_used && outlives && tier.kind != TierKind::NativeFs
        });
        let own_redis = server
            .docker
            .as_ref()
            .is_some_and(|docker| !docker.redis_image.is_empty());
        let why = if let Some(tier) = lost
            && server.is_simulated()
            && !own_redis
        {
            format!(
                "the simulator keeps the tier `{}` in its own process",
                tier.name
            )
        } else if server.launcher == Launcher::External {
            "labrun does not start an external server".to_owned()
        } else {
            return;
        };
        if self.run_spec.states.contains(&CacheState::Restart) {
            self.problems.add(
                span_in(self.run, "states"),
                format!("the cache state `after-restart` cannot be reached: {why}"),
                "remove it, or use `launcher = \"process\"` or \"docker\"",
            );
        }
    }

    fn simulated_lens(&self, shapes: &[Shape<'_>], server: &ServerSpec) {
        if !server.is_simulated() {
            return;
        }
        let len = |shape: &Shape<'_>| u64::from(shape.prompt_len) + u64::from(shape.gen_len);
        let room = server.sim.gpu_kv_tokens.min(MODEL_LEN);
        let longest = shapes
            .iter()
            .filter(|shape| self.sized(shape).is_some())
            .max_by_key(|shape| len(shape));
        if let Some(longest) = longest.filter(|longest| len(longest) > room) {
            let hint = if room == MODEL_LEN {
                "lower `prompt_len` or `gen_len`"
            } else {
                "lower `prompt_len` or `gen_len`, or raise `gpu_kv_tokens` in [server.sim]"
            };
            self.problems.add(
                self.span(longest, "prompt_len"),
                format!(
                    "a prompt of {} and an answer of {} tokens are more than the {room} tokens that \
                     the simulated GPU holds for a request",
                    longest.prompt_len, longest.gen_len
                ),
                hint,
            );
        }
    }

    /// A tier whose chunks are longer than all that prompts share can never answer.
    fn chunks(&self, shapes: &[Shape<'_>], server: &ServerSpec) {
        let own_chunk = server.lmcache_args.contains_key("chunk-size");
        if own_chunk || !self.run_spec.states.contains(&CacheState::Tier) {
            return;
        }
        for tier in self.used_lmcache_tiers(shapes) {
            let chunk = tier.chunk_tokens();
            let unfull = tier.settings.get("save_unfull_chunk") == Some(&Value::Bool(true));
            let shared = |shape: &Shape<'_>| {
                let question_len = match self.sized(shape)? {
                    WorkloadKind::SharedPrefix { question_len, .. }
                    | WorkloadKind::EvictLoop { question_len, .. } => *question_len,
                    _ => return None,
                };
                // As requests are built: the default leaves at least half of a prompt.
                let question_len = question_len.unwrap_or(32.min(shape.prompt_len / 2).max(1));
                Some(shape.prompt_len.saturating_sub(question_len))
            };
            // How much prompts of another kind share is unknown here; it may be enough.
            let longest = shapes
                .iter()
                .filter(|shape| shape.tier == tier.name)
                .map(|shape| shared(shape).unwrap_or(u32::MAX))
                .max();
            let Some(longest) = longest.filter(|longest| *longest < chunk && !unfull) else {
                continue;
            };
            let own = self.tier.and_then(|tiers| tiers.table(&tier.name));
            let set = own
                .as_ref()
                .filter(|_| tier.settings.contains_key("chunk_size"));
            let span = set.map_or_else(
                || span_in(self.matrix, "tier"),
                |own| span_in(Some(own), "chunk_size"),
            );
            self.problems.add(
                span,
                format!(
                    "tier `{}` keeps chunks of {chunk} tokens, and prompts share {longest} at most: \
                     nothing could be served from it",
                    tier.name
                ),
                "lower its `chunk_size`, raise `prompt_len`, or remove the state `tier-hit`",
            );
        }
    }

    /// Settings that the templates of multi-process mode do not read.
    fn multi_process(&self, shapes: &[Shape<'_>], server: &ServerSpec) {
        if server.lmcache != LmcacheMode::MultiProcess {
            return;
        }
        for tier in self.used_lmcache_tiers(shapes) {
            let Some(own) = self.tier.and_then(|tiers| tiers.table(&tier.name)) else {
                continue;
            };
            let mut valid = MULTI_PROCESS_KEYS.to_vec();
            if tier.kind.uses_disk() {
                valid.push("extra_config.use_odirect");
            }
            let has_room = matches!(
                tier.adapter.type_name(tier.kind),
                Some(RAW_BLOCK | NIXL_STORE)
            );
            if has_room {
                valid.push("max_local_disk_size");
            }
            let report = |span: Range<usize>, key: &str| {
                self.problems.add(
                    span,
                    format!(
                        "`{key}` in [tier.{}] has no effect in multi-process mode",
                        tier.name
                    ),
                    format!(
                        "remove it, or give the tier a `template`; these have: {}",
                        list(&valid)
                    ),
                );
            };
            for key in own.keys() {
                let name = key.value.as_str();
                if name == "extra_config" && tier.kind.uses_disk() {
                    let inner = own.table(name).map(|inner| inner.keys());
                    for key in inner.unwrap_or_default() {
                        if key.value != "use_odirect" {
                            report(key.span, &format!("extra_config.{}", key.value));
                        }
                    }
                } else if tier.settings.contains_key(name) && !valid.contains(&name) {
                    report(key.span, name);
                }
            }
        }
    }

    /// A connector's tier is started with what the plan says of it, which the other launchers do not.
    fn connectors(&self, shapes: &[Shape<'_>], server: &ServerSpec) {
        let why = match server.launcher {
            Launcher::Process => return,
            Launcher::Sim => "the simulator has no connector but its own",
            Launcher::Docker => "labrun starts its processes on this machine, not in containers",
            Launcher::External => "labrun does not start an external server",
        };
        let is_used = |tier: &&TierSpec| {
            let used = shapes.iter().any(|shape| shape.tier == tier.name);
            used && tier.connector.is_some()
        };
        for tier in self.tiers.values().filter(is_used) {
            self.problems.add(
                key_span(self.tier, &tier.name),
                format!(
                    "tier `{}` is of kind `connector`, which needs `launcher = \"process\"`: {why}",
                    tier.name
                ),
                "use that launcher, or leave the tier out of the matrix",
            );
        }
    }

    /// The tiers in use that a built-in template configures.
    fn used_lmcache_tiers<'a>(
        &'a self,
        shapes: &'a [Shape<'a>],
    ) -> impl Iterator<Item = &'a TierSpec> {
        self.tiers.values().filter(|tier| {
            tier.kind.uses_lmcache()
                && tier.template.is_none()
                && shapes.iter().any(|shape| shape.tier == tier.name)
        })
    }
}

/// Where the value of `key` stands, or else the table.
fn span_in(table: Option<&TableReader<'_>>, key: &str) -> Range<usize> {
    table.map_or(0..0, |table| {
        table
            .value(key)
            .map_or_else(|| table.span(), |located| located.span)
    })
}

/// Where the key itself stands, or else the table.
fn key_span(table: Option<&TableReader<'_>>, key: &str) -> Range<usize> {
    table.map_or(0..0, |table| {
        let keys = table.keys();
        keys.into_iter()
            .find(|located| located.value == key)
            .map_or_else(|| table.span(), |located| located.span)
    })
}
