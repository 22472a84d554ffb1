//! Keeps the page cache from answering for a disk tier.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{Advice, fadvise};

/// Whether a rendered LMCache configuration, YAML or arguments, reads and writes with `O_DIRECT`.
pub(crate) fn is_bypassed(rendered: &str) -> bool {
    rendered
        .lines()
        .filter(|line| !line.starts_with('#'))
        .any(|line| {
            let of = |key: &str| {
                let (_, rest) = line.split_once(key)?;
                let value = rest.trim_start_matches(['"', '\'', ' ', ':']);
                Some(value.to_ascii_lowercase().starts_with("true"))
            };
            // NIXL has another name for it.
            ["use_odirect", "use_direct_io"]
                .into_iter()
                .any(|key| of(key) == Some(true))
        })
}

/// Drops the pages of every file in `folder`, written ones after they are on the disk. Returns how
/// many files that were.
pub(crate) fn drop_files(folder: &Path) -> Result<u64> {
    let mut files = 0;
    for path in files_below(folder)? {
        // One that is removed meanwhile has no pages left.
        let Ok(file) = File::open(&path) else {
            continue;
        };
        // A dirty page cannot be dropped.
        file.sync_data()
            .with_context(|| format!("syncing `{}`", path.display()))?;
        fadvise(&file, 0, None, Advice::DontNeed)
            .with_context(|| format!("dropping the pages of `{}`", path.display()))?;
        files += 1;
    }
    Ok(files)
}

/// The regular files in `folder` and in the folders in it, to any depth.
///
/// # Errors
/// `folder` itself cannot be read.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("reading the folder `{}`", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries.flatten() {
        match entry.file_type() {
            // One that is removed meanwhile holds nothing.
            Ok(kind) if kind.is_dir() => {
                files.extend(files_below(&entry.path()).unwrap_or_default());
            }
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_key_are_seen() {
        assert!(is_bypassed("a: 1\nextra_config: {\"use_odirect\":true}\n"));
        assert!(is_bypassed("extra_config:\n  use_odirect: True\n"));
        assert!(is_bypassed("- {\"type\":\"fs\",\"use_odirect\": true}"));
        assert!(!is_bypassed("- {\"type\":\"fs\",\"use_odirect\": false}"));
        let nixl = "- {\"backend_params\": {\"use_direct_io\": \"true\"}}";
        assert!(is_bypassed(nixl) && !is_bypassed(&nixl.replace("true", "false")));
        assert!(!is_bypassed("# use_odirect: true\nchunk_size: 256"));
    }

    #[test]
    fn files_are_synced_and_dropped() {
        let dir = tempfile::tempdir_in(".").unwrap();
        std::fs::write(dir.path().join("a"), vec![1; 1 << 16]).unwrap();
        let inner = dir.path().join("folder/of/one");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("b"), vec![1; 1 << 16]).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("link")).unwrap();
        assert_eq!(drop_files(dir.path()).unwrap(), 2);
        assert!(drop_files(&dir.path().join("none")).is_err());
    }
}
