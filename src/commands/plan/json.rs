//! `labrun plan --json`.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{SCRATCH, distinct_servers};
use crate::config::Settings;
use crate::matrix::{Matrix, shares_server};
use crate::plan::Plan;
use crate::preflight::lint::{Cost, Finding, Severity};
use crate::record::redact;
use crate::server;

/// The plan's cells, servers and findings.
pub(super) fn text(
    plan: &Plan,
    matrix: &Matrix,
    settings: &Settings,
    cost: &Cost,
    findings: &[Finding],
) -> Result<String> {
    let mut cells = Vec::new();
    let mut last = None;
    for cell in &matrix.cells {
        let starts = last.is_none_or(|last| !shares_server(&last, &cell));
        cells.push(json!({
            "id": cell.id, "coordinates": cell.coordinates, "server": &*cell.server_key,
            "starts_server": starts,
        }));
        last = Some(cell);
    }
    let mut servers = Vec::new();
    for cell in distinct_servers(matrix) {
        let rendered = server::rendered(&cell, settings, Path::new(SCRATCH))?;
        let files = rendered.iter().map(|one| {
            let text = redact::text(&one.text);
            (one.file_name.to_owned(), Value::String(text))
        });
        servers.push(json!({
            "server": &*cell.server_key, "tier": cell.tier.name,
            "launcher": cell.resolved.server.launcher.name(),
            "script": server::script(&cell, rendered.as_ref(), settings)?,
            "files": files.collect::<serde_json::Map<_, _>>(),
        }));
    }
    let of = |severity: Severity| -> Vec<&str> {
        let some = findings.iter().filter(|one| one.severity == severity);
        some.map(|one| one.message.as_str()).collect()
    };
    let mut all = json!({
        "name": plan.name, "server_starts": cost.starts, "expected_s": cost.seconds,
        "problems": of(Severity::Problem), "notes": of(Severity::Note),
        "servers": servers, "cells": cells,
    });
    redact::json(&mut all);
    Ok(format!("{}\n", serde_json::to_string_pretty(&all)?))
}
