//! The table of keys as a page of the documentation.

use super::{Key, LMCACHE_DOCS, SECTIONS, Section, VLLM_DOCS, other_lmcache_keys};

const HEAD: &str = "\
# The plan

A plan is a TOML file that says what is measured. `labrun keys` shows this page in a terminal, `labrun keys run`
one section of it and `labrun keys warmup` one key. `labrun schema` prints it as JSON Schema:
[plans/plan.schema.json](../plans/plan.schema.json). With the line `#:schema ./plan.schema.json` on top of a plan
(the path from the plan to that file), editors complete and check its keys; VS Code does so with the
extension Even Better TOML.

Where things are on this machine (folders, a Redis, telemetry) belongs into the settings:
[configs/default.toml](../configs/default.toml), `labrun keys settings`.

";

/// The page, as Markdown.
pub(crate) fn page() -> String {
    let mut text = HEAD.to_owned();
    for section in &SECTIONS {
        text.push_str(&part(section));
    }
    text.push_str(&foreign());
    text
}

fn part(section: &Section) -> String {
    let title = match (section.id, section.head) {
        ("docker", _) => "`[server]` in containers".to_owned(),
        ("workload", _) => "`[workload.NAME]`".to_owned(),
        ("tier", _) => "`[tier.NAME]`".to_owned(),
        (_, "") => "Top of the plan".to_owned(),
        (_, head) => format!("`{head}`"),
    };
    let mut text = format!("## {title}\n\n{}\n\n", section.about);
    text.push_str("| key | takes | default | meaning | example |\n|---|---|---|---|---|\n");
    for key in section.keys {
        text.push_str(&row(key));
    }
    text.push('\n');
    text
}

fn row(key: &Key) -> String {
    let code = |text: &str| format!("`{text}`");
    let mut meaning = key.about.to_owned();
    if !key.only.is_empty() {
        meaning.push_str(&format!(" Only with {}.", code(key.only)));
    }
    let example = key.line().map(|line| code(&line)).unwrap_or_default();
    let cells = [
        code(key.name),
        key.takes_words(),
        key.default_words(code),
        meaning,
        example,
    ];
    let cells = cells.map(|cell| cell.replace('|', "\\|"));
    format!("| {} |\n", cells.join(" | "))
}

fn foreign() -> String {
    let names: Vec<String> = other_lmcache_keys()
        .iter()
        .map(|name| format!("`{name}`"))
        .collect();
    format!(
        "## Keys of vLLM and LMCache\n\n\
         `[server.args]` takes every argument of `vllm serve` by its long name without dashes: \
         [vLLM's documentation]({VLLM_DOCS}).\n\n\
         `[tier.NAME]` takes, besides the keys above, every key of LMCache's configuration file; labrun checks \
         each against the version that is installed: [LMCache's documentation]({LMCACHE_DOCS}). These are:\n\n\
         {}.\n",
        names.join(",\n")
    )
}
