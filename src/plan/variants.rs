//! The plan at each point of its further axes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::axes::{self, Axes, ExtraAxis};
use super::problem::{Problem, ProblemKind};
use super::reader::Problems;
use super::{Resolved, Variant, read_document};

/// Reads `document` again for each point of the further axes, with that point's values in it;
/// `resolved` is what it holds without them.
pub(super) fn read(
    document: &DeTable<'_>,
    file: &str,
    axes: &Axes,
    resolved: Resolved,
    problems: &Problems,
) -> Vec<Variant> {
    if axes.extra.is_empty() {
        return vec![Variant {
            extra: BTreeMap::new(),
            resolved: Arc::new(resolved),
        }];
    }
    let narrow = narrowed(document, axes);
    let points = points(&axes.extra);
    let variants = points
        .iter()
        .filter_map(|point| read_at((document, &narrow), file, &axes.extra, point, problems));
    variants.collect()
}

/// `document` with only those values on its further axes that partial cells name: what is read at
/// each point must not grow with the number of points.
fn narrowed<'d>(document: &DeTable<'d>, axes: &Axes) -> DeTable<'d> {
    let partial = axes.exclude.iter().chain(&axes.include);
    let named: HashSet<&(String, String)> = partial.flat_map(|cell| &cell.extra).collect();
    let mut narrow = document.clone();
    for axis in &axes.extra {
        let Some(values) = axis_of(&mut narrow, &axis.key) else {
            continue;
        };
        let mut retained = DeArray::new();
        for (value, item) in axis.values.iter().zip(values.iter()) {
            if named.contains(&(axis.key.clone(), axes::shown(&value.value))) {
                retained.push(item.clone());
            }
        }
        *values = retained;
    }
    narrow
}

/// The array of the further axis `key`.
fn axis_of<'t, 'd>(document: &'t mut DeTable<'d>, key: &str) -> Option<&'t mut DeArray<'d>> {
    let DeValue::Table(matrix) = document.get_mut("matrix")?.get_mut() else {
        return None;
    };
    match matrix.get_mut(key)?.get_mut() {
        DeValue::Array(values) => Some(values),
        _ => None,
    }
}

/// All points: of each axis, the index of a value.
fn points(axes: &[ExtraAxis]) -> Vec<Vec<usize>> {
    axes.iter().fold(vec![Vec::new()], |points, axis| {
        let with = |point: &Vec<usize>| {
            let point = point.clone();
            (0..axis.values.len()).map(move |index| [point.as_slice(), &[index]].concat())
        };
        points.iter().flat_map(with).collect()
    })
}

/// Reads the plan at one point, and reports the problems that it has only there.
fn read_at<'d>(
    (document, narrow): (&DeTable<'d>, &DeTable<'d>),
    file: &str,
    axes: &[ExtraAxis],
    point: &[usize],
    problems: &Problems,
) -> Option<Variant> {
    let mut changed = narrow.clone();
    let mut extra = BTreeMap::new();
    for (axis, &index) in axes.iter().zip(point) {
        extra.insert(axis.key.clone(), axes::shown(&axis.values[index].value));
        let value = value_of(document, &axis.key, index)?;
        if let Some(values) = axis_of(&mut changed, &axis.key)
            && values.iter().all(|there| there.span() != value.span())
        {
            values.push(value.clone());
        }
        if let Err(message) = put(&mut changed, axis, value) {
            let problem = Problem::new(axis.span.clone(), message, "name a key of the plan");
            // Once for all points.
            if !problems.holds(&problem) {
                problems.push(problem);
            }
        }
    }
    let here = Problems::default();
    let resolved = read_document(&changed, file, &here).resolved;
    for mut problem in here.into_sorted() {
        // The plan has it without this point's values too.
        if problems.holds(&problem) {
            continue;
        }
        let at = extra.iter().map(|(key, value)| match problem.kind {
            ProblemKind::Secret => format!("a value of {key}"),
            ProblemKind::Plain => format!("{key} = {value}"),
        });
        let at = at.collect::<Vec<_>>().join(", ");
        problem.message = format!("at {at}: {}", problem.message);
        problem.span = axes[0].span.clone();
        problems.push(problem);
    }
    Some(Variant {
        extra,
        resolved: Arc::new(resolved?),
    })
}

/// The value at `index` of the axis `key`.
fn value_of<'d>(document: &DeTable<'d>, key: &str, index: usize) -> Option<Spanned<DeValue<'d>>> {
    let matrix = document.get("matrix")?.get_ref().as_table()?;
    let values = matrix.get(key)?.get_ref().as_array()?;
    values.get(index).cloned()
}

/// Puts `value` at the axis's dotted key, making tables on the way.
fn put<'d>(
    document: &mut DeTable<'d>,
    axis: &ExtraAxis,
    value: Spanned<DeValue<'d>>,
) -> Result<(), String> {
    let key = &axis.key;
    let mut parts = key.split('.').peekable();
    let mut table = document;
    while let Some(part) = parts.next() {
        if part == "matrix" || part.is_empty() {
            return Err(format!("axis `{key}` cannot name the matrix itself"));
        }
        if parts.peek().is_none() {
            table.insert(named(part, &axis.span), value);
            return Ok(());
        }
        if table.get(part).is_none() {
            let empty = DeValue::Table(DeTable::new());
            let empty = Spanned::new(axis.span.clone(), empty);
            table.insert(named(part, &axis.span), empty);
        }
        let next = table.get_mut(part).map(Spanned::get_mut);
        let Some(DeValue::Table(next)) = next else {
            return Err(format!(
                "axis `{key}` goes through `{part}`, which is not a table"
            ));
        };
        table = next;
    }
    Err(format!("axis `{key}` names nothing"))
}

fn named<'d>(part: &str, span: &Range<usize>) -> Spanned<Cow<'d, str>> {
    Spanned::new(span.clone(), Cow::Owned(part.to_owned()))
}
