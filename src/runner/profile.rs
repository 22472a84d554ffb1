//! The profilers of `[profile]`, started and stopped around a measured window.

use anyhow::anyhow;
use tokio_util::sync::CancellationToken;

use crate::matrix::Cell;
use crate::server::control::Control;

/// A window that may be profiled.
pub struct Window {
    started: bool,
}

impl Window {
    /// Starts the server's profiler where the plan asks for it. That it cannot be is told, and the
    /// window is measured all the same.
    pub async fn open(cell: &Cell, control: &Control, warnings: &mut Vec<String>) -> Self {
        if cell.resolved.server.profile.is_none() {
            return Self { started: false };
        }
        match control.profiler("start_profile").await {
            Ok(()) => {
                let said = "profiled: these latencies hold the profiler's own work";
                if !warnings.iter().any(|warning| warning == said) {
                    warnings.push(said.to_owned());
                }
                Self { started: true }
            }
            Err(error) => {
                warnings.push(format!("not profiled: {error:#}"));
                Self { started: false }
            }
        }
    }

    /// Stops it, which writes the report: that may take minutes, for which nobody waits any more who
    /// told labrun to `stop`.
    pub async fn close(
        self,
        control: &Control,
        stop: &CancellationToken,
        warnings: &mut Vec<String>,
    ) {
        if !self.started {
            return;
        }
        let written = tokio::select! {
            written = control.profiler("stop_profile") => written,
            () = stop.cancelled() => Err(anyhow!("labrun was told to stop before it was written")),
        };
        if let Err(error) = written {
            warnings.push(format!("the profile may be incomplete: {error:#}"));
        }
    }
}
