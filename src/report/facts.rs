//! The facts of a run folder besides its cells.

use serde_json::Value;

use crate::record::manifest::Manifest;
use crate::record::redact;

const MAX_MANIFEST_CELLS: usize = 200;

/// The plan and the manifest of one run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RunFacts {
    /// The plan's name where the manifest records it, else the folder's.
    pub name: String,
    /// The plan's text.
    pub plan: Option<String>,
    /// The manifest, if there is one.
    pub manifest: Option<Manifest>,
}

impl RunFacts {
    /// How many cells were asked for, where the manifest lists them.
    pub(super) fn planned(&self) -> Option<usize> {
        let cells = &self.manifest.as_ref()?.cells;
        (!cells.is_empty()).then_some(cells.len())
    }

    /// The manifest as people read it, without secrets.
    pub(super) fn manifest_text(&self) -> Option<String> {
        let mut manifest = self.manifest.as_ref()?.known().ok()?;
        redact::json(&mut manifest);
        if let Some(cells) = manifest.get_mut("cells").and_then(Value::as_array_mut)
            && cells.len() > MAX_MANIFEST_CELLS
        {
            let more = cells.len() - MAX_MANIFEST_CELLS;
            cells.truncate(MAX_MANIFEST_CELLS);
            cells.push(Value::String(format!("and {more} more")));
        }
        serde_json::to_string_pretty(&manifest).ok()
    }
}
