//! The memory that this process's cgroups allow it, v1 and v2.

use std::fs;
use std::path::{Path, PathBuf};

/// A limit of memory, and what counts against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// The most that may be used, bytes.
    pub max_bytes: u64,
    /// What is used, less the page cache that would make room, bytes.
    pub used_bytes: u64,
}

impl Limit {
    /// What may still be used, bytes.
    pub(super) fn left(self) -> u64 {
        self.max_bytes.saturating_sub(self.used_bytes)
    }
}

/// Above this cgroup v1 means "no limit": it writes the largest number of pages.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// The names of files in one version of cgroups.
struct Version {
    /// Where its tree may be.
    roots: &'static [&'static str],
    max: &'static str,
    used: &'static str,
    /// The page cache that is not in use, in `memory.stat`.
    cache: &'static str,
}

const V1: Version = Version {
    roots: &["sys/fs/cgroup/memory"],
    max: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: "total_inactive_file ",
};
const V2: Version = Version {
    roots: &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
    max: "memory.max",
    used: "memory.current",
    cache: "inactive_file ",
};

/// The limit that leaves the least, of this process's cgroup and of all above it; `None` where none
/// limits it. `root` is `/`.
pub(super) fn tightest(root: &Path) -> Option<Limit> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = text.lines().flat_map(|line| limits_of(root, line));
    limits.min_by_key(|limit| limit.left())
}

/// The limits of one line of `/proc/self/cgroup`: `0::/path`, or `4:memory:/path`.
fn limits_of(root: &Path, line: &str) -> Vec<Limit> {
    let mut fields = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
    else {
        return Vec::new();
    };
    let version = match controllers {
        "" => V2,
        all if all.split(',').any(|one| one == "memory") => V1,
        _ => return Vec::new(),
    };
    let roots = version.roots.iter().map(|tree| root.join(tree));
    let folders = roots.flat_map(|tree| {
        // In a container the path may be the host's, and the tree begins at the container's own.
        let inside = tree.join(path.trim_start_matches('/'));
        let above: Vec<PathBuf> = inside.ancestors().map(Path::to_owned).collect();
        above
            .into_iter()
            .filter(move |folder| folder.starts_with(&tree))
    });
    folders
        .filter_map(|folder| limit_in(&folder, &version))
        .collect()
}

fn limit_in(folder: &Path, version: &Version) -> Option<Limit> {
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        text.trim().parse().ok()
    };
    // "max" means no limit: it does not parse.
    let max_bytes = number(version.max).filter(|max| *max < NO_LIMIT_BYTES)?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let mut lines = stat.lines();
    let cache = lines.find_map(|line| line.strip_prefix(version.cache)?.trim().parse().ok());
    let used: u64 = number(version.used).unwrap_or(0);
    Some(Limit {
        max_bytes,
        used_bytes: used.saturating_sub(cache.unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tightest limit in a tree of these files.
    fn within(files: &[(&str, &str)]) -> Option<(u64, u64)> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        tightest(root.path()).map(|limit| (limit.max_bytes, limit.used_bytes))
    }

    #[test]
    fn limits_of_both_versions_are_seen_also_those_above() {
        let v1 = (
            "proc/self/cgroup",
            "5:cpu,cpuacct:/x\n4:memory:/job/step\n0::/job/step\n",
        );
        let v2 = ("proc/self/cgroup", "0::/job/step\n");
        let (job, step) = (
            "sys/fs/cgroup/memory/job/",
            "sys/fs/cgroup/memory/job/step/",
        );
        for (files, expected) in [
            (vec![v2], None),
            (
                vec![v2, ("sys/fs/cgroup/job/step/memory.max", "max\n")],
                None,
            ),
            (
                vec![
                    v2,
                    ("sys/fs/cgroup/job/step/memory.max", "max\n"),
                    ("sys/fs/cgroup/job/memory.max", "5000\n"),
                    ("sys/fs/cgroup/job/memory.current", "3000\n"),
                    (
                        "sys/fs/cgroup/job/memory.stat",
                        "anon 5\ninactive_file 1000\n",
                    ),
                ],
                Some((5000, 2000)),
            ),
            (
                vec![
                    v2,
                    ("sys/fs/cgroup/unified/job/step/memory.max", "700\n"),
                    ("sys/fs/cgroup/unified/job/memory.max", "900\n"),
                ],
                Some((700, 0)),
            ),
            (
                vec![
                    v1,
                    (
                        &format!("{step}memory.limit_in_bytes"),
                        "9223372036854771712\n",
                    ),
                    (&format!("{job}memory.limit_in_bytes"), "5000\n"),
                    (&format!("{job}memory.usage_in_bytes"), "3000\n"),
                    (&format!("{job}memory.stat"), "total_inactive_file 500\n"),
                ],
                Some((5000, 2500)),
            ),
            // A container of version 1 sees the host's path, and its own tree.
            (
                vec![
                    ("proc/self/cgroup", "4:memory:/docker/0123\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "600\n"),
                ],
                Some((600, 0)),
            ),
        ] {
            assert_eq!(within(&files), expected, "{files:?}");
        }
    }
}
