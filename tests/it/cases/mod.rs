//! What servers, files, plans and machines in the field are like, tried on the program itself: a row a
//! case, by kind. The rules have wider tests of their own beside the code.

mod files;
mod hostile;
mod http;
mod many_cells;
mod plans;
mod programs;
mod servers;
mod streams;

use serde_json::Value;

use crate::support::Lab;

/// Everything that a run reports against its numbers: reasons of its verdicts, warnings, and why cells failed.
fn complaints(lab: &Lab) -> String {
    let mut complaints = Vec::new();
    for (_, cell) in lab.cells() {
        complaints.push(cell["warnings"].to_string());
        complaints.push(cell["outcome"]["error"].to_string());
        for pass in passes_of(&cell) {
            complaints.push(pass["verdict"]["reasons"].to_string());
        }
    }
    complaints.join("\n")
}

fn passes_of(cell: &Value) -> Vec<Value> {
    cell["passes"].as_array().cloned().unwrap_or_default()
}

/// The passes of all cells.
fn passes(lab: &Lab) -> Vec<Value> {
    let cells = lab.cells();
    cells.iter().flat_map(|(_, cell)| passes_of(cell)).collect()
}

/// The status of each pass's verdict.
fn statuses(lab: &Lab) -> Vec<String> {
    let status = |pass: &Value| pass["verdict"]["status"].as_str().unwrap_or("").to_owned();
    passes(lab).iter().map(status).collect()
}
