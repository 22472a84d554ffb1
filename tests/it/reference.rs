//! The commands that explain labrun: keys, schemas, completions, manual pages.

use std::path::Path;

use crate::support::Lab;

#[test]
fn keys_shows_the_sections_one_section_or_one_key_in_80_columns() {
    let lab = Lab::new();
    let shown = |arguments: &[&str]| lab.labrun(arguments).expect_code(0).stdout;
    let overview = shown(&["keys"]);
    for section in ["plan", "matrix", "run.auto", "server.sim", "settings"] {
        assert!(overview.contains(&format!("\n  {section} ")), "{overview}");
        let whole = shown(&["keys", section]);
        let widest = whole.lines().map(|line| line.chars().count()).max();
        assert!(
            widest.is_some_and(|widest| widest <= 80),
            "{section}: {whole}"
        );
    }
    insta::assert_snapshot!(shown(&["keys", "verdict"]));
    let key = shown(&["keys", "question_len"]);
    assert_eq!(key.matches("question_len = 64").count(), 2, "{key}");
    assert!(key.contains("Only with `kind = \"evict-loop\"`."), "{key}");
    assert!(shown(&["keys", "[workload.rag]"]).starts_with("[workload.rag]"));
    assert!(shown(&["keys", "enable_p2p"]).contains("LMCache's own key"));
    assert!(shown(&["keys", "settings"]).contains("results = \"results\""));
}

#[test]
fn an_unknown_section_is_named_with_the_nearest() {
    let lab = Lab::new();
    for (word, hint) in [
        ("rnu", "did you mean `run`?"),
        ("questions_len", "did you mean `question_len`?"),
        ("zzzz", "valid: `plan`, `matrix`"),
    ] {
        let ended = lab.labrun(&["keys", word]).expect_code(2);
        assert_eq!(ended.stdout, "");
        assert!(
            ended.stderr.contains(&format!("`{word}`")),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains(hint), "{}", ended.stderr);
    }
}

#[test]
fn the_documentation_and_the_shipped_schema_are_what_labrun_prints() {
    let lab = Lab::new();
    for (file, arguments) in [
        ("docs/plan.md", &["keys", "--markdown"][..]),
        ("plans/plan.schema.json", &["schema"]),
    ] {
        let printed = lab.labrun(arguments).expect_code(0).stdout;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::write(&path, &printed).unwrap();
        }
        let shipped = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            printed == shipped,
            "{file} is not what labrun prints: `just bless` writes it"
        );
    }
    let settings = lab.labrun(&["schema", "settings"]).expect_code(0).stdout;
    let settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
    let defaults: toml::Table = toml::from_str(include_str!("../../configs/default.toml")).unwrap();
    for (section, keys) in &defaults {
        let table = &settings["properties"][section];
        assert!(table.is_object(), "{section}");
        for (key, value) in keys.as_table().unwrap() {
            let schema = &table["properties"][key];
            assert_eq!(
                schema["default"],
                serde_json::to_value(value).unwrap(),
                "{key}"
            );
            let about = schema["description"].as_str().unwrap();
            assert!(about.len() > 10, "{section}.{key}: {about}");
        }
    }
    let pcie = &settings["properties"]["telemetry"]["properties"]["pcie"]["enum"];
    assert_eq!(pcie.as_array().unwrap().len(), 5);
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let lab = Lab::new();
    let definition = labrun::internals::command_line();
    let names: Vec<&str> = definition
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    for shell in ["bash", "zsh", "fish"] {
        let script = lab.labrun(&["completions", shell]).expect_code(0).stdout;
        for name in &names {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
    let page = lab.labrun(&["man"]).expect_code(0).stdout;
    assert!(page.contains(".TH labrun 1"), "{page}");
    lab.labrun(&["man", "--out", "man1"]).expect_code(0);
    for name in &names {
        assert!(
            lab.path("man1").join(format!("labrun-{name}.1")).is_file(),
            "{name}"
        );
    }
}

#[test]
fn every_command_shows_an_example() {
    let lab = Lab::new();
    for command in labrun::internals::command_line().get_subcommands() {
        let name = command.get_name();
        let help = lab.labrun(&[name, "--help"]).expect_code(0).stdout;
        let example = format!("\n  labrun {name} ");
        assert!(
            help.contains(&example) || help.contains("\n  labrun man |"),
            "{help}"
        );
    }
}
