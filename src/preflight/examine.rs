//! Examines this machine before a run: what is good, what is not, and what to do.

use super::line::{Level, Line};
use super::needs::Needs;
use super::{containers, gpu, host, services, storage};
use crate::config::Settings;

/// Looks at everything. `image` is tried with a GPU where it is named.
pub(crate) async fn examine(settings: &Settings, needs: &Needs, image: Option<&str>) -> Vec<Line> {
    let gpu = gpu::Gpu::look();
    let mut lines = containers::look(needs, &gpu, image).await;
    lines.extend(gpu.lines(needs));
    lines.extend(storage::look(settings, needs));
    lines.extend(host::look(needs));
    lines.extend(services::look(settings, needs).await);
    lines
}

/// The worst of all.
pub(crate) fn worst(lines: &[Line]) -> Level {
    lines
        .iter()
        .map(|line| line.level)
        .max()
        .unwrap_or(Level::Good)
}
