//! The folder of disk tiers: its room and speed, and how much of it RAM could hide.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::fs::{Advice, fadvise, statvfs};

use super::line::{Level, Line, gib};
use super::needs::Needs;
use crate::config::Settings;
use crate::runner::host::meminfo;

/// What is written and read back to time the device, bytes.
const PROBE_BYTES: usize = 128 << 20;
/// A disk tier on a slower disk loses against computing again on most models, bytes a second.
const SLOW: f64 = 500e6;
/// Free space wanted if the plan names no size, GiB.
const MIN_GIB: f64 = 10.0;

/// Examines the folder of disk tiers and the page cache.
pub(super) fn look(settings: &Settings, needs: &Needs) -> Vec<Line> {
    let named = &settings.paths.scratch;
    let folder = if named.as_os_str().is_empty() {
        &settings.paths.results
    } else {
        named
    };
    let folder = existing(folder);
    vec![room(&folder, needs), speed(&folder), page_cache(needs)]
}

/// The folder, or the nearest above it that is there.
fn existing(folder: &Path) -> PathBuf {
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let there = whole.ancestors().find(|folder| folder.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

fn room(folder: &Path, needs: &Needs) -> Line {
    let topic = "disk space";
    let fix = "set `paths.scratch` to a folder of a larger disk";
    match statvfs(folder) {
        Err(error) => Line::warning(topic, format!("`{}`: {error}", folder.display()), fix),
        Ok(space) => {
            let free = gib(space.f_bavail * space.f_frsize);
            let wanted = if needs.disk_gib > 0.0 {
                needs.disk_gib
            } else {
                MIN_GIB
            };
            let message = format!(
                "{free:.1} GiB are free for the disk tier in `{}`",
                folder.display()
            );
            if free >= wanted {
                Line::good(topic, message)
            } else {
                let level = Needs::level(needs.disk_gib > 0.0);
                Line::of(
                    topic,
                    level,
                    format!("{message}; {wanted:.1} are wanted"),
                    fix,
                )
            }
        }
    }
}

fn speed(folder: &Path) -> Line {
    let topic = "disk speed";
    match probe(folder) {
        Ok((write, read)) => {
            let message = format!(
                "writes {:.0} MB/s, reads {:.0} MB/s (128 MiB, page cache dropped)",
                write / 1e6,
                read / 1e6
            );
            if write.min(read) >= SLOW {
                Line::good(topic, message)
            } else {
                Line::warning(
                    topic,
                    message,
                    "a disk tier on a slow disk loses against computing again; set `paths.scratch` to an NVMe",
                )
            }
        }
        Err(error) => Line::of(
            topic,
            Level::Error,
            format!("{error:#}"),
            "set `paths.scratch` to a folder that can be written",
        ),
    }
}

/// Bytes a second: written and synced, then read back after the page cache was dropped.
fn probe(folder: &Path) -> Result<(f64, f64)> {
    let path = folder.join(format!(".labrun-doctor-{}", std::process::id()));
    let measured = measure(&path);
    let _absent = fs::remove_file(&path);
    measured.with_context(|| format!("writing and reading in `{}`", folder.display()))
}

fn measure(path: &Path) -> Result<(f64, f64)> {
    // Not all zeros, which some devices do not write.
    let mut block: Vec<u8> = (0..1 << 20)
        .map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let blocks = PROBE_BYTES / block.len();
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    let began = Instant::now();
    for _ in 0..blocks {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let write = PROBE_BYTES as f64 / began.elapsed().as_secs_f64();
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let mut file = File::open(path)?;
    let began = Instant::now();
    for _ in 0..blocks {
        file.read_exact(&mut block)?;
    }
    let read = PROBE_BYTES as f64 / began.elapsed().as_secs_f64();
    Ok((write, read))
}

fn page_cache(needs: &Needs) -> Line {
    let topic = "page cache";
    let Some(available) = meminfo("MemAvailable") else {
        return Line::warning(topic, "`/proc/meminfo` does not say", "");
    };
    let cached = meminfo("Cached").unwrap_or(0);
    let message = format!(
        "{:.1} GiB in use, {:.1} GiB could hold files of a disk tier",
        gib(cached),
        gib(available)
    );
    if needs.disk_gib > 0.0 && gib(available) > needs.disk_gib {
        let fix = "keep `extra_config.use_odirect` on (it is by default), or make the tier larger than RAM";
        return Line::warning(
            topic,
            format!("{message}: all {:.1} GiB of it", needs.disk_gib),
            fix,
        );
    }
    Line::good(topic, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_to_be_made_stands_for_the_one_above_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b")), dir.path());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_bad_and_the_probe_leaves_nothing() {
        assert_eq!(speed(Path::new("/proc")).level, Level::Error);
        let dir = tempfile::tempdir_in(".").unwrap();
        assert_ne!(speed(dir.path()).level, Level::Error);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_disk_that_is_too_small_for_the_plan_is_bad() {
        let needs = Needs {
            disk_gib: 1e9,
            ..Needs::default()
        };
        assert_eq!(room(Path::new("/"), &needs).level, Level::Error);
    }
}
