//! The tables of a run made again, and compared with those in its folder.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::csv_table::Table;

/// Columns that depend on what `report` was asked, not on the cells alone.
const OF_OBJECTIVES: [&str; 2] = ["goodput", "slo_"];

/// Columns that name a row.
const NAMES: [&str; 10] = [
    "label",
    "gen_len",
    "state",
    "concurrency",
    "prompt_len",
    "tier",
    "repeat",
    "cell",
    "model",
    "source",
];

/// Columns of words, which another version may put otherwise.
const WORDS: [&str; 4] = ["reason", "bottleneck", "standing", "clarity"];

/// Most differing fields that are named.
const MAX_NAMED: usize = 5;

/// Where `stored`, the text of the table called `name`, differs from `made`, the same table made again. Columns
/// that only one of them has are not compared: another version may have written it.
pub(super) fn differences(name: &str, stored: &str, made: &str) -> Vec<String> {
    if stored == made {
        return Vec::new();
    }
    match (rows(stored), rows(made)) {
        (Ok(stored), Ok(made)) => compare(name, &stored, &made),
        (Err(error), _) => vec![format!("`{name}` cannot be read: {error:#}")],
        (_, Err(error)) => vec![format!("`{name}` cannot be made again: {error:#}")],
    }
}

type Fields = BTreeMap<String, String>;

/// The rows of a table by what names them.
fn rows(text: &str) -> Result<BTreeMap<String, Fields>> {
    let table = Table::parse(text)?;
    let mut rows = BTreeMap::new();
    for row in &table.rows {
        let value = |name: &str| row.get(name).unwrap_or_default().to_owned();
        let fields: Fields = table
            .names()
            .iter()
            .map(|name| (name.clone(), value(name)))
            .collect();
        let names = NAMES.iter().filter_map(|name| fields.get(*name));
        let mut key = names.map(String::as_str).collect::<Vec<_>>().join(" ");
        // Further axes are columns that this table of names does not have.
        while rows.contains_key(&key) {
            key.push('+');
        }
        rows.insert(key, fields);
    }
    Ok(rows)
}

fn compare(
    name: &str,
    stored: &BTreeMap<String, Fields>,
    made: &BTreeMap<String, Fields>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (key, fields) in made {
        let Some(other) = stored.get(key) else {
            found.push(format!("`{name}` lacks the row `{key}`"));
            continue;
        };
        for (column, value) in fields {
            let is_compared = !OF_OBJECTIVES.iter().any(|it| column.starts_with(it))
                && !WORDS.iter().any(|it| column.ends_with(it));
            if let Some(old) = other.get(column).filter(|old| is_compared && *old != value) {
                found.push(format!(
                    "`{name}`, row `{key}`: `{column}` is `{old}`, the cells give `{value}`"
                ));
            }
        }
    }
    let surplus = stored.keys().filter(|key| !made.contains_key(*key));
    found.extend(surplus.map(|key| format!("`{name}` has the row `{key}`, which no cell gives")));
    if found.len() > MAX_NAMED {
        let more = found.len() - MAX_NAMED;
        found.truncate(MAX_NAMED);
        found.push(format!(
            "`{name}` differs in {more} more places; `labrun report` writes it again"
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: &str =
        "tier,state,verdict,ttft_p50_ms,goodput_per_s,new\ncpu,cold,valid,1.500,,9\n";

    #[test]
    fn a_number_that_was_changed_a_row_too_few_and_one_too_many_are_found() {
        assert_eq!(differences("t", MADE, MADE), [""; 0]);
        let changed = MADE.replace("1.500", "1.400");
        assert_eq!(
            differences("t", &changed, MADE),
            ["`t`, row `cold cpu`: `ttft_p50_ms` is `1.400`, the cells give `1.500`"]
        );
        let head = MADE.lines().next().unwrap();
        assert_eq!(
            differences("t", &format!("{head}\n"), MADE),
            ["`t` lacks the row `cold cpu`"]
        );
        let more = format!("{MADE}disk,cold,valid,2,,9\n");
        assert_eq!(
            differences("t", &more, MADE),
            ["`t` has the row `cold disk`, which no cell gives"]
        );
        assert_eq!(differences("t", "a,b\n1", MADE).len(), 1);
    }

    #[test]
    fn objectives_and_columns_of_another_version_are_not_compared() {
        let other = "tier,state,verdict,ttft_p50_ms,goodput_per_s,old\ncpu,cold,valid,1.500,7,8\n";
        assert_eq!(differences("t", other, MADE), [""; 0]);
    }
}
