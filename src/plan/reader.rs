//! Reads TOML tables into typed values and collects every problem on the way.
//!
//! serde stops at the first error and loses positions inside flattened values; a plan author wants
//! all of them, each with its line. So tables are walked: each key is asked for once with the type
//! it must have, and [`TableReader::finish`] reports the keys that nobody asked for.

use std::cell::RefCell;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::problem::{Problem, suggestion};

/// A value and where it stands in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Byte range in the plan's text.
    pub span: Range<usize>,
}

/// The problems found so far.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// Adds one.
    pub fn add(&self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        let problem = Problem {
            span,
            message: message.into(),
            hint: hint.into(),
        };
        self.0.borrow_mut().push(problem);
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
        self.asked.borrow_mut().push(key.to_owned());
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
        let found = self.value(key)?;
        match read(found.value) {
            Ok(value) => Some(Located {
                value,
                span: found.span,
            }),
            Err(expected) => {
                let message = format!("`{key}` in {} must be {expected}", self.title());
                self.problems.add(
                    found.span,
                    message,
                    format!("found {}", describe(found.value)),
                );
                None
            }
        }
    }

    /// Like [`Self::read`], and a problem if the key is missing.
    pub fn require<T>(
        &self,
        key: &str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<Located<T>> {
        if self.table.get(key).is_none() {
            self.asked.borrow_mut().push(key.to_owned());
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
        let found = self.read(key, string)?;
        match choices.iter().find(|(name, _)| *name == found.value) {
            Some((_, value)) => Some(Located {
                value: *value,
                span: found.span,
            }),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                let message = format!("`{key}` in {} is `{}`", self.title(), found.value);
                self.problems
                    .add(found.span, message, suggestion(&found.value, &names));
                None
            }
        }
    }

    /// A reader of the sub-table `key`, if it is there.
    pub fn table(&self, key: &str) -> Option<TableReader<'t>> {
        let found = self.value(key)?;
        let name = self.sub_name(key);
        if let DeValue::Table(table) = found.value {
            return Some(TableReader::new(&name, table, found.span, self.problems));
        }
        let message = format!("`{name}` must be a table");
        self.problems.add(
            found.span,
            message,
            format!("found {}", describe(found.value)),
        );
        None
    }

    /// Readers of every sub-table of an array of tables (`[[key]]`).
    pub fn tables(&self, key: &str) -> Vec<TableReader<'t>> {
        let Some(found) = self.value(key) else {
            return Vec::new();
        };
        let name = self.sub_name(key);
        let DeValue::Array(items) = found.value else {
            let message = format!("`{name}` must be an array of tables, written [[{name}]]");
            self.problems.add(
                found.span,
                message,
                format!("found {}", describe(found.value)),
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
                        .add(item.span(), message, format!("found {}", describe(other)));
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
        let asked = self.asked.borrow();
        let valid: Vec<&str> = asked.iter().map(String::as_str).collect();
        for key in self.keys() {
            if !valid.contains(&key.value.as_str()) {
                let message = format!("unknown key `{}` in {}", key.value, self.title());
                self.problems
                    .add(key.span, message, suggestion(&key.value, &valid));
            }
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

/// A value as it is described to the person who wrote it.
pub fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.is_empty() => "an empty string".to_owned(),
        DeValue::String(text) => format!("the string \"{text}\""),
        DeValue::Integer(number) => format!("the integer {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(flag) => format!("`{flag}`"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(items) if items.is_empty() => "an empty array".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A string that is not empty.
pub fn string(value: &DeValue<'_>) -> Result<String, String> {
    match value.as_str() {
        Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("a string that is not empty".to_owned()),
    }
}

/// `true` or `false`.
pub fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| "`true` or `false`".to_owned())
}

/// An integer as TOML writes it, in any radix.
fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// An integer of at least 1 that fits 32 bits.
pub fn positive(value: &DeValue<'_>) -> Result<u32, String> {
    integer(value)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("an integer from 1 to {}", u32::MAX))
}

/// An integer of at least 0.
pub fn non_negative(value: &DeValue<'_>) -> Result<u64, String> {
    integer(value)
        .and_then(|number| u64::try_from(number).ok())
        .ok_or_else(|| format!("an integer from 0 to {}", i64::MAX))
}

/// A finite number above 0.
pub fn positive_number(value: &DeValue<'_>) -> Result<f64, String> {
    number(value)
        .filter(|number| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "a number above 0".to_owned())
}

/// A finite number of at least 0.
pub fn non_negative_number(value: &DeValue<'_>) -> Result<f64, String> {
    number(value)
        .filter(|number| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| "a number of at least 0".to_owned())
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        DeValue::Integer(_) => integer(value).map(|number| number as f64),
        _ => None,
    }
}

/// An array that is not empty, each item read by `read`.
pub fn array<T>(
    read: impl Fn(&DeValue<'_>) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<Vec<Located<T>>, String> {
    move |value| {
        let Some(items) = value.as_array().filter(|items| !items.is_empty()) else {
            return Err("an array that is not empty".to_owned());
        };
        items
            .iter()
            .map(|item| {
                read(item.get_ref())
                    .map(|value| Located {
                        value,
                        span: item.span(),
                    })
                    .map_err(|expected| {
                        format!("an array of which each item is {expected}; one is not")
                    })
            })
            .collect()
    }
}

/// Any TOML value but a date, as JSON, for keys that are handed on to a server.
pub fn json(value: &DeValue<'_>) -> Result<serde_json::Value, String> {
    use serde_json::Value;
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(_) => integer(value).ok_or("an integer of 64 bits")?.into(),
        DeValue::Float(_) => number(value)
            .and_then(serde_json::Number::from_f64)
            .map(Value::Number)
            .ok_or("a finite number")?,
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(_) => return Err("a string, a number, a flag, a list or a table".into()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| json(item.get_ref()))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => Value::Object(
            table
                .iter()
                .map(|(key, item)| Ok((key.get_ref().to_string(), json(item.get_ref())?)))
                .collect::<Result<_, String>>()?,
        ),
    })
}

#[cfg(test)]
mod tests {
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
        let found = problems_of(text, |table| {
            table.read("seed", non_negative);
            table.read("requests", positive);
            table.choice("order", &[("grouped", 1), ("interleaved", 2)]);
        });
        assert_eq!(
            found,
            [
                "unknown key `sead` in the plan | did you mean `seed`?",
                "`requests` in the plan must be an integer from 1 to 4294967295 | \
                 found the integer 0",
                "`order` in the plan is `groupd` | did you mean `grouped`?",
            ]
        );
    }

    #[test]
    fn numbers_keep_their_bounds() {
        let found = problems_of("a = -1\nb = inf\nc = []\n", |table| {
            table.read("a", non_negative);
            table.read("b", positive_number);
            table.read("c", array(positive));
        });
        assert_eq!(found.len(), 3, "{found:?}");
        let radix = problems_of("a = 0x10\n", |table| {
            assert_eq!(table.read("a", positive).map(|a| a.value), Some(16));
        });
        assert!(radix.is_empty());
    }
}
