//! How many bytes a tier stores of a token where it makes KV smaller: by its own files.

use std::path::Path;

use serde_json::Value;

use super::page_cache;
use crate::matrix::Cell;
use crate::plan::serializer::Serializer;
use crate::units::Bounds;

/// Adapters that store each chunk in a file of its own.
const A_FILE_A_CHUNK: [&str; 2] = ["fs", "fs_native"];

/// KV bytes per token in the files of the tier in `folder`; `None` where the tier stores KV as large as it
/// is, or in no files of whole chunks, and where several ranks have files of their own.
pub(super) fn bytes_per_token(cell: &Cell, folder: &Path) -> Option<Bounds> {
    let (tier, server) = (&cell.tier, &cell.resolved.server);
    tier.serializer(server.lmcache)
        .filter(Serializer::is_lossy)?;
    let adapter = tier.adapter.type_name(tier.kind)?;
    let ranks = server.args.get("tensor-parallel-size");
    let is_one = ranks.and_then(Value::as_u64).unwrap_or(1) == 1;
    let has_files = tier.kind.uses_disk() && A_FILE_A_CHUNK.contains(&adapter) && is_one;
    has_files.then(|| of_files(folder, tier.chunk_tokens()))?
}

/// By the files of `folder`, of which each holds a chunk.
fn of_files(folder: &Path, chunk_tokens: u32) -> Option<Bounds> {
    let files = page_cache::files_below(folder).ok()?;
    let sizes = files.iter().filter_map(|file| file.metadata().ok());
    let sizes: Vec<f64> = sizes.map(|file| file.len() as f64).collect();
    let bytes = sizes.iter().sum::<f64>() / sizes.len() as f64 / f64::from(chunk_tokens);
    (bytes > 0.0).then_some(Bounds::exact(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_chunks_state_what_a_token_takes() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(of_files(folder.path(), 256), None, "nothing is stored");
        for name in ["a", "b"] {
            std::fs::write(folder.path().join(name), vec![1; 512]).unwrap();
        }
        assert_eq!(of_files(folder.path(), 256), Some(Bounds::exact(2.0)));
    }
}
