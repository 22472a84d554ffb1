//! Reads `docs/faults.md`: how each fault shall end, against how a cell did end.

use serde_json::Value;

/// One row of a table.
#[derive(Debug)]
pub(crate) struct Row {
    pub what: String,
    pub tier: String,
    pub ends_as: String,
    pub message: String,
}

/// The rows of the table under `heading`.
pub(crate) fn rows(heading: &str) -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once(&format!("# {heading}\n")).unwrap();
    let section = section.split("\n#").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    rows.skip(1).map(row).collect()
}

fn row(line: &str) -> Row {
    let cells: Vec<String> = line.trim_matches('|').split(" | ").map(cell).collect();
    let [what, tier, ends_as, message] = cells.try_into().unwrap();
    Row {
        what,
        tier,
        ends_as,
        message,
    }
}

fn cell(text: &str) -> String {
    text.trim().trim_matches('|').trim().to_owned()
}

impl Row {
    /// Whether a cell ended as in this row, with its message.
    pub(crate) fn is_true_of(&self, ends_as: &str, messages: &str) -> bool {
        let ends = match self.ends_as.as_str() {
            "not valid" => ["inconclusive", "invalid"].contains(&ends_as),
            exactly => ends_as == exactly,
        };
        ends && messages.contains(&self.message)
    }
}

/// How the worst pass of a cell ended, and all reasons and errors.
pub(crate) fn end_of(cell: &Value) -> (String, String) {
    let outcome = &cell["outcome"];
    let passes = cell["passes"].as_array().unwrap();
    let messages: Vec<&str> = passes
        .iter()
        .flat_map(|pass| pass["verdict"]["reasons"].as_array().unwrap())
        .chain([&outcome["error"]])
        .filter_map(Value::as_str)
        .collect();
    let messages = messages.join("\n");
    if outcome["kind"] == "failed" {
        let phase = outcome["phase"].as_str().unwrap();
        return (format!("failed in {phase}"), messages);
    }
    let worst = ["invalid", "inconclusive", "valid"]
        .into_iter()
        .find(|word| passes.iter().any(|p| p["verdict"]["status"] == *word));
    (worst.unwrap_or("not measured").to_owned(), messages)
}
