//! The cells of a matrix, each made on demand: a million cells are a million small numbers, not
//! texts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::coordinates::concerns;
use super::{Cell, Coordinates, inputs};
use crate::plan::tier::TierSpec;
use crate::plan::workload_spec::WorkloadSpec;
use crate::plan::{Resolved, Variant};
use crate::units::{Concurrency, GenLen, PromptLen, Repeat};

/// What all cells of one (variant, tier, label) share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// A hash of the plan's values, the label and the tier.
    digest: blake3::Hash,
    pub(super) label: String,
    pub(super) tier_name: String,
    pub(super) extra: BTreeMap<String, String>,
    pub(super) server_key: Arc<str>,
    resolved: Arc<Resolved>,
    tier: Arc<TierSpec>,
    workload: Arc<WorkloadSpec>,
}

/// One cell as numbers: which values it shares with others, and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CellIndex {
    pub(super) shared: u32,
    pub(super) prompt_len: PromptLen,
    pub(super) gen_len: GenLen,
    pub(super) concurrency: Concurrency,
    pub(super) repeat: Repeat,
}

impl Shared {
    pub(super) fn new(variant: &Variant, tier_name: &str, label: &str) -> Option<Self> {
        let resolved = &variant.resolved;
        let tier = resolved.tiers.get(tier_name)?;
        let workload = resolved.workloads.get(label)?;
        let server = (&resolved.model, &resolved.server, tier);
        // `serde_json` of these types cannot fail: no map has a key that is not a string.
        let server = serde_json::to_vec(&server).unwrap_or_default();
        let key = blake3::hash(&server).to_hex();
        let mut extra = variant.extra.clone();
        extra.retain(|key, _| concerns(key, tier_name, label));
        let all = (
            inputs::of(resolved, tier, workload),
            label,
            tier_name,
            &extra,
        );
        let all = serde_json::to_vec(&all).unwrap_or_default();
        Some(Self {
            digest: blake3::hash(&all),
            label: label.to_owned(),
            tier_name: tier_name.to_owned(),
            extra,
            server_key: Arc::from(&key[..16]),
            resolved: Arc::clone(resolved),
            tier: Arc::new(tier.clone()),
            workload: Arc::new(workload.clone()),
        })
    }

    fn cell(&self, cell_index: &CellIndex) -> Cell {
        let coordinates = Coordinates {
            label: self.label.clone(),
            tier: self.tier_name.clone(),
            prompt_len: cell_index.prompt_len,
            gen_len: cell_index.gen_len,
            concurrency: cell_index.concurrency,
            repeat: cell_index.repeat,
            extra: self.extra.clone(),
        };
        let mut bytes = [0_u8; 48];
        bytes[..32].copy_from_slice(self.digest.as_bytes());
        for (at, number) in [
            cell_index.prompt_len.get(),
            cell_index.gen_len.get(),
            cell_index.concurrency.get(),
            cell_index.repeat.get(),
        ]
        .into_iter()
        .enumerate()
        {
            bytes[32 + 4 * at..36 + 4 * at].copy_from_slice(&number.to_le_bytes());
        }
        let hash = blake3::hash(&bytes).to_hex();
        let mut id = coordinates.slug();
        id.push('-');
        id.push_str(&hash[..10]);
        Cell {
            id,
            coordinates,
            resolved: Arc::clone(&self.resolved),
            tier: Arc::clone(&self.tier),
            workload: Arc::clone(&self.workload),
            server_key: Arc::clone(&self.server_key),
        }
    }
}

/// All cells of a matrix, in order.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    shared: Vec<Shared>,
    cell_indices: Vec<CellIndex>,
}

impl Cells {
    pub(super) fn new(shared: Vec<Shared>, cell_indices: Vec<CellIndex>) -> Self {
        Self {
            shared,
            cell_indices,
        }
    }

    /// Those at `indices`, in that order.
    pub(super) fn picked(&self, indices: &[usize]) -> Self {
        let of = |index: &usize| self.cell_indices.get(*index).copied();
        Self {
            shared: self.shared.clone(),
            cell_indices: indices.iter().filter_map(of).collect(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.cell_indices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cell_indices.is_empty()
    }

    /// The cell at `index`.
    pub fn get(&self, index: usize) -> Option<Cell> {
        let cell_index = self.cell_indices.get(index)?;
        Some(
            self.shared
                .get(cell_index.shared as usize)?
                .cell(cell_index),
        )
    }

    /// The first cell of the order.
    pub fn first(&self) -> Option<Cell> {
        self.get(0)
    }

    /// All cells, each made anew.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            cells: self,
            range: 0..self.cell_indices.len(),
        }
    }

    /// One hash over the ids of all cells, in order.
    pub fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for cell in self {
            hasher.update(cell.id.as_bytes());
        }
        hasher.finalize()
    }
}

/// Cells, one after the other.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    cells: &'a Cells,
    range: std::ops::Range<usize>,
}

impl Iterator for Iter<'_> {
    type Item = Cell;

    fn next(&mut self) -> Option<Cell> {
        self.cells.get(self.range.next()?)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Cells {
    type Item = Cell;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use crate::matrix::Matrix;
    use crate::plan::Plan;

    fn axis(count: u32) -> String {
        let values: Vec<String> = (1..=count).map(|value| (value * 64).to_string()).collect();
        values.join(", ")
    }

    #[test]
    fn a_large_matrix_is_small_numbers_until_its_cells_are_asked_for() {
        let text = format!(
            "name = \"t\"\nmodel = \"m\"\n[matrix]\ntier = [\"baseline\", \"cpu\"]\n\
             prompt_len = [{}]\ngen_len = [{}]\nconcurrency = [1, 2]\nlabel = [\"rag\"]\n\
             [run]\nrepeats = 10\ncontrols = false\n[workload.rag]\nkind = \"shared-prefix\"\n\
             [server]\nlauncher = \"process\"\n",
            axis(10),
            axis(10)
        );
        let plan = Plan::parse(&text, "t").unwrap();
        let cells = Matrix::expand(&plan).unwrap().cells;
        assert_eq!(cells.len(), 4000);
        assert_eq!(cells.shared.len(), 2, "one a tier");
        assert!(size_of_val(&cells.cell_indices[0]) <= 20);
        let distinct: std::collections::HashSet<String> =
            cells.iter().map(|cell| cell.id).collect();
        assert_eq!(distinct.len(), 4000);
    }
}
