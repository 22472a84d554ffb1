//! Opens a run's folder for writing: new, or with an earlier attempt at the run in it.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::lock::{LOCK_FILE, Lock};
use super::resume;
use super::writer::{
    ASIDE, Attempt, RunFolder, is_being_written, refuse_link, sync_folder, write_manifest,
    write_synced,
};
use crate::bounded;
use crate::record::manifest::Manifest;
use crate::record::schema::FORMAT;

/// A run's folder that is locked, and read as far as it goes.
#[derive(Debug)]
pub(crate) struct Opened {
    path: PathBuf,
    lock: Lock,
    events: File,
    /// The manifest of the last attempt; absent where none came far enough to write one.
    pub manifest: Option<Manifest>,
    /// What was found that a person should know.
    pub notes: Vec<String>,
}

impl Opened {
    /// Locks the folder at `path`, which is made where it is missing, and opens what is written
    /// first: a folder that cannot be written fails here and not after an hour. With `resume` it
    /// may hold a run.
    pub(crate) fn open(path: &Path, resume: bool) -> Result<Self> {
        let is_empty = !fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if !resume && !is_empty {
            bail!(
                "`{0}` exists and is not empty; continue it with --resume, or name another folder \
                 with --out",
                path.display()
            );
        }
        refuse_newer(path)?;
        let folder = |error| {
            let path = path.display();
            format!("making the run folder `{path}`: {error}; name another with --out")
        };
        fs::create_dir_all(path).map_err(|error| anyhow::anyhow!(folder(error)))?;
        let lock = Lock::take(path)?;
        // Read again under the lock: whoever had it may have written meanwhile.
        let manifest = refuse_newer(path)?;
        let mut notes = Vec::new();
        if manifest.is_none() {
            refuse_strangers(path)?;
        }
        if let Some(owner) = &lock.stale {
            notes.push(format!(
                "process {} on {}, which had this folder since {}, is gone; taking it over",
                owner.pid, owner.host, owner.since
            ));
        }
        let cells = path.join("cells");
        refuse_link(&cells)?;
        fs::create_dir_all(&cells).map_err(|error| anyhow::anyhow!(folder(error)))?;
        remove_torn(path)?;
        let (events, torn_bytes) = open_events(&path.join("events.jsonl"))?;
        if torn_bytes > 0 {
            notes.push(format!(
                "the last line of `events.jsonl` was cut short by {torn_bytes} bytes that were torn"
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            lock,
            events,
            manifest,
            notes,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins an attempt: writes the plan's text and, last, the manifest. The plan and the manifest
    /// of the attempt before stay in the folder.
    pub(crate) fn begin(self, mut manifest: Manifest, plan: &str) -> Result<RunFolder> {
        manifest.format = FORMAT;
        let last = self.manifest.as_ref().and_then(|last| last.attempt);
        let number = self.manifest.as_ref().map_or(1, |_| last.unwrap_or(1) + 1);
        manifest.attempt = Some(number);
        if let Some(last) = self.manifest {
            manifest.run.clone_from(&last.run);
            manifest.earlier_attempts = earlier_attempts(last)?;
        }
        let plan_file = self.path.join("plan.toml");
        match fs::read(&plan_file) {
            Ok(text) if text != plan.as_bytes() => {
                resume::put_aside(&self.path, &plan_file)?;
            }
            _ => {}
        }
        write_synced(&plan_file, plan.as_bytes())?;
        write_manifest(&self.path, &manifest)?;
        sync_folder(&self.path)?;
        Ok(RunFolder {
            attempt: Attempt {
                number,
                started_at: manifest.started_at.unwrap_or_default(),
            },
            path: self.path,
            events: self.events,
            forgot_events: false,
            _lock: self.lock,
        })
    }
}

/// The manifests before this one, oldest first, without what the latest has too.
fn earlier_attempts(mut last: Manifest) -> Result<Vec<Value>> {
    let mut all = std::mem::take(&mut last.earlier_attempts);
    let mut value = serde_json::to_value(last)?;
    if let Value::Object(table) = &mut value {
        for key in ["cells", "format"] {
            table.remove(key);
        }
    }
    all.push(value);
    Ok(all)
}

/// The manifest of the run in `folder`, if there is one that this labrun can continue.
fn refuse_newer(folder: &Path) -> Result<Option<Manifest>> {
    Manifest::read(folder).with_context(|| {
        let folder = folder.display();
        format!("`{folder}` cannot be continued, and nothing in it was changed")
    })
}

/// A folder without a manifest is continued only if all in it is what a killed start leaves.
fn refuse_strangers(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        // A cluster's shards and their jobs lie beside what they are joined to.
        let ours = [
            LOCK_FILE,
            "cells",
            "plan.toml",
            "events.jsonl",
            "shards",
            "submit",
        ];
        let ours = ours.contains(&&*name);
        if !ours && !name.starts_with(".tmp-") {
            bail!(
                "`{}` holds `{name}` and no `manifest.json`: it is not a run folder; name another with \
                 --out",
                folder.display()
            );
        }
    }
    Ok(())
}

/// Removes what an attempt that was killed left half done.
fn remove_torn(folder: &Path) -> Result<()> {
    for parent in [folder.to_owned(), folder.join("cells")] {
        for entry in fs::read_dir(&parent)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // A report may be written beside a run; a cell is written under the lock.
            if !name.starts_with(ASIDE) || (parent == folder && is_being_written(&name)) {
                continue;
            }
            let path = entry.path();
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.with_context(|| format!("removing the torn `{}`", path.display()))?;
        }
    }
    // Logs of servers that live no more; each cell's part was copied when it ended.
    match fs::remove_dir_all(folder.join("servers")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("removing the folder `servers` of the attempt before")
        }
        _ => Ok(()),
    }
}

/// Opens `events.jsonl` at its end, without the last line where that was torn.
fn open_events(path: &Path) -> Result<(File, u64)> {
    let opening = || format!("opening `{}`", path.display());
    let mut events = bounded::open_to_write(path).with_context(opening)?;
    let mut text = Vec::new();
    events.read_to_end(&mut text).with_context(opening)?;
    let whole = memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1);
    let torn = (text.len() - whole) as u64;
    if torn > 0 {
        events.set_len(whole as u64).with_context(opening)?;
    }
    events.seek(SeekFrom::End(0)).with_context(opening)?;
    Ok((events, torn))
}
