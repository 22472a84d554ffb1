//! What was found, as text.

use super::{CellCheck, PassCheck, Verification};
use crate::units::grouped;

impl Verification {
    /// For a terminal: a line a pass, and under it what differs.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for cell in &self.cells {
            push_cell(&mut text, cell);
        }
        if !self.differences.is_empty() || !self.notes.is_empty() {
            text.push_str("the run\n");
            push_findings(&mut text, "  ", &self.differences, &self.notes);
        }
        text.push_str(&self.summary());
        text
    }

    /// One line: what was checked and how much of it differs.
    fn summary(&self) -> String {
        let passes: usize = self.cells.iter().map(|cell| cell.passes.len()).sum();
        let of_passes = |cell: &CellCheck| -> usize {
            cell.passes.iter().map(|pass| pass.differences.len()).sum()
        };
        let of_cells = self.cells.iter();
        let of_cells = of_cells.map(|cell| cell.differences.len() + of_passes(cell));
        let all = self.differences.len() + of_cells.sum::<usize>();
        let what = format!(
            "{} cells, {} passes",
            grouped(self.cells.len()),
            grouped(passes)
        );
        let found = match all {
            0 if self.without_hashes == 0 => {
                "the files are those that were recorded, and give the same numbers and verdicts"
                    .to_owned()
            }
            0 => "the numbers and verdicts are those that were recorded".to_owned(),
            1 => "1 difference from the record".to_owned(),
            all => format!("{} differences from the record", grouped(all)),
        };
        format!("\n`{}`: {what}: {found}\n", self.path.display())
    }
}

fn push_cell(text: &mut String, cell: &CellCheck) {
    text.push_str(&format!("{}\n", cell.cell));
    push_findings(text, "  ", &cell.differences, &cell.notes);
    for pass in &cell.passes {
        push_pass(text, pass);
    }
}

fn push_pass(text: &mut String, pass: &PassCheck) {
    let judged = match &pass.judged {
        Some(judged) if judged.status == pass.recorded => {
            format!("{}, judged again the same", pass.recorded.name())
        }
        Some(judged) => format!(
            "recorded {}, judged again {}",
            pass.recorded.name(),
            judged.status.name()
        ),
        None => format!("recorded {}, not judged again", pass.recorded.name()),
    };
    text.push_str(&format!("  {}: {judged}\n", pass.state.title()));
    push_findings(text, "    ", &pass.differences, &pass.notes);
}

fn push_findings(text: &mut String, indent: &str, differences: &[String], notes: &[String]) {
    for difference in differences {
        text.push_str(&format!("{indent}DIFFERS: {difference}\n"));
    }
    for note in notes {
        text.push_str(&format!("{indent}note: {note}\n"));
    }
}
