//! The profilers of `[profile]`, started and stopped around a measured window.

use anyhow::anyhow;
use tokio_util::sync::CancellationToken;

use crate::matrix::Cell;
use crate::server::control::Control;

/// A window that may be profiled.
pub(super) struct Window {
    started: bool,
}

impl Window {
    /// Starts the server's profiler where the plan asks for it. A profiler that does
    /// not start is a warning, and the window is measured all the same.
    pub(super) async fn open(cell: &Cell, control: &Control, warnings: &mut Vec<String>) -> Self {
        if cell.resolved.server.profile.is_none() {
            return Self { started: false };
        }
        match control.profiler("start_profile").await {
            Ok(()) => {
                let warning = "profiled: these latencies hold the profiler's own work";
                if !warnings.iter().any(|known| known == warning) {
                    warnings.push(warning.to_owned());
                }
                Self { started: true }
            }
            Err(error) => {
                warnings.push(format!("not profiled: {error:#}"));
                Self { started: false }
            }
        }
    }

    /// Stops it, which writes the report: that may take minutes, and nothing waits for it once
    /// labrun is to `stop`.
    pub(super) async fn close(
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
            () = stop.cancelled() => Err(anyhow!("labrun stopped before it was written")),
        };
        if let Err(error) = written {
            warnings.push(format!("the profile may be incomplete: {error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::control::Endpoint;

    #[tokio::test]
    async fn a_stopped_run_does_not_wait_for_a_profile() {
        drop(rustls::crypto::ring::default_provider().install_default());
        // It takes a connection and never answers, as vLLM while nsys writes.
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let control = Control::new(Endpoint::new(&url, "m").unwrap()).unwrap();
        let (stop, mut warnings) = (CancellationToken::new(), Vec::new());
        let close = Window { started: true }.close(&control, &stop, &mut warnings);
        let stopped = async {
            let _peer = listener.accept().await.unwrap();
            stop.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = close => {}
            () = stopped => unreachable!("it waits for ever"),
        }
        assert_eq!(
            warnings,
            ["the profile may be incomplete: labrun stopped before it was written"]
        );
    }
}
