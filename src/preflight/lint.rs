//! Problems of a matrix that can be found before a GPU second is spent.

mod hub;
mod lengths;
mod values;
mod vllm;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::config::Settings;
use crate::matrix::controls::is_control;
use crate::matrix::{Cell, Matrix, shares_server};
use crate::plan::adapter::RAW_BLOCK;
use crate::plan::load_spec::Arrival;
use crate::plan::server::{Launcher, LmcacheMode, PROMPT_TOKEN_IDS};
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::plan::verdict_spec::VerdictSpec;
use crate::plan::workload_spec::WorkloadKind;
use crate::runner::host::meminfo;
use crate::server::kv_size::{self, KvSize};
use crate::server::{adapter_library, redis};
use crate::units::thousands;
use crate::workload::default_question_len;
use crate::workload::files::{FileFacts, Files};

pub(crate) use hub::fetches_gated;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Passes will not be valid, or nothing will be served.
    Problem,
    /// The plan runs, but part of it may not do what its author expects.
    Note,
}

/// One problem or note about a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A sentence without a full stop.
    pub message: String,
}

/// Redis' default `proto-max-bulk-len`, bytes.
const REDIS_VALUE_BYTES: f64 = 512.0 * 1024.0 * 1024.0;
/// Tokens of a GPU block where the plan does not set it: vLLM's default on a GPU.
const BLOCK_TOKENS: f64 = 16.0;
const GIB: f64 = 1_073_741_824.0;

/// What a start of vLLM takes where nothing is known of the machine.
const START: Duration = Duration::from_secs(120);
/// Prompt tokens that are computed in a second, and what a generated token takes: an 8B model on
/// one data-centre GPU.
const PREFILL_TOKENS_PER_S: f64 = 20_000.0;
const TOKEN_S: f64 = 0.01;

/// Above this threshold a control no longer guards against false speedups.
const WIDE_CONTROL_SPEEDUP: f64 = 1.5;

/// All findings about `matrix`, the worst first.
pub(crate) fn lint(matrix: &Matrix, settings: &Settings, files: &Files) -> Vec<Finding> {
    let mut findings: Vec<Finding> = templates(settings).into_iter().collect();
    let has_controls = matrix
        .cells
        .iter()
        .any(|cell| is_control(&cell.coordinates.label));
    for cell in &matrix.cells {
        let controls = control_limit(&cell, has_controls);
        let of_file = files
            .of(&cell)
            .into_iter()
            .flat_map(|file| lint_file(&cell, file));
        for one in lint_cell(&cell, settings)
            .into_iter()
            .chain(controls)
            .chain(of_file)
        {
            if !findings.contains(&one) {
                findings.push(one);
            }
        }
    }
    findings.sort_by_key(|one| one.severity);
    findings
}

/// The problems of each cell that has any, by its id, without their place: that is the cell.
pub(crate) fn by_cell(matrix: &Matrix, settings: &Settings) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for cell in &matrix.cells {
        let place = format!("{}: ", place(&cell));
        let problems: Vec<String> = lint_cell(&cell, settings)
            .into_iter()
            .filter(|one| one.severity == Severity::Problem)
            .map(|one| {
                one.message
                    .strip_prefix(&place)
                    .unwrap_or(&one.message)
                    .to_owned()
            })
            .collect();
        if !problems.is_empty() {
            all.insert(cell.id, problems);
        }
    }
    all
}

/// A folder of templates that is not there: the built-in ones would be taken without a word.
fn templates(settings: &Settings) -> Option<Finding> {
    let folder = &settings.paths.templates;
    let is_missing = !folder.as_os_str().is_empty() && !folder.is_dir();
    is_missing.then(|| Finding {
        severity: Severity::Problem,
        message: format!(
            "`paths.templates` of the settings is `{}`, which is no folder: make it, or leave it out",
            folder.display()
        ),
    })
}

/// Requests and fields of a workload's file that are not used, or used more than once.
fn lint_file(cell: &Cell, file: &FileFacts) -> Vec<Finding> {
    let path = cell.workload.kind.path().unwrap_or_default();
    let (stored, asked) = (file.requests, cell.resolved.run.requests.get() as usize);
    let is_trace = matches!(cell.workload.kind, WorkloadKind::Trace { .. });
    let mut findings = Vec::new();
    let mut note = |message| {
        findings.push(Finding {
            severity: Severity::Note,
            message,
        });
    };
    match stored.cmp(&asked) {
        Ordering::Less if is_trace => note(format!(
            "`{path}` holds {stored} requests, fewer than the {asked} of the plan: {stored} are sent"
        )),
        Ordering::Less => note(format!(
            "`{path}` holds {stored} prompts, fewer than the {asked} requests of the plan: prompts are \
             sent more than once in a pass"
        )),
        Ordering::Greater => note(format!(
            "`{path}` holds {stored} requests: a pass sends {} {asked} (`requests` in [run])",
            if is_trace { "the first" } else { "a sample of" }
        )),
        Ordering::Equal => {}
    }
    if !file.unused_fields.is_empty() {
        let fields = file.unused_fields.join("`, `");
        note(format!("`{path}`: unused fields: `{fields}`"));
    }
    findings
}

/// What the plan's limit for controls means for them.
fn control_limit(cell: &Cell, has_controls: bool) -> Option<Finding> {
    let limit = cell.resolved.verdict.control_speedup;
    let is_own = limit.total_cmp(&VerdictSpec::default().control_speedup) != Ordering::Equal;
    let message = match has_controls {
        false if is_own => "`control_speedup` in [verdict] has no effect: no control is measured \
                            (`controls = true` in [run] asks for them)"
            .to_owned(),
        true if limit >= WIDE_CONTROL_SPEEDUP => format!(
            "`control_speedup` in [verdict] is {limit}: a tier that seems nearly that much faster \
             where offloading cannot help is still compared"
        ),
        _ => return None,
    };
    Some(Finding {
        severity: Severity::Note,
        message,
    })
}

/// About how long it all takes: `35 s`, `76 min`.
pub(crate) fn about(matrix: &Matrix, files: &Files) -> String {
    shown_time(cost(matrix, files).seconds)
}

/// What a run takes, by a guess.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    /// Cells.
    pub cells: usize,
    /// Starts and restarts of servers.
    pub starts: u32,
    /// All of it, seconds.
    pub seconds: f64,
    /// One start, seconds.
    pub start_s: f64,
}

impl fmt::Display for Cost {
    /// With what the guess rests on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |count: usize, noun: &str| match count {
            1 => format!("1 {noun}"),
            count => format!("{count} {noun}s"),
        };
        write!(
            f,
            "{}, {}, about {} (a guess: {} s a start, {PREFILL_TOKENS_PER_S:.0} prompt tokens/s, {:.0} ms \
             a generated token)",
            counted(self.cells, "cell"),
            counted(self.starts as usize, "server start"),
            shown_time(self.seconds),
            self.start_s,
            TOKEN_S * 1e3,
        )
    }
}

/// Cells, server starts, and about how long it all takes.
pub(crate) fn cost(matrix: &Matrix, files: &Files) -> Cost {
    let mut starts = 0_u32;
    let mut seconds = 0.0;
    let mut last: Option<Cell> = None;
    for cell in &matrix.cells {
        let new = last.is_none_or(|last| !shares_server(&last, &cell));
        let restarts = cell.resolved.run.states.contains(&CacheState::Restart);
        let own_starts = u32::from(new) + u32::from(restarts);
        starts += own_starts;
        seconds += f64::from(own_starts) * start_s(&cell) + load_s(&cell, files);
        last = Some(cell);
    }
    Cost {
        cells: matrix.cells.len(),
        starts,
        seconds,
        start_s: matrix.cells.first().as_ref().map_or(0.0, start_s),
    }
}

/// `40 s`, `12 min`, `3.5 h`.
pub(crate) fn shown_time(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn start_s(cell: &Cell) -> f64 {
    let server = &cell.resolved.server;
    match server.launcher {
        _ if server.is_simulated() => server.sim.start_ms as f64 / 1e3,
        Launcher::External => 0.0,
        Launcher::Sim | Launcher::Process | Launcher::Docker => START.as_secs_f64(),
    }
}

fn load_s(cell: &Cell, files: &Files) -> f64 {
    let at = &cell.coordinates;
    let run = &cell.resolved.run;
    let requests = f64::from(run.requests.get());
    let computed = requests * f64::from(at.prompt_len.get()) / PREFILL_TOKENS_PER_S;
    let generated = requests * f64::from(at.gen_len.get()) * TOKEN_S;
    let worked = computed + generated / f64::from(at.concurrency.get());
    // A trace that is replayed takes as long as it took, however fast the server is.
    let replayed = files.of(cell).and_then(|file| file.span);
    let replayed = replayed.filter(|_| cell.resolved.load.arrival == Arrival::Trace);
    run.states.len() as f64 * worked.max(replayed.unwrap_or_default().as_secs_f64())
}

/// Sizes of one cell, in tokens.
struct Tokens {
    /// What all prompts of a document share.
    shared: u32,
    /// What all documents have together.
    set: f64,
    /// What all questions and answers of a pass have together.
    own: f64,
}

fn tokens(cell: &Cell) -> Option<Tokens> {
    let prompt_len = cell.coordinates.prompt_len.get();
    let requests = cell.resolved.run.requests.get();
    let (documents, question_len) = match &cell.workload.kind {
        WorkloadKind::SharedPrefix {
            documents,
            questions_per_document,
            question_len,
        } => {
            let asked = questions_per_document.map(|questions| requests.div_ceil(questions));
            (documents.or(asked).unwrap_or(requests), *question_len)
        }
        WorkloadKind::EvictLoop {
            documents,
            question_len,
        } => (*documents, *question_len),
        WorkloadKind::MultiTurn {
            turns, turn_len, ..
        } => (requests.div_ceil(*turns), Some(*turn_len)),
        WorkloadKind::Unique | WorkloadKind::Trace { .. } | WorkloadKind::Dataset { .. } => {
            return None;
        }
    };
    let question_len = question_len.unwrap_or_else(|| default_question_len(prompt_len));
    let shared = prompt_len.saturating_sub(question_len);
    let gen_len = cell.coordinates.gen_len.get();
    Some(Tokens {
        shared,
        set: f64::from(documents) * f64::from(shared),
        own: f64::from(requests) * f64::from(prompt_len - shared + gen_len),
    })
}

/// Token ids that the plan names must be in the model's vocabulary: vLLM refuses every other one.
fn vocabulary(cell: &Cell, settings: &Settings, add: &mut impl FnMut(Severity, String)) {
    let ids = &cell.resolved.server.prompt_token_ids;
    let Some(size) = kv_size::vocabulary(cell, settings).filter(|size| *size < ids.end) else {
        return;
    };
    if *ids != PROMPT_TOKEN_IDS {
        let last = ids.end - 1;
        let reason = format!(
            "`prompt_token_ids` in [server] goes up to {last}, the vocabulary of `{}` has {size} ids: \
             the server will refuse prompts; write [{}, {}], or nothing",
            cell.resolved.model,
            ids.start.min(size / 4),
            size - 1
        );
        add(Severity::Problem, reason);
    }
}

/// What a message about one cell begins with.
fn place(cell: &Cell) -> String {
    format!(
        "tier `{}`, prompts of {}",
        cell.tier.name, cell.coordinates.prompt_len
    )
}

fn lint_cell(cell: &Cell, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |severity, message: String| findings.push(Finding { severity, message });
    let place = place(cell);
    let states = &cell.resolved.run.states;
    let kind = cell.tier.kind;
    let size = kv_size::of_cell(cell, settings);
    let bytes = size.device().map(|(_, bytes)| bytes.low);
    vocabulary(cell, settings, &mut add);
    lengths::check(cell, settings, &mut add);
    values::check(cell, settings, meminfo("MemTotal"), &mut add);
    hub::check(cell, settings, &mut add);
    restart(cell, &mut add);
    tier_settings(cell, settings, &mut add);
    vllm::check(cell, settings, &mut add);
    let warm = states.iter().any(|state| *state != CacheState::Cold);
    if kind.speaks_resp()
        && let Some(bytes) = bytes
    {
        let value = bytes * f64::from(cell.tier.chunk_tokens());
        if value > REDIS_VALUE_BYTES {
            let message = format!(
                "tier `{}`: a chunk of {} tokens is {:.0} MiB, more than the 512 MiB that Redis \
                 takes as one value; lower `chunk_size`",
                cell.tier.name,
                cell.tier.chunk_tokens(),
                value / f64::from(1 << 20),
            );
            add(Severity::Problem, message);
        }
    }
    if warm && kind != TierKind::Baseline {
        unknown_size(cell, &size, &mut add);
    }
    let Some(tokens) = tokens(cell).filter(|_| warm) else {
        return findings;
    };
    gpu(cell, &tokens, bytes, &place, &mut add);
    if kind != TierKind::Baseline && states.iter().any(|state| *state >= CacheState::Tier) {
        tier(cell, &tokens, bytes, &place, &mut add);
        slots(cell, bytes, &mut add);
    }
    findings
}

/// What settings of a tier mean for its evidence.
fn tier_settings(cell: &Cell, settings: &Settings, add: &mut impl FnMut(Severity, String)) {
    let (tier, server) = (&cell.tier, &cell.resolved.server);
    let is_set = |key: &str, to: bool| tier.settings.get(key).and_then(Value::as_bool) == Some(to);
    if let Some(serializer) = tier.serializer(server.lmcache)
        && serializer.is_lossy()
        && cell.resolved.verdict.text_tolerance.is_none()
    {
        let message = format!(
            "tier `{}`: `{}` stores KV with a loss, so that its answers may differ by design: their text can only be \
             judged with `text_tolerance` in [verdict]",
            tier.name, serializer.name
        );
        add(Severity::Note, message);
    }
    if let Some(missing) = adapter_library::missing(cell, settings) {
        add(Severity::Problem, missing);
    }
    let second = tier.kind.uses_lmcache() && tier.kind.is_second_layer_alone();
    if second && server.lmcache == LmcacheMode::InProcess && is_set("local_cpu", true) {
        let message = format!(
            "tier `{}`: with `local_cpu = true` RAM answers before the {}; name a tier of kind `cpu+disk` \
             for both, or leave it out",
            tier.name,
            if tier.kind == TierKind::Disk {
                "disk"
            } else {
                "Redis"
            }
        );
        add(Severity::Problem, message);
    }
    let remote = tier.settings.get("remote_url").and_then(Value::as_str);
    if let Some(url) = remote.filter(|url| !server.is_simulated() && *url != settings.redis.url) {
        let message = format!(
            "tier `{}`: labrun reads the bytes of the Redis in `redis.url`, not of `remote_url` ({}); leave \
             `remote_url` out, and name it in `redis.url`",
            tier.name,
            redis::shown(url)
        );
        add(Severity::Problem, message);
    }
    let extra = tier.settings.get("extra_config");
    let odirect = extra
        .and_then(|extra| extra.get("use_odirect"))
        .and_then(Value::as_bool);
    if tier.kind.uses_disk() && odirect == Some(false) {
        let message = format!(
            "tier `{}`: without `use_odirect` its files are written and read through the page cache, \
             which is dropped before a pass and may answer within it",
            tier.name
        );
        add(Severity::Note, message);
    }
}

/// A tier that holds nothing after a restart.
fn restart(cell: &Cell, add: &mut impl FnMut(Severity, String)) {
    let kind = cell.tier.kind;
    let mode = cell.resolved.server.lmcache;
    if !cell.resolved.run.states.contains(&CacheState::Restart) || cell.tier.survives_restart(mode)
    {
        return;
    }
    let why = match kind {
        TierKind::Baseline => "there is nothing that could survive it".to_owned(),
        TierKind::Disk | TierKind::CpuDisk if mode == LmcacheMode::MultiProcess => {
            "its adapter does not find again what it stored".to_owned()
        }
        TierKind::Disk | TierKind::CpuDisk => {
            "in-process, the index of its files is in memory".to_owned()
        }
        TierKind::SimpleDisk => "vLLM makes its file anew at each start".to_owned(),
        TierKind::Connector => "the plan has no `outlives_restart = true`".to_owned(),
        _ => "what it holds is in memory".to_owned(),
    };
    let message = format!(
        "tier `{}` does not survive a restart ({why}): its `restart` pass measures computing \
         again",
        cell.tier.name
    );
    add(Severity::Note, message);
}

/// A KV size that nothing states before the server starts.
fn unknown_size(cell: &Cell, size: &KvSize, add: &mut impl FnMut(Severity, String)) {
    if size.device().is_some() || size.unknown.is_empty() {
        return;
    }
    let message = format!(
        "the KV size of `{}` is unknown before the start ({}): labrun cannot check what fits, and \
         judges by the engine's start log; set `kv_bytes_per_token` in [server] to check now",
        cell.resolved.model,
        size.unknown.join("; ")
    );
    add(Severity::Note, message);
}

fn gpu(
    cell: &Cell,
    tokens: &Tokens,
    bytes: Option<f64>,
    place: &str,
    add: &mut impl FnMut(Severity, String),
) {
    let Some(gpu_tokens) = gpu_tokens(cell, bytes) else {
        return;
    };
    let set = tokens.set;
    if cell.resolved.run.states.contains(&CacheState::Gpu) && set > gpu_tokens {
        let message = format!(
            "{place}: the documents are {set:.0} tokens, more than the {gpu_tokens:.0} that the GPU \
             holds: the state `gpu-hit` cannot be reached"
        );
        add(Severity::Problem, message);
    } else if set <= gpu_tokens && cell.tier.kind != TierKind::Baseline {
        let message = format!(
            "{place}: the documents ({set:.0} tokens) fit in GPU memory ({gpu_tokens:.0} tokens): in \
             production the GPU would serve them, and the tier would stay idle"
        );
        add(Severity::Note, message);
    }
}

/// Tokens that the GPU holds, where the plan sets it.
fn gpu_tokens(cell: &Cell, bytes: Option<f64>) -> Option<f64> {
    let server = &cell.resolved.server;
    if server.is_simulated() {
        return Some(server.sim.gpu_kv_tokens as f64);
    }
    let number = |name: &str| server.args.get(name).and_then(Value::as_f64);
    if let Some(blocks) = number("num-gpu-blocks-override") {
        return Some(blocks * number("block-size").unwrap_or(BLOCK_TOKENS));
    }
    let on_cpu = || {
        let gib: f64 = server.env.get("VLLM_CPU_KVCACHE_SPACE")?.parse().ok()?;
        Some(gib * GIB)
    };
    Some(number("kv-cache-memory-bytes").or_else(on_cpu)? / bytes?)
}

fn tier(
    cell: &Cell,
    tokens: &Tokens,
    bytes: Option<f64>,
    place: &str,
    add: &mut impl FnMut(Severity, String),
) {
    let chunk = cell.tier.chunk_tokens();
    let whole = tokens.shared / chunk * chunk;
    if cell.tier.kind.uses_lmcache() && whole < tokens.shared {
        let lost = tokens.shared - whole;
        if f64::from(lost) > 0.1 * f64::from(tokens.shared) {
            let message = format!(
                "{place}: of {} shared tokens {whole} fill whole chunks of {chunk}; {lost} are \
                 computed each time",
                tokens.shared
            );
            add(Severity::Note, message);
        }
    }
    let (Some(bytes), Some((name, capacity))) = (bytes, capacity(cell)) else {
        return;
    };
    // vLLM's own offloading keeps every block; LMCache's chunks are longer than most questions.
    let (what, stored) = match cell.tier.kind {
        kind if kind.is_vllms_own() => (
            "the documents, questions and answers",
            tokens.set + tokens.own,
        ),
        _ => ("the documents", tokens.set),
    };
    let set = bytes * stored;
    if set > capacity {
        let message = format!(
            "{place}: {what} are {:.1} GiB of KV, more than the {:.1} GiB that {name} holds: \
             what is evicted is computed again, and the state `tier-hit` will not be valid (raise it to \
             {:.0}, or lower `requests`)",
            set / GIB,
            capacity / GIB,
            // A tenth more, for what else is stored.
            (1.1 * set / GIB).ceil()
        );
        add(Severity::Problem, message);
    }
    let staging = GIB * cell.tier.ram_gib();
    let largest = bytes * f64::from(cell.coordinates.prompt_len.get());
    let is_staged = cell.tier.kind.is_second_layer_alone() && cell.tier.kind.uses_ram();
    if is_staged && largest > staging {
        let message = format!(
            "{place}: one prompt is {:.1} GiB of KV, more than the staging buffer \
             (`max_local_cpu_size`) of {:.1} GiB: stores will be cut short",
            largest / GIB,
            staging / GIB
        );
        add(Severity::Problem, message);
    }
}

/// Places of a device, of which each must hold a chunk with its header.
fn slots(cell: &Cell, bytes: Option<f64>, add: &mut impl FnMut(Severity, String)) {
    let adapter = &cell.tier.adapter;
    let number = |key: &str| adapter.keys.get(key).and_then(Value::as_f64);
    let is_raw = adapter.type_name(cell.tier.kind) == Some(RAW_BLOCK);
    let (Some(bytes), Some(slot)) = (bytes, number("slot_bytes").filter(|_| is_raw)) else {
        return;
    };
    let header = number("header_bytes").unwrap_or(4096.0);
    let chunk = bytes * f64::from(cell.tier.chunk_tokens());
    if slot < chunk + header && !adapter.keys.contains_key("serde") {
        let message = format!(
            "tier `{}`: a chunk is {} bytes of KV and its header {}, more than the `slot_bytes` of {}: nothing \
             will be stored (set `slot_bytes` in `adapter` to {})",
            cell.tier.name,
            thousands(chunk),
            thousands(header),
            thousands(slot),
            ((chunk + header) / 4096.0).ceil() * 4096.0
        );
        add(Severity::Problem, message);
    }
}

/// What a tier holds, and by which setting; absent where it knows no bound.
fn capacity(cell: &Cell) -> Option<(&'static str, f64)> {
    let server = &cell.resolved.server;
    let redis_gib = server.is_simulated().then_some(server.sim.redis_gib);
    cell.tier.capacity_bytes(server.lmcache, redis_gib)
}

#[cfg(test)]
mod tests;
