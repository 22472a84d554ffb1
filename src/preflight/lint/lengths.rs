//! Whether prompts and answers fit into what the server takes, and that into the model.

use serde_json::Value;

use super::Severity;
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::workload_spec::WorkloadKind;
use crate::server::kv_size;
use crate::units::grouped;

/// The variable with which vLLM takes more than the model's positions.
const ALLOW_LONG: &str = "VLLM_ALLOW_LONG_MAX_MODEL_LEN";

/// Compares the longest request with `max-model-len`, and that with the model's positions.
pub(super) fn check(cell: &Cell, settings: &Settings, add: &mut impl FnMut(Severity, String)) {
    let server = &cell.resolved.server;
    let model = &cell.resolved.model;
    let limit = server.args.get("max-model-len").and_then(Value::as_u64);
    let may_be_long = server.env.contains_key(ALLOW_LONG) || settings.env.contains_key(ALLOW_LONG);
    let positions = kv_size::positions(cell, settings).filter(|_| !may_be_long);
    if let (Some(limit), Some((positions, source))) = (limit, &positions)
        && limit > *positions
    {
        let message = format!(
            "`max-model-len` is {}, and `{model}` has {} positions ({source}): vLLM will not start; \
             lower it, or take a model with more",
            grouped(limit),
            grouped(*positions)
        );
        add(Severity::Problem, message);
    }
    let Some(longest) = longest(cell) else {
        return;
    };
    let (what, most) = match (limit, positions) {
        (Some(limit), _) => ("`max-model-len` in [server.args] is".to_owned(), limit),
        (None, Some((positions, _))) => (format!("`{model}` has positions for"), positions),
        (None, None) => return,
    };
    if longest > most {
        let turns = match cell.workload.kind {
            WorkloadKind::MultiTurn { turns, .. } => format!(" over {turns} turns"),
            _ => String::new(),
        };
        let message = format!(
            "a prompt of {} and answers of {} tokens{turns} come to {}, and {what} {}: the server will \
             refuse it",
            grouped(u64::from(cell.coordinates.prompt_len.get())),
            grouped(u64::from(cell.coordinates.gen_len.get())),
            grouped(longest),
            grouped(most)
        );
        add(Severity::Problem, message);
    }
}

/// Tokens of the longest request of `cell` with its answer; `None` where a file decides.
fn longest(cell: &Cell) -> Option<u64> {
    let at = &cell.coordinates;
    let (prompt, answer) = (u64::from(at.prompt_len.get()), u64::from(at.gen_len.get()));
    match cell.workload.kind {
        WorkloadKind::SharedPrefix { .. }
        | WorkloadKind::Unique
        | WorkloadKind::EvictLoop { .. } => Some(prompt + answer),
        // Each turn adds what the user says and what was answered before.
        WorkloadKind::MultiTurn {
            turns, turn_len, ..
        } => {
            let turns = turns.min(cell.resolved.run.requests.get()).max(1);
            let grown = u64::from(turns - 1) * (u64::from(turn_len) + answer);
            Some(prompt + grown + answer)
        }
        WorkloadKind::Trace { .. } | WorkloadKind::Dataset { .. } => None,
    }
}
