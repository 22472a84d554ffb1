//! Figures from per-request CSV files: those of the earlier lab, and ours, which have more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use polars::prelude::{DataFrame, DataType};
use polars_io::SerReader as _;
use polars_io::prelude::CsvReadOptions;

use crate::metric::Metric;
use crate::record::schema::{RequestOutcome, Source};
use crate::report::Drawing;
use crate::report::figure::{Dot, Figure, Picture};
use crate::stats::Summary;

/// What every file must have; times in seconds.
const NEEDED: [&str; 6] = ["ttft", "e2e", "prompt_len", "gen_len", "tier", "label"];

/// Requests that are one point of a figure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    label: String,
    gen_len: u32,
    /// Further axes: columns named by a dotted plan key.
    extra: Vec<(String, String)>,
    state: Option<String>,
    concurrency: Option<u32>,
    prompt_len: u32,
    tier: String,
    source: Option<Source>,
}

#[derive(Debug, Default)]
struct Values {
    ttft_ms: Vec<f64>,
    e2e_ms: Vec<f64>,
}

/// Draws TTFT and E2E from the requests in `paths`, each as PNG and SVG: the ends of file names
/// (`ttft.png`) and what the files hold.
///
/// Files need the columns `ttft` and `e2e` (seconds), `prompt_len`, `gen_len`, `tier` and
/// `label`. `state`, `concurrency`, `source`, `outcome` and further axes are used where they are
/// there. A request without both times, or whose outcome is not `ok`, is left out.
pub fn plot_lab_csvs(paths: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>> {
    let distinct: BTreeSet<&PathBuf> = paths.iter().collect();
    ensure!(!distinct.is_empty(), "no files to plot");
    let mut groups = BTreeMap::new();
    for path in &distinct {
        collect(path, &mut groups).with_context(|| format!("cannot plot `{}`", path.display()))?;
    }
    ensure!(
        !groups.is_empty(),
        "no answered request in {}",
        counted(distinct.len(), "file")
    );
    let notes = notes(&groups, distinct.len());
    let draw = |what: &str, metric, pick: fn(&Values) -> &Vec<f64>| {
        let dots: Vec<_> = groups
            .iter()
            .map(|(key, v)| dot(key, metric, pick(v)))
            .collect();
        Drawing::of(what, Picture::Lines(Figure::of(&dots, &[], notes.clone())))?.files()
    };
    let ttft = draw("ttft", Metric::Ttft, |values| &values.ttft_ms)?;
    let e2e = draw("e2e", Metric::E2e, |values| &values.e2e_ms)?;
    Ok(ttft.into_iter().chain(e2e).collect())
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

fn notes(groups: &BTreeMap<Key, Values>, files: usize) -> Vec<String> {
    let mut notes = vec![format!(
        "from {}, which hold no verdicts: whether each tier served was not checked here",
        counted(files, "CSV file")
    )];
    if groups.keys().any(|key| key.source.is_none()) {
        notes.push("some files do not say whether their numbers are measured or simulated".into());
    }
    notes
}

fn dot(key: &Key, metric: Metric, values_ms: &[f64]) -> Dot {
    let mut facts = vec![
        ("label".to_owned(), key.label.clone()),
        ("gen_len".to_owned(), key.gen_len.to_string()),
    ];
    facts.extend(key.extra.iter().cloned());
    facts.extend(
        key.state
            .iter()
            .map(|state| ("state".to_owned(), state.clone())),
    );
    Dot {
        facts,
        concurrency: key.concurrency,
        prompt_len: key.prompt_len,
        tier: key.tier.clone(),
        summary: Summary::of(metric, values_ms.to_vec()),
        verdict: None,
        source: key.source,
    }
}

fn collect(path: &Path, groups: &mut BTreeMap<Key, Values>) -> Result<()> {
    let table = Table::read(path)?;
    let missing: Vec<_> = NEEDED.into_iter().filter(|name| !table.has(name)).collect();
    if !missing.is_empty() {
        let (columns, have) = (missing.join("`, `"), table.names().join("`, `"));
        bail!("no column `{columns}`; it has `{have}`");
    }
    let (ttft, e2e) = (table.numbers("ttft")?, table.numbers("e2e")?);
    let (prompt_len, gen_len) = (table.numbers("prompt_len")?, table.numbers("gen_len")?);
    let (tier, label) = (table.words("tier")?, table.words("label")?);
    let optional = |name| {
        if table.has(name) {
            table.words(name).map(Some)
        } else {
            Ok(None)
        }
    };
    let (state, source, outcome) = (
        optional("state")?,
        optional("source")?,
        optional("outcome")?,
    );
    let concurrency = if table.has("concurrency") {
        Some(table.numbers("concurrency")?)
    } else {
        None
    };
    let further: Vec<_> = table
        .names()
        .into_iter()
        .filter(|name| name.contains('.'))
        .collect();
    let further: Vec<_> = further
        .into_iter()
        .map(|name| Ok((table.words(&name)?, name)))
        .collect::<Result<_>>()?;

    for at in 0..table.height() {
        let word = |column: &Option<Vec<Option<String>>>| column.as_ref()?[at].clone();
        let (Some(ttft_s), Some(e2e_s)) = (ttft[at], e2e[at]) else {
            continue;
        };
        if word(&outcome).is_some_and(|outcome| outcome != RequestOutcome::Ok.name()) {
            continue;
        }
        let lost = |name: &str| format!("row {} has no usable `{name}`", at + 1);
        let value = |(column, name): &(Vec<Option<String>>, String)| {
            Some((name.clone(), column[at].clone()?))
        };
        let key = Key {
            label: label[at].clone().with_context(|| lost("label"))?,
            gen_len: gen_len[at]
                .and_then(whole)
                .with_context(|| lost("gen_len"))?,
            extra: further.iter().filter_map(value).collect(),
            state: word(&state),
            concurrency: concurrency.as_ref().and_then(|column| whole(column[at]?)),
            prompt_len: prompt_len[at]
                .and_then(whole)
                .with_context(|| lost("prompt_len"))?,
            tier: tier[at].clone().with_context(|| lost("tier"))?,
            source: word(&source).as_deref().and_then(Source::from_name),
        };
        let values = groups.entry(key).or_default();
        values.ttft_ms.push(ttft_s * 1000.0);
        values.e2e_ms.push(e2e_s * 1000.0);
    }
    Ok(())
}

/// A count that a spreadsheet may have written as `1024.0`.
fn whole(value: f64) -> Option<u32> {
    let fits = value >= 1.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0;
    fits.then_some(value as u32)
}

/// A CSV file, its columns by name.
struct Table(DataFrame);

impl Table {
    fn read(path: &Path) -> Result<Self> {
        let frame = CsvReadOptions::default()
            .with_has_header(true)
            // Types are guessed from the whole file: a column may begin with empty fields.
            .with_infer_schema_length(None)
            .with_raise_if_empty(false)
            .try_into_reader_with_file_path(Some(path.to_owned()))?
            .finish()?;
        Ok(Self(frame))
    }

    fn height(&self) -> usize {
        self.0.height()
    }

    fn names(&self) -> Vec<String> {
        self.0
            .get_column_names_owned()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn has(&self, name: &str) -> bool {
        self.0.column(name).is_ok()
    }

    fn numbers(&self, name: &str) -> Result<Vec<Option<f64>>> {
        let column = self.0.column(name)?.strict_cast(&DataType::Float64);
        let column = column.with_context(|| format!("column `{name}` is not all numbers"))?;
        Ok(column.f64()?.iter().collect())
    }

    fn words(&self, name: &str) -> Result<Vec<Option<String>>> {
        let column = self.0.column(name)?.cast(&DataType::String)?;
        Ok(column
            .str()?
            .iter()
            .map(|word| word.map(str::to_owned))
            .collect())
    }
}

#[cfg(test)]
mod tests;
