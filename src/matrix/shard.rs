//! A part of a matrix, for one of several machines.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Cell, Coordinates, Matrix, shares_server};
use crate::units::Repeat;

/// Shard `index` (from 1) of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shard {
    /// Number of the shard, from 1.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid shard `{text}`: expected INDEX/COUNT, for example 2/8");
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let index = index.parse().map_err(|_| wrong())?;
        let of = of.parse().map_err(|_| wrong())?;
        if (1..=of).contains(&index) {
            Ok(Self { index, of })
        } else {
            Err(wrong())
        }
    }
}

impl Matrix {
    /// The indices of the cells of `shard`, in order. What is compared stays on one machine: all
    /// tiers and repeats of one load; where servers are shared, the cells of one server. Where these
    /// are fewer than the shards, single cells are divided. The parts are as equal as the units allow
    /// (longest first, each to the shard that has least).
    pub fn cells_of(&self, shard: Shard) -> Vec<usize> {
        let of = shard.of as usize;
        let mut units = self.units();
        if units.len() < of {
            units = (0..self.cells.len()).map(|index| vec![index]).collect();
        }
        // Stable: equal units stay in the matrix's order.
        units.sort_by_key(|unit| std::cmp::Reverse(unit.len()));
        let mut parts: Vec<Vec<usize>> = vec![Vec::new(); of];
        for unit in units {
            if let Some(least) = parts.iter_mut().min_by_key(|part| part.len()) {
                least.extend(unit);
            }
        }
        let mut own = parts.swap_remove(shard.index as usize - 1);
        own.sort_unstable();
        own
    }

    /// The cells of `shard` alone.
    pub(crate) fn part(&self, shard: Shard) -> Self {
        Self {
            cells: self.cells.picked(&self.cells_of(shard)),
        }
    }

    fn units(&self) -> Vec<Vec<usize>> {
        let mut units: Vec<Vec<usize>> = Vec::new();
        let mut by_load: HashMap<Coordinates, usize> = HashMap::new();
        let mut before: Option<Cell> = None;
        for (index, cell) in self.cells.iter().enumerate() {
            let shared = before.is_some_and(|before| shares_server(&before, &cell));
            let load = Coordinates {
                repeat: Repeat::new(1).unwrap_or(cell.coordinates.repeat),
                ..cell.coordinates.without_tier()
            };
            let known = match shared {
                true => Some(units.len() - 1),
                false if cell.can_share() => None,
                false => by_load.get(&load).copied(),
            };
            let unit = known.unwrap_or_else(|| {
                units.push(Vec::new());
                units.len() - 1
            });
            by_load.entry(load).or_insert(unit);
            units[unit].push(index);
            before = Some(cell);
        }
        units
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn matrix(run: &str) -> Matrix {
        let text = format!(
            "name = \"t\"\nmodel = \"m\"\n[matrix]\ntier = [\"baseline\", \"cpu\", \"disk\"]\n\
             prompt_len = [512, 1024]\ngen_len = [8]\nconcurrency = [1, 2]\nlabel = [\"rag\"]\n\
             [run]\nrepeats = 2\n{run}\n[workload.rag]\nkind = \"shared-prefix\"\n\
             [server]\nlauncher = \"sim\"\n"
        );
        Matrix::expand(&Plan::parse(&text, "t").unwrap()).unwrap()
    }

    fn parts(matrix: &Matrix, of: u32) -> Vec<Vec<usize>> {
        let part = |index| matrix.cells_of(Shard { index, of });
        (1..=of).map(part).collect()
    }

    #[test]
    fn every_cell_is_in_one_shard_and_shards_are_alike() {
        for run in ["", "order = \"grouped\"\nreuse = \"server\""] {
            let matrix = matrix(run);
            for of in [1, 2, 3, 4, 5, 7, 24, 30] {
                let parts = parts(&matrix, of);
                let mut all: Vec<usize> = parts.iter().flatten().copied().collect();
                all.sort_unstable();
                assert_eq!(all, (0..24).collect::<Vec<_>>(), "{run} in {of}");
                let sizes = parts.iter().map(Vec::len);
                let spread = sizes.clone().max().unwrap() - sizes.min().unwrap();
                assert!(spread <= 8, "{run} in {of}: {spread}");
            }
        }
    }

    #[test]
    fn tiers_and_repeats_of_a_load_are_measured_on_one_machine() {
        let matrix = matrix("");
        for part in parts(&matrix, 4) {
            let mut loads: Vec<_> = part
                .iter()
                .map(|&index| matrix.cells.get(index).unwrap().coordinates)
                .map(|at| (at.prompt_len, at.concurrency))
                .collect();
            loads.sort_unstable();
            loads.dedup();
            assert_eq!((part.len(), loads.len()), (6, 1), "3 tiers, 2 repeats");
        }
    }

    #[test]
    fn cells_of_one_server_stay_together() {
        let matrix = matrix("order = \"grouped\"\nreuse = \"server\"");
        for part in parts(&matrix, 3) {
            let mut servers: Vec<_> = part
                .iter()
                .map(|&index| matrix.cells.get(index).unwrap().server_key.clone())
                .collect();
            servers.dedup();
            assert_eq!((part.len(), servers.len()), (8, 1));
        }
    }

    #[test]
    fn a_shard_is_written_as_index_and_count() {
        assert_eq!("2/8".parse(), Ok(Shard { index: 2, of: 8 }));
        for wrong in ["0/8", "9/8", "2", "a/b", "-1/2"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
