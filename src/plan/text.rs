//! A plan's text, changed before it is read: what flags set, and what its author left out. What runs
//! is what the text says, so every change stands in it, with a comment that names its reason.

use std::fmt;
use std::str::FromStr;

use toml_edit::{Array, DocumentMut, Item, Key, RawString, Table, TableLike, Value};

use super::only::Narrowed;
use super::tier::BASELINE;

/// `KEY=VALUE`: the value of one dotted key of a plan, in place of what the plan says.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    keys: Vec<String>,
    value: Value,
    text: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected KEY=VALUE, such as run.requests=8".to_owned();
        let (key, value) = text.split_once('=').ok_or_else(expected)?;
        let keys = Key::parse(key.trim()).map_err(|_| expected())?;
        Ok(Self {
            keys: keys.iter().map(|key| key.get().to_owned()).collect(),
            // What is no value of TOML is text, so that a shell's user needs no quotes in quotes.
            value: value
                .trim()
                .parse()
                .unwrap_or_else(|_| Value::from(value.trim())),
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The text of a plan that is being changed.
#[derive(Debug)]
pub(crate) struct PlanText {
    original: String,
    document: DocumentMut,
    has_changed: bool,
}

impl PlanText {
    /// `None` where `text` is no TOML: [`super::Plan::parse`] reports where.
    pub(crate) fn new(text: &str) -> Option<Self> {
        Some(Self {
            original: text.to_owned(),
            document: text.trim_start_matches('\u{feff}').parse().ok()?,
            has_changed: false,
        })
    }

    /// Whether it has a value at these keys.
    pub(crate) fn has(&self, keys: &[&str]) -> bool {
        let mut item = Some(self.document.as_item());
        for key in keys {
            let table = item.and_then(Item::as_table_like);
            item = table.and_then(|table| table.get(key));
        }
        item.is_some_and(|item| !item.is_none())
    }

    /// Sets what a flag sets.
    ///
    /// # Errors
    /// Where the key goes through a value, or is an axis, whose values take precedence.
    pub(crate) fn set(&mut self, setting: &Setting) -> Result<(), String> {
        let dotted = setting.keys.join(".");
        if setting.keys.len() > 1 && self.has(&["matrix", &dotted]) {
            return Err(format!(
                "`{dotted}` is an axis of the plan, whose values take precedence: set \
                 `matrix.\"{dotted}\"`, or choose one of them with --only"
            ));
        }
        let keys: Vec<&str> = setting.keys.iter().map(String::as_str).collect();
        self.put(&keys, &setting.value, "--set")
    }

    /// Adds what the author left out; `why` becomes its comment.
    pub(crate) fn add(&mut self, keys: &[&str], value: impl Into<Value>, why: &str) {
        // What goes through a value is reported when the plan is read.
        let _refused = self.put(keys, &value.into(), why);
    }

    /// Adds the baseline to the tiers, where others are measured and `matrix.exclude` does not name
    /// it. Returns whether it did.
    pub(crate) fn add_baseline(&mut self) -> bool {
        if self.excludes_baseline() {
            return false;
        }
        let matrix = self.document.get_mut("matrix");
        let tiers = matrix.and_then(|matrix| matrix.get_mut("tier"));
        let Some(Item::Value(value)) = tiers else {
            return false;
        };
        let Some(tiers) = value.as_array_mut() else {
            return false;
        };
        let is_baseline = |tier: &Value| tier.as_str() == Some(BASELINE);
        if tiers.is_empty() || tiers.iter().any(is_baseline) {
            return false;
        }
        let prefix = prefix_of_first(tiers);
        tiers.insert(0, BASELINE);
        set_prefix(tiers, 0, &prefix);
        let next = if prefix.is_empty() { " " } else { &prefix };
        set_prefix(tiers, 1, next);
        mark(value, "baseline added: the others are compared with it");
        self.has_changed = true;
        true
    }

    /// Whether one `matrix.exclude` names the baseline and nothing else.
    fn excludes_baseline(&self) -> bool {
        let matrix = self.document.get("matrix");
        let exclude = matrix.and_then(|matrix| matrix.get("exclude"));
        let is_it = |part: &dyn TableLike| {
            part.len() == 1 && part.get("tier").and_then(Item::as_str) == Some(BASELINE)
        };
        match exclude {
            Some(Item::ArrayOfTables(parts)) => parts.iter().any(|part| is_it(part)),
            Some(Item::Value(Value::Array(parts))) => {
                let mut tables = parts.iter().filter_map(Value::as_inline_table);
                tables.any(|part| is_it(part))
            }
            _ => false,
        }
    }

    /// Takes out what is not chosen: values of axes, and partial cells that nothing is left of.
    pub(crate) fn narrow(&mut self, narrowed: &Narrowed) {
        self.has_changed = true;
        let Some(matrix) = self.document.get_mut("matrix") else {
            return;
        };
        for (key, retained) in &narrowed.axes {
            if let Some(Item::Value(value)) = matrix.get_mut(key) {
                if let Some(values) = value.as_array_mut() {
                    let prefix = prefix_of_first(values);
                    retain(retained, |keep| values.retain(|_| keep()));
                    set_prefix(values, 0, &prefix);
                }
                mark(value, "--only");
            }
        }
        for (key, retained) in [
            ("exclude", &narrowed.exclude),
            ("include", &narrowed.include),
        ] {
            match matrix.get_mut(key) {
                Some(Item::ArrayOfTables(parts)) => {
                    retain(retained, |keep| parts.retain(|_| keep()));
                }
                Some(Item::Value(Value::Array(parts))) => {
                    retain(retained, |keep| parts.retain(|_| keep()));
                }
                _ => {}
            }
        }
    }

    /// The text, below a comment that names the flags that changed it.
    pub(crate) fn text(&self, flags: &[String]) -> String {
        if !self.has_changed {
            return self.original.clone();
        }
        let mut text = String::new();
        for flag in flags {
            let line: String = flag
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            text.push_str(&format!("# changed by {line}\n"));
        }
        text + &self.document.to_string()
    }

    fn put(&mut self, keys: &[&str], value: &Value, why: &str) -> Result<(), String> {
        self.has_changed = true;
        put(self.document.as_table_mut(), keys, value, Some(why))
    }
}

/// Puts `value` at the end of `keys`, making tables on the way. The comment `why` stands behind it,
/// or behind the table within which no comment can stand.
fn put(
    table: &mut dyn TableLike,
    keys: &[&str],
    value: &Value,
    why: Option<&str>,
) -> Result<(), String> {
    let [key, rest @ ..] = keys else {
        return Ok(());
    };
    if rest.is_empty() {
        let mut value = value.clone();
        let old = table.get(key).and_then(Item::as_value);
        value.decor_mut().set_prefix(" ");
        value.decor_mut().set_suffix(old.map_or("", suffix));
        if let Some(why) = why {
            mark(&mut value, why);
        }
        match table.get_mut(key) {
            Some(item) => *item = Item::Value(value),
            None => drop(table.insert(key, Item::Value(value))),
        }
        return Ok(());
    }
    if !table.contains_key(key) {
        let mut new = Table::new();
        // Its header is written only where it has values of its own.
        new.set_implicit(true);
        table.insert(key, Item::Table(new));
    }
    let Some(item) = table.get_mut(key) else {
        return Ok(());
    };
    let is_inline = item.is_inline_table();
    let Some(inner) = item.as_table_like_mut() else {
        return Err(format!("`{key}` is a value of the plan, and no table"));
    };
    put(inner, rest, value, why.filter(|_| !is_inline))?;
    if let Some(table) = item.as_inline_table_mut() {
        table.fmt();
    }
    if let (true, Some(why), Some(value)) = (is_inline, why, item.as_value_mut()) {
        mark(value, why);
    }
    Ok(())
}

/// Writes `comment` behind `value`, before the comment that stands there.
fn mark(value: &mut Value, comment: &str) {
    let old = suffix(value).trim().trim_start_matches('#').trim();
    let line = if old.is_empty() {
        format!(" # {comment}")
    } else {
        format!(" # {comment}; {old}")
    };
    value.decor_mut().set_suffix(line);
}

fn suffix(value: &Value) -> &str {
    let suffix = value.decor().suffix().and_then(RawString::as_str);
    suffix.unwrap_or_default()
}

fn prefix_of_first(values: &Array) -> String {
    let first = values.get(0).and_then(|value| value.decor().prefix());
    first
        .and_then(RawString::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn set_prefix(values: &mut Array, index: usize, prefix: &str) {
    if let Some(value) = values.get_mut(index) {
        value.decor_mut().set_prefix(prefix);
    }
}

/// Calls `each` with what tells, item by item, whether it is retained.
fn retain(retained: &[bool], each: impl FnOnce(&mut dyn FnMut() -> bool)) {
    let mut flags = retained.iter().copied();
    each(&mut || flags.next().unwrap_or(true));
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "# a plan\nmodel = \"m\" # small\n\n[matrix]\ntier = [\"cpu\"] # one\n\
                        \"server.args.x\" = [1, 2]\n\n[run]\nrequests = 24 # a cell\n\n\
                        [server]\nlauncher = \"sim\"\nargs = { a = 1 }\n";

    fn set(settings: &[&str]) -> Result<String, String> {
        let mut text = PlanText::new(PLAN).unwrap();
        for setting in settings {
            text.set(&setting.parse()?)?;
        }
        Ok(text.text(&[]))
    }

    #[test]
    fn a_setting_stands_where_the_value_stood_and_names_its_flag() {
        for (setting, expected) in [
            ("run.requests=8", "requests = 8 # --set; a cell\n"),
            (
                "model=Qwen/Qwen2.5-7B",
                "model = \"Qwen/Qwen2.5-7B\" # --set; small\n",
            ),
            ("run.seed=7", "# a cell\nseed = 7 # --set\n"),
            ("server.args.b=true", "args = { a = 1, b = true } # --set\n"),
            ("server.args.a=\"t\"", "args = { a = \"t\" } # --set\n"),
            (
                "tier.cpu.max_local_cpu_size=60",
                "[tier.cpu]\nmax_local_cpu_size = 60 # --set\n",
            ),
            ("matrix.tier=[\"disk\"]", "tier = [\"disk\"] # --set; one\n"),
            (
                "matrix.\"server.args.x\"=[3]",
                "\"server.args.x\" = [3] # --set\n",
            ),
            ("load.rate_rps = 2.5", "[load]\nrate_rps = 2.5 # --set\n"),
        ] {
            let text = set(&[setting]).unwrap();
            assert!(text.contains(expected), "{setting}:\n{text}");
            DocumentMut::from_str(&text).unwrap();
            let lines_before = PLAN.lines().count();
            assert!(
                text.lines().count() >= lines_before,
                "lines stay where they are"
            );
        }
        assert!(
            set(&["run.requests=8", "run.requests=9"])
                .unwrap()
                .contains("requests = 9 #")
        );
    }

    #[test]
    fn a_setting_that_means_nothing_is_refused() {
        for (setting, expected) in [
            ("requests", "expected KEY=VALUE"),
            ("=3", "expected KEY=VALUE"),
            ("a..b=3", "expected KEY=VALUE"),
            (
                "model.name=3",
                "`model` is a value of the plan, and no table",
            ),
            ("server.args.x=3", "is an axis of the plan"),
        ] {
            let refused = set(&[setting]).unwrap_err();
            assert!(refused.contains(expected), "{setting}: {refused}");
        }
    }

    #[test]
    fn a_text_that_nothing_changes_stays_as_it_is() {
        let crlf = "model = \"m\"\r\n[matrix]\r\ntier = [\"baseline\"]\r\n";
        let mut text = PlanText::new(crlf).unwrap();
        assert!(!text.add_baseline());
        assert_eq!(text.text(&["--set x=1".to_owned()]), crlf);
        assert!(PlanText::new("a = ").is_none());
    }

    #[test]
    fn the_baseline_is_added_unless_the_plan_excludes_it() {
        for (tiers, expected) in [
            (
                "tier = [\"cpu\", \"disk\"]",
                Some("tier = [\"baseline\", \"cpu\", \"disk\"] # baseline added"),
            ),
            (
                "tier = [ \"cpu\" ]",
                Some("tier = [ \"baseline\", \"cpu\" ] # baseline added"),
            ),
            (
                "tier = [\n  \"cpu\", # RAM\n]",
                Some("tier = [\n  \"baseline\",\n  \"cpu\", # RAM\n] # baseline added"),
            ),
            ("tier = [\"baseline\", \"cpu\"]", None),
            ("tier = []", None),
            ("tier = \"cpu\"", None),
            (
                "tier = [\"cpu\"]\nexclude = [{ tier = \"baseline\" }]",
                None,
            ),
            (
                "tier = [\"cpu\"]\n[[matrix.exclude]]\ntier = \"baseline\"",
                None,
            ),
            (
                "tier = [\"cpu\"]\n[[matrix.exclude]]\ntier = \"baseline\"\nprompt_len = 9",
                Some("[\"baseline\", \"cpu\"]"),
            ),
        ] {
            let mut text = PlanText::new(&format!("[matrix]\n{tiers}\n")).unwrap();
            assert_eq!(text.add_baseline(), expected.is_some(), "{tiers}");
            let text = text.text(&[]);
            let expected = expected.unwrap_or(tiers);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn what_was_left_out_is_added_with_its_reason_and_flags_stand_on_top() {
        let mut text = PlanText::new("model = \"m\"\n[matrix]\ntier = [\"cpu\"]\n").unwrap();
        assert!(!text.has(&["server", "launcher"]));
        text.add(&["name"], "x", "the file's name");
        text.add(&["server", "launcher"], "docker", "Docker answers");
        assert!(text.has(&["server", "launcher"]));
        let flags = ["--set a=\"1\n2\"".to_owned()];
        assert_eq!(
            text.text(&flags),
            "# changed by --set a=\"1 2\"\nmodel = \"m\"\nname = \"x\" # the file's name\n[matrix]\n\
             tier = [\"cpu\"]\n\n[server]\nlauncher = \"docker\" # Docker answers\n"
        );
    }
}
