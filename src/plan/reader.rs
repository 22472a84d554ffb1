//! Reads TOML tables into typed values and collects every problem on the way.
//!
//! serde stops at the first error and loses positions inside flattened values; a plan author wants
//! all of them, each with its line. So tables are walked: each key is asked for once with the type
//! it must have, and [`TableReader::finish`] reports the keys that nobody asked for.

use std::cell::RefCell;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::problem::{Problem, suggestion};
use super::value::{describe, found_hint, string};

/// A value and where it stands in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Byte range in the plan's text.
    pub span: Range<usize>,
}

/// The problems so far.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// Adds one.
    pub fn add(&self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Problem::new(span, message, hint));
    }

    /// Adds one that is made already.
    pub fn push(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    /// Whether `problem` is one of them, whatever the hint says.
    pub fn holds(&self, problem: &Problem) -> bool {
        let all = self.0.borrow();
        all.iter()
            .any(|one| one.span == problem.span && one.message == problem.message)
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// All of them, in the order of the text.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut problems = self.0.into_inner();
        problems.sort_by_key(|problem| problem.span.start);
        problems
    }
}

/// One table of a plan, being read.
#[derive(Debug)]
pub struct TableReader<'t> {
    name: String,
    table: &'t DeTable<'t>,
    span: Range<usize>,
    asked: RefCell<Vec<String>>,
    problems: &'t Problems,
}

impl<'t> TableReader<'t> {
    /// A reader of `table`, which is called `name` in messages (empty for the root).
    pub fn new(
        name: &str,
        table: &'t DeTable<'t>,
        span: Range<usize>,
        problems: &'t Problems,
    ) -> Self {
        Self {
            name: name.to_owned(),
            table,
            span,
            asked: RefCell::default(),
            problems,
        }
    }

    /// Where the problems go.
    pub fn problems(&self) -> &'t Problems {
        self.problems
    }

    /// Where the table stands.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// What the table is called in messages: `[run]`, or `the plan` for the root.
    pub fn title(&self) -> String {
        if self.name.is_empty() {
            "the plan".to_owned()
        } else {
            format!("[{}]", self.name)
        }
    }

    /// Reports a problem at the table itself.
    pub fn problem(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.add(self.span.clone(), message, hint);
    }

    /// The raw value of `key`, if it is there.
    pub fn value(&self, key: &str) -> Option<Located<&'t DeValue<'t>>> {
        self.ask(key);
        self.table.get(key).map(|spanned| Located {
            value: spanned.get_ref(),
            span: spanned.span(),
        })
    }

    /// Reads `key` with `read`, which returns what was expected instead when it cannot.
    pub fn read<T>(
        &self,
        key: &str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<Located<T>> {
        let located = self.value(key)?;
        match read(located.value) {
            Ok(value) => Some(Located {
                value,
                span: located.span,
            }),
            Err(expected) => {
                let message = format!("`{key}` in {} must be {expected}", self.title());
                self.problems
                    .add(located.span, message, found_hint(located.value, &expected));
                None
            }
        }
    }

    /// Reads the array `key`, which must not be empty, each item with `read`; every item that cannot be
    /// read is a problem of its own. `None` where there is any.
    pub fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<Located<Vec<Located<T>>>> {
        let located = self.value(key)?;
        let items = located.value.as_array().filter(|items| !items.is_empty());
        let Some(items) = items else {
            let message = format!(
                "`{key}` in {} must be an array that is not empty",
                self.title()
            );
            let hint = format!("this is {}", describe(located.value));
            self.problems.add(located.span, message, hint);
            return None;
        };
        let mut values = Vec::new();
        for item in items {
            match read(item.get_ref()) {
                Ok(value) => values.push(Located {
                    value,
                    span: item.span(),
                }),
                Err(expected) => {
                    let hint = found_hint(item.get_ref(), &expected);
                    let message = format!(
                        "each item of `{key}` in {} must be {expected}",
                        self.title()
                    );
                    self.problems.add(item.span(), message, hint);
                }
            }
        }
        (values.len() == items.len()).then_some(Located {
            value: values,
            span: located.span,
        })
    }

    /// Like [`Self::read`], and a problem if the key is missing.
    pub fn require<T>(
        &self,
        key: &str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<Located<T>> {
        if self.table.get(key).is_none() {
            self.ask(key);
            self.problem(
                format!("`{key}` is missing in {}", self.title()),
                format!("add `{key}`"),
            );
            return None;
        }
        self.read(key, read)
    }

    /// Reads one of the named choices; an unknown name lists them or names the nearest.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<Located<T>> {
        let located = self.read(key, string)?;
        match choices.iter().find(|(name, _)| *name == located.value) {
            Some((_, value)) => Some(Located {
                value: *value,
                span: located.span,
            }),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                let message = format!("`{key}` in {} is `{}`", self.title(), located.value);
                self.problems
                    .add(located.span, message, suggestion(&located.value, &names));
                None
            }
        }
    }

    /// A reader of the sub-table `key`, if it is there.
    pub fn table(&self, key: &str) -> Option<TableReader<'t>> {
        let located = self.value(key)?;
        let name = self.sub_name(key);
        if let DeValue::Table(table) = located.value {
            return Some(TableReader::new(&name, table, located.span, self.problems));
        }
        let message = format!("`{name}` must be a table");
        self.problems.add(
            located.span,
            message,
            format!("this is {}", describe(located.value)),
        );
        None
    }

    /// Readers of every sub-table of an array of tables (`[[key]]`).
    pub fn tables(&self, key: &str) -> Vec<TableReader<'t>> {
        let Some(located) = self.value(key) else {
            return Vec::new();
        };
        let name = self.sub_name(key);
        let DeValue::Array(items) = located.value else {
            let message = format!("`{name}` must be an array of tables, written [[{name}]]");
            self.problems.add(
                located.span,
                message,
                format!("this is {}", describe(located.value)),
            );
            return Vec::new();
        };
        let mut readers = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) => {
                    readers.push(TableReader::new(&name, table, item.span(), self.problems));
                }
                other => {
                    let message = format!("each item of `{name}` must be a table");
                    self.problems
                        .add(item.span(), message, format!("this is {}", describe(other)));
                }
            }
        }
        readers
    }

    /// Every key of the table with its span, in the order of the text.
    pub fn keys(&self) -> Vec<Located<String>> {
        self.table
            .keys()
            .map(|key| Located {
                value: key.get_ref().to_string(),
                span: key.span(),
            })
            .collect()
    }

    /// Reports every key that was never asked for, with the nearest valid one.
    pub fn finish(&self) {
        self.finish_with(|_| None);
    }

    /// Like [`Self::finish`], with a better hint for a key where `hint` knows one.
    pub fn finish_with(&self, hint: impl Fn(&str) -> Option<String>) {
        let asked = self.asked.borrow();
        let valid: Vec<&str> = asked.iter().map(String::as_str).collect();
        for key in self.keys() {
            if !valid.contains(&key.value.as_str()) {
                let message = format!("unknown key `{}` in {}", key.value, self.title());
                let hint = hint(&key.value).unwrap_or_else(|| self.nearest(&key.value, &valid));
                self.problems.add(key.span, message, hint);
            }
        }
    }

    /// The valid keys near to `key`, and how to list all where they are too many to be shown.
    fn nearest(&self, key: &str, valid: &[&str]) -> String {
        let text = suggestion(key, valid);
        if !text.starts_with("nearest: ") {
            return text;
        }
        // Tiers and workloads have names of the author's own.
        let section = match self.name.split_once('.') {
            Some((section @ ("tier" | "workload"), _)) => section,
            _ => &self.name,
        };
        format!("{text}; all: `labrun keys {section}`")
    }

    /// Notes that `key` is valid here; once, however often it is asked for.
    fn ask(&self, key: &str) {
        #[cfg(test)]
        asked::note(&self.name, key);
        let mut asked = self.asked.borrow_mut();
        if !asked.iter().any(|known| known == key) {
            asked.push(key.to_owned());
        }
    }

    fn sub_name(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }
}

/// Every key that was asked for, with the name of its table: the table of keys is held to it.
#[cfg(test)]
pub(super) mod asked {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static ASKED: RefCell<BTreeSet<(String, String)>> = RefCell::default();
    }

    pub(super) fn note(table: &str, key: &str) {
        ASKED.with_borrow_mut(|asked| asked.insert((table.to_owned(), key.to_owned())));
    }

    /// What was asked for in this thread since the last call.
    pub(in crate::plan) fn take() -> BTreeSet<(String, String)> {
        ASKED.take()
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::{non_negative, positive, positive_number};
    use super::*;

    fn problems_of(text: &str, read: impl Fn(&TableReader<'_>)) -> Vec<String> {
        let document = DeTable::parse(text).unwrap();
        let problems = Problems::default();
        let reader = TableReader::new("", document.get_ref(), document.span(), &problems);
        read(&reader);
        reader.finish();
        problems
            .into_sorted()
            .into_iter()
            .map(|p| format!("{} | {}", p.message, p.hint))
            .collect()
    }

    #[test]
    fn every_problem_is_collected_in_the_order_of_the_text() {
        let text = "sead = 1\nrequests = 0\norder = \"groupd\"\n";
        let problems = problems_of(text, |table| {
            table.read("seed", non_negative);
            table.read("requests", positive);
            table.choice("order", &[("grouped", 1), ("interleaved", 2)]);
        });
        assert_eq!(
            problems,
            [
                "unknown key `sead` in the plan | did you mean `seed`?",
                "`requests` in the plan must be an integer from 1 to 4,294,967,295 | \
                 this is the integer 0",
                "`order` in the plan is `groupd` | did you mean `grouped`?",
            ]
        );
    }

    #[test]
    fn a_wrong_item_of_an_array_is_a_problem_where_it_stands() {
        let text = "a = [1, \"x\", 3, 0]\n";
        let document = DeTable::parse(text).unwrap();
        let problems = Problems::default();
        let reader = TableReader::new("", document.get_ref(), document.span(), &problems);
        assert_eq!(reader.list("a", positive), None);
        let problems = problems.into_sorted();
        let marked: Vec<&str> = problems
            .iter()
            .map(|problem| &text[problem.span.clone()])
            .collect();
        assert_eq!(marked, ["\"x\"", "0"]);
        assert!(
            problems[0]
                .message
                .starts_with("each item of `a` in the plan must be an integer")
        );
    }

    #[test]
    fn numbers_keep_their_bounds() {
        let problems = problems_of("a = -1\nb = inf\nc = []\n", |table| {
            table.read("a", non_negative);
            table.read("b", positive_number);
            table.list("c", positive);
        });
        assert_eq!(problems.len(), 3, "{problems:?}");
        let radix = problems_of("a = 0x10\n", |table| {
            assert_eq!(table.read("a", positive).map(|a| a.value), Some(16));
        });
        assert!(radix.is_empty());
    }
}
