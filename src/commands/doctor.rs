//! `labrun doctor`: is this machine fit for a run?

use anyhow::Result;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::json;
use tokio::runtime::Runtime;

use super::launcher::Machine;
use super::plan_source::Source;
use super::{ExitStatus, print, width};
use crate::cli::DoctorArgs;
use crate::config::Config;
use crate::preflight::{Level, Line, Needs, examine, worst};

/// Examines the machine and prints how to fix it.
pub(super) fn doctor(args: &DoctorArgs, runtime: &Runtime) -> Result<ExitStatus> {
    let config = Config::load(args.config.as_deref())?;
    let needs = match &args.plan {
        Some(plan) => {
            let source = Source::read(plan)?;
            let loaded = source.load(&args.changes, &config.settings, Machine::look)?;
            Needs::of(&loaded.matrix, &config.settings)
        }
        None => Needs::default(),
    };
    let image = args.image.as_deref();
    let lines = runtime.block_on(examine(&config.settings, &needs, image));
    let worst = worst(&lines);
    if args.json {
        let all = json!({"worst": worst, "lines": lines});
        print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    } else {
        print(&table(&lines, width()))?;
    }
    Ok(match worst {
        Level::Good | Level::Warning => ExitStatus::Success,
        Level::Error => ExitStatus::CellsFailed,
    })
}

/// `lines` as a table of `width` columns, and how many there are of each level.
fn table(lines: &[Line], width: u16) -> String {
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width);
    for line in lines {
        let mut message = line.message.clone();
        if !line.fix.is_empty() {
            message.push_str(&format!("\n-> {}", line.fix));
        }
        table.add_row([line.level.name(), line.topic, &message]);
    }
    let rows: Vec<String> = table.lines().map(|row| row.trim_end().to_owned()).collect();
    let count = |level| lines.iter().filter(|line| line.level == level).count();
    let named = |level, name| match count(level) {
        1 => format!("1 {name}"),
        count => format!("{count} {name}s"),
    };
    format!(
        "{}\n{} good, {}, {}\n",
        rows.join("\n"),
        count(Level::Good),
        named(Level::Warning, "warning"),
        named(Level::Error, "error"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_level_its_topic_and_the_fix() {
        let line = |topic, level, message: &str, fix: &str| Line {
            topic,
            level,
            message: message.to_owned(),
            fix: fix.to_owned(),
        };
        let lines = [
            line("clock", Level::Good, "source `tsc`, steps of 20 ns", ""),
            line(
                "NVIDIA in Docker",
                Level::Warning,
                "no runtime `nvidia`, no CDI specification (and no GPU)",
                "install the NVIDIA Container Toolkit, then `nvidia-ctk runtime configure --runtime=docker` and \
                 restart Docker",
            ),
            line("memory", Level::Error, "2.0 GiB available", "free memory"),
        ];
        insta::assert_snapshot!(format!(
            "{}\n{}",
            table(&lines, 80),
            table(&lines[..2], 200)
        ));
    }
}
