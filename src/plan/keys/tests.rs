use std::collections::BTreeSet;
use std::path::Path;

use toml::de::DeTable;

use super::super::Plan;
use super::super::problem::Problem;
use super::super::reader::asked;
use super::super::sim_spec::Fault;
use super::*;

mod validator;

use validator::violations;

/// The lines that a table of `section` needs where `only` holds, but for the key `but`.
fn needed(section: &Section, only: &str, but: &str) -> Vec<String> {
    let discriminator = only.split(" = ").next().unwrap_or_default();
    let mut lines: Vec<String> = [section.only, only]
        .into_iter()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    for key in section.keys {
        let holds = key.only.is_empty() || key.only == only;
        // What labrun adds before it reads a plan must stand in one that is read as it is.
        let is_added = key.name == "launcher";
        let is_needed = (key.default == Default::Required || is_added) && holds;
        if is_needed && key.name != discriminator && key.name != but {
            lines.extend(key.line());
        }
    }
    // Tables that may not be empty, or mean nothing alone.
    if section.id == "matrix.exclude" && but != "tier" {
        lines.push("tier = \"cpu\"".to_owned());
    }
    if section.id == "connector.side" && !["ready_port", "ready_url", "ready_line"].contains(&but) {
        lines.push("ready_line = \"up\"".to_owned());
    }
    lines
}

/// A plan in which `line`, which sets `name`, stands in a table of `section` where `only` holds.
fn draft(section: &Section, only: &str, name: &str, line: &str) -> String {
    let mut text = String::new();
    let mut heads = vec!["plan", "matrix"];
    heads.extend(["run", "workload", "server"]);
    if section.id.starts_with("connector.") {
        heads.push("tier.connector");
    }
    if !heads.contains(&section.id) && section.id != "docker" {
        heads.push(section.id);
    }
    for id in heads {
        let id = if (id, section.id) == ("server", "docker") {
            "docker"
        } else {
            id
        };
        let part = super::section(id).unwrap();
        let own = id == section.id;
        let mut lines = if own {
            needed(part, only, name)
        } else if id == "tier.connector" {
            needed(part, part.keys[0].only, "")
        } else {
            needed(part, "", "")
        };
        if id == "docker" {
            let server = super::section("server").unwrap();
            let launcher = needed(server, "", "launcher");
            lines.extend(launcher);
        }
        if id == "run" && section.id == "run.auto" {
            lines.push("repeats = \"auto\"".to_owned());
        }
        if own {
            lines.push(line.to_owned());
        }
        let mut lines = lines.join("\n");
        if id == "server" && section.id == "server.sim" {
            lines = lines.replace("\"process\"", "\"sim\"");
        }
        text.push_str(&format!("{}\n{lines}\n", part.head));
    }
    text
}

fn problems(text: &str) -> Vec<Problem> {
    Plan::parse(text, "t.toml").map_or_else(|problems| problems.problems, |_| Vec::new())
}

/// Whether labrun refuses the value of `key`, and not how it goes with others.
fn is_refused(key: &Key, problems: &[Problem]) -> bool {
    problems.iter().any(|problem| {
        let message = &problem.message;
        message.contains(&format!("`{}`", key.name.trim_matches('"')))
            && (message.contains("must be") || message.contains(" is `"))
            || message.starts_with("unknown cache state")
            || message.starts_with("unknown simulator fault")
    })
}

fn of_all_keys(mut test: impl FnMut(&Section, &Key)) {
    for section in &SECTIONS {
        for key in section.keys {
            test(section, key);
        }
    }
}

#[test]
fn the_table_has_the_keys_that_the_reader_asks_for_and_no_other() {
    for section in &SECTIONS {
        let mut contexts: BTreeSet<&str> = section.keys.iter().map(|key| key.only).collect();
        if section.id == "workload" {
            // Without a kind it has none of the keys of a kind.
            contexts.remove("");
            contexts.insert("kind = \"unique\"");
        }
        for only in contexts {
            asked::take();
            let text = draft(section, only, "", "");
            assert_eq!(problems(&text), [], "{text}");
            let table = section.head.trim_matches(['[', ']']).replace('"', "");
            let asked = asked::take().into_iter();
            let asked: BTreeSet<String> = asked
                .filter(|(name, _)| *name == table)
                .map(|(_, key)| key)
                .collect();
            let mut keys: Vec<&Key> = section.keys.iter().collect();
            if section.id == "docker" {
                keys.extend(super::section("server").unwrap().keys);
            }
            // `url` is refused with a reason of its own where no external server is.
            let here = |key: &&&Key| key.only.is_empty() || key.only == only || key.name == "url";
            let mut names: BTreeSet<String> = keys
                .iter()
                .filter(here)
                .filter(|key| !key.name.starts_with('"'))
                .map(|key| key.name.to_owned())
                .collect();
            if section.id == "tier" {
                names.extend(other_lmcache_keys().into_iter().map(str::to_owned));
            }
            if section.id.starts_with("tier.") {
                names.insert("kind".to_owned());
            }
            assert_eq!(names, asked, "[{table}], {only}");
        }
    }
}

#[test]
fn every_example_and_every_default_is_taken() {
    of_all_keys(|section, key| {
        let Some(line) = key.line() else { return };
        let text = draft(section, key.only, key.name, &line);
        assert_eq!(problems(&text), [], "{text}");
        let Default::Value(value) = key.default else {
            return;
        };
        let given = format!("{} = {value}", key.name);
        let with = draft(section, key.only, key.name, &given);
        let without = draft(section, key.only, key.name, "");
        let parse = |text: &str| Plan::parse(text, "t.toml").unwrap();
        let (with, without) = (parse(&with), parse(&without));
        assert_eq!(with.variants, without.variants, "{given}");
        assert_eq!(with.axes.gen_len, without.axes.gen_len, "{given}");
        assert_eq!(with.axes.concurrency, without.axes.concurrency, "{given}");
    });
}

/// Values on the edge of what a key takes.
fn edges(takes: Type) -> Vec<String> {
    match takes {
        Type::Count(least, most) => {
            let most = most.min(i64::MAX.unsigned_abs());
            vec![least.to_string(), most.to_string()]
        }
        Type::Positive => vec!["0.5".to_owned(), "3".to_owned()],
        Type::Within(least, most) => vec![format!("{least:?}"), format!("{most:?}")],
        Type::OneOf(words) => words.iter().map(|word| format!("\"{word}\"")).collect(),
        Type::List(item) => edges(*item)
            .iter()
            .map(|item| format!("[{item}]"))
            .collect(),
        Type::Either(types) => types.iter().flat_map(|one| edges(*one)).collect(),
        Type::Flag => vec!["true".to_owned(), "false".to_owned()],
        _ => Vec::new(),
    }
}

/// Values just beyond what a key takes, and of other types.
fn beyond(takes: Type) -> Vec<String> {
    let mut wrong = vec!["1979-05-27".to_owned()];
    match takes {
        Type::Count(least, most) => {
            wrong.push(
                least
                    .checked_sub(1)
                    .map_or("-1".to_owned(), |low| low.to_string()),
            );
            if most < i64::MAX.unsigned_abs() {
                wrong.push((most + 1).to_string());
            }
            wrong.extend(["1.5", "\"x\""].map(str::to_owned));
        }
        Type::Positive => wrong.extend(["0", "-1", "\"x\""].map(str::to_owned)),
        Type::Within(least, most) => {
            wrong.extend([format!("{:?}", least - 1.0), "\"x\"".to_owned()]);
            if most < f64::MAX {
                wrong.push(format!("{:?}", most * 2.0));
            }
        }
        Type::OneOf(_) => wrong.extend(["\"zzzz\"", "3"].map(str::to_owned)),
        Type::List(item) => {
            wrong.extend(beyond(*item).iter().map(|item| format!("[{item}]")));
            wrong.push("[]".to_owned());
        }
        Type::Text | Type::Flag | Type::Foreign | Type::Texts => wrong.push("3".to_owned()),
        _ => {}
    }
    wrong
}

#[test]
fn what_a_key_takes_is_what_the_reader_takes() {
    of_all_keys(|section, key| {
        if key.example.is_empty() {
            return;
        }
        // Of a pair, the first must be below the last.
        let is_pair = key.name == "prompt_token_ids";
        for value in edges(key.takes) {
            let text = draft(
                section,
                key.only,
                key.name,
                &format!("{} = {value}", key.name),
            );
            let problems = problems(&text);
            assert!(
                is_pair || !is_refused(key, &problems),
                "{value}: {problems:?}"
            );
        }
        // LMCache reads texts as it likes; a date is refused by all.
        let is_foreign = section.id == "tier" && key.takes == Type::Text && key.name != "template";
        let wrong = if is_foreign {
            vec!["1979-05-27".to_owned()]
        } else {
            beyond(key.takes)
        };
        for value in wrong {
            let line = format!("{} = {value}", key.name);
            let problems = problems(&draft(section, key.only, key.name, &line));
            assert!(!problems.is_empty(), "{line} is taken in [{}]", section.id);
        }
    });
}

#[test]
fn the_words_of_a_key_are_those_that_the_reader_lists() {
    of_all_keys(|section, key| {
        let (words, value) = match key.takes {
            Type::OneOf(words) => (words, "\"zzzz\""),
            Type::List(Type::OneOf(words)) => (*words, "[\"zzzz\"]"),
            _ => return,
        };
        if key.name == "faults" {
            assert_eq!(words, Fault::ALL.map(Fault::name));
            return;
        }
        let line = format!("{} = {value}", key.name);
        let problems = problems(&draft(section, key.only, key.name, &line));
        let listed = super::super::problem::list(words);
        let hints: Vec<&str> = problems
            .iter()
            .map(|problem| problem.hint.as_str())
            .collect();
        assert!(
            hints.contains(&format!("valid: {listed}").as_str()),
            "{line}: {hints:?}"
        );
    });
}

/// A plan as JSON.
fn json_of(text: &str) -> serde_json::Value {
    let document = DeTable::parse(text).unwrap();
    let root = toml::de::DeValue::Table(document.into_inner());
    super::super::value::json(&root).unwrap()
}

#[test]
fn shipped_plans_and_examples_fit_the_schema() {
    let schema = schema();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(violations(&schema, &json_of(&text)), [""; 0], "{path:?}");
        assert!(
            text.starts_with("#:schema ./plan.schema.json\n# "),
            "{path:?}"
        );
    }
    of_all_keys(|section, key| {
        if let Some(line) = key.line() {
            let text = draft(section, key.only, key.name, &line);
            assert_eq!(violations(&schema, &json_of(&text)), [""; 0], "{text}");
        }
    });
}

#[test]
fn the_schema_refuses_what_the_table_does_not_have() {
    let schema = schema();
    of_all_keys(|section, key| {
        if key.example.is_empty() {
            return;
        }
        for value in beyond(key.takes)
            .into_iter()
            .filter(|value| !value.contains("1979"))
        {
            let line = format!("{} = {value}", key.name);
            let text = draft(section, key.only, key.name, &line);
            assert_ne!(violations(&schema, &json_of(&text)), [""; 0], "{line}");
        }
    });
    for section in SECTIONS
        .iter()
        .filter(|section| !["docker", "server"].contains(&section.id))
    {
        let only = section
            .keys
            .iter()
            .map(|key| key.only)
            .find(|only| !only.is_empty());
        let text = draft(section, only.unwrap_or_default(), "", "zzzz = 1");
        assert_eq!(violations(&schema, &json_of(&text)).len(), 1, "{text}");
        // A key that another value asks for.
        for key in section
            .keys
            .iter()
            .filter(|key| key.default == Default::Required)
        {
            if !key.example.is_empty() {
                let text = draft(section, key.only, key.name, "");
                assert_ne!(violations(&schema, &json_of(&text)), [""; 0], "{text}");
            }
        }
    }
}
