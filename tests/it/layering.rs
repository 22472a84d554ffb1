//! `lib.rs` lists the modules in dependency order, and each may use only those above it.

use std::path::{Path, PathBuf};

fn source_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The names that a path continues with: `a` of `a::b`, `a` and `b` of `{a::{x, y}, b}`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let text = text.trim_start();
        text.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

/// The top modules that `text` names, as `crate::NAME` or by as many `super::` as lead to the crate.
/// `depth` is how deep below the crate the file's own module lies.
fn used_modules(text: &str, depth: usize) -> Vec<String> {
    let mut used: Vec<String> = text
        .match_indices("crate::")
        .flat_map(|(at, path)| first_names(&text[at + path.len()..]))
        .collect();
    // Inline modules by their indentation, which rustfmt keeps.
    let mut inline: Vec<&str> = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let code = line.trim();
        let indent = &line[..line.len() - line.trim_start().len()];
        if code == "}" && inline.last() == Some(&indent) {
            inline.pop();
        }
        let mut at = 0;
        while let Some(offset) = line[at..].find("super::") {
            let path = start + at + offset;
            let mut rest = &text[path..];
            let mut climbed = 0;
            while let Some(further) = rest.strip_prefix("super::") {
                (climbed, rest) = (climbed + 1, further);
            }
            if climbed == depth + inline.len() {
                used.extend(first_names(rest));
            }
            at += offset + climbed * "super::".len();
        }
        if code.contains("mod ") && code.ends_with('{') {
            inline.push(indent);
        }
        start += line.len();
    }
    used
}

/// What the reading half may use. It must never need Docker, a GPU or the simulator to be built.
const READING: [(&str, &[&str]); 3] = [
    ("aggregate", &[]),
    ("report", &["aggregate"]),
    ("diff", &["aggregate", "report"]),
];

/// What every module of the reading half may use.
const VOCABULARY: [&str; 14] = [
    "units",
    "parallel",
    "bounded",
    "foreign",
    "secret",
    "text_file",
    "csv_table",
    "metric",
    "series",
    "evidence",
    "stats",
    "plan",
    "matrix",
    "record",
];

/// A plan is valid only where its matrix expands; one file tests both.
const TESTS_THAT_LOOK_UP: [(&str, &str); 1] = [("plan/tests.rs", "matrix")];

/// What is wrong with a file of the top module `own` that uses `used`.
fn wrong_use(order: &[&str], own: &str, used: &str) -> Option<String> {
    let place = |name: &str| order.iter().position(|module| *module == name);
    let (below, above) = (place(own)?, place(used)?);
    if above > below {
        return Some(format!("uses `{used}`, which stands below it"));
    }
    let (_, besides) = READING.iter().find(|(reading, _)| *reading == own)?;
    let may = own == used || VOCABULARY.contains(&used) || besides.contains(&used);
    (!may).then(|| format!("uses `{used}`, and reading depends on no measuring"))
}

#[test]
fn a_module_uses_only_modules_above_it_and_reading_depends_on_no_measuring() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let library = std::fs::read_to_string(source.join("lib.rs")).unwrap();
    let order: Vec<&str> = library
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert!(order.len() > 10, "{order:?}");
    for name in VOCABULARY.into_iter().chain(READING.map(|(name, _)| name)) {
        assert!(order.contains(&name), "{name}");
    }
    let mut files = Vec::new();
    source_files(&source, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&source).unwrap();
        let first = inside.iter().next().unwrap().to_string_lossy();
        let module = first.trim_end_matches(".rs");
        let is_mod = inside.file_name().is_some_and(|name| name == "mod.rs");
        let depth = inside.iter().count() - usize::from(is_mod);
        let text = std::fs::read_to_string(&file).unwrap();
        for used in used_modules(&text, depth) {
            if TESTS_THAT_LOOK_UP.contains(&(&*inside.to_string_lossy(), &*used)) {
                continue;
            }
            let problem = wrong_use(&order, module, &used);
            wrong.extend(problem.map(|what| format!("{}: {what}", inside.display())));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn uses_are_seen_in_every_form_and_judged() {
    let text = "use crate::a::X;\nuse crate::{b::{Y, Z}, c};\nuse super::near;\n\
                fn f() {\n    super::super::d::g();\n}\n\
                mod tests {\n    use super::super::own;\n    use super::super::super::{e, f};\n}\n\
                use super::super::h;\n";
    let used = used_modules(text, 2);
    assert_eq!(used, ["a", "b", "c", "d", "e", "f", "h"]);
    let order = [&VOCABULARY[..], &["runner", "aggregate", "report", "cli"]].concat();
    for (own, used, is_wrong) in [
        ("record", "runner", true),
        ("runner", "record", false),
        ("report", "runner", true),
        ("report", "aggregate", false),
        ("report", "report", false),
        ("aggregate", "report", true),
        ("cli", "runner", false),
    ] {
        let problem = wrong_use(&order, own, used);
        assert_eq!(
            problem.is_some(),
            is_wrong,
            "{own} uses {used}: {problem:?}"
        );
    }
}
