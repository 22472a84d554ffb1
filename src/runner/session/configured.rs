//! The configuration that LMCache runs with, once it is ready.

use anyhow::{Result, bail, ensure};

use super::Session;
use crate::matrix::Cell;
use crate::plan::server::{Launcher, LmcacheMode};
use crate::runner::log_marks::LogMarks;
use crate::server::{self, config_readback, key_check, vllm_tier};
use crate::verdict::log_counts::LogCounts;

impl Session {
    /// Reads back LMCache's configuration, and compares it with the rendered one.
    pub(super) async fn check_configuration(&mut self, cell: &Cell) -> Result<()> {
        let Some(rendered) = self.rendered.as_ref() else {
            return self.check_own_tier(cell);
        };
        let log = LogMarks::take(self.logs()).text_since(&LogMarks::default());
        let counts = LogCounts::of(&log);
        self.start_log.clone_from(&counts);
        if counts.without_compiled_ops {
            let warning = "LMCache's compiled operations did not load, as happens to a build for another \
                           torch; measured on an H200, it answers wrong without them \
                           (docs/compatibility.md)";
            self.warnings.push(warning.to_owned());
        }
        if let Some(version) = key_check::version_from_log(&log) {
            server::check_known(cell, rendered, Some(version))?;
        }
        ensure!(
            counts.unknown_keys.is_empty(),
            "LMCache does not know `{}` and goes on without; this version has no such key",
            counts.unknown_keys.join("`, `")
        );
        let wrong = match (cell.resolved.server.lmcache, self.server.lmcache_url()) {
            (LmcacheMode::InProcess, _) => {
                let expected = serde_yaml_ng::from_str(&rendered.text)?;
                config_readback::from_log(&log)
                    .map(|now| config_readback::differences(&expected, &now))
            }
            (LmcacheMode::MultiProcess, Some(url)) => {
                let arguments = rendered.arguments()?;
                let config = self.control.lmcache_config(url).await;
                config.map(|config| config_readback::server_differences(&arguments, &config))
            }
            (LmcacheMode::MultiProcess, None) => None,
        };
        match wrong {
            Some(wrong) if !wrong.is_empty() => {
                bail!(
                    "LMCache does not run with its rendered configuration: {}",
                    wrong.join("; ")
                )
            }
            None if cell.resolved.server.launcher != Launcher::External => {
                let warning = "LMCache does not report its configuration: it is not proven";
                self.warnings.push(warning.to_owned());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Looks in vLLM's log for a tier that it serves itself.
    fn check_own_tier(&mut self, cell: &Cell) -> Result<()> {
        if cell.resolved.server.launcher == Launcher::External {
            return Ok(());
        }
        let log = LogMarks::take(self.logs()).text_since(&LogMarks::default());
        match vllm_tier::check_start(cell.tier.kind, &log) {
            Ok(warning) => {
                self.warnings.extend(warning);
                Ok(())
            }
            Err(why) => bail!(why),
        }
    }
}
