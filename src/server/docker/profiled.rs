//! A containerised server under the profilers of `[profile]`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::super::{absolute, profile};
use super::secrets::INSIDE;
use crate::plan::profile_spec::ProfileSpec;

/// The parts of a container's body that profiling changes.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub command: Vec<String>,
    pub arguments: Vec<String>,
    /// Folders of this machine in the container.
    pub binds: &'a mut Vec<String>,
    pub environment: &'a mut BTreeMap<String, String>,
}

/// Makes the folder of this machine that reports go to.
pub(super) fn make_folder(server_folder: &Path) -> Result<()> {
    let reports = absolute(&profile::reports(server_folder))?;
    let folder = reports.parent().unwrap_or(&reports);
    std::fs::create_dir_all(folder)
        .with_context(|| format!("making the folder `{}`", folder.display()))
}

impl Line<'_> {
    /// Puts `profile` around it; reports come out in the run's folder. `nsys` must be in the image.
    pub(super) fn under(mut self, profile: &ProfileSpec, server_folder: &Path) -> Result<Self> {
        let reports = absolute(&profile::reports(server_folder))?;
        let folder = reports.parent().unwrap_or(&reports);
        let inside = format!("{INSIDE}/profiles");
        self.binds.push(format!("{}:{inside}", folder.display()));
        let inside = Path::new(&inside).join(reports.file_name().unwrap_or_default());
        self.arguments
            .extend(profile::vllm_arguments(profile, &inside));
        let command = self.command.into_iter().map(OsString::from).collect();
        let wrapped = profile::wrap(profile, command, &inside).into_iter();
        self.command = wrapped
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        for (name, value) in profile::environment(profile) {
            self.environment
                .insert((*name).to_owned(), (*value).to_owned());
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_a_container_come_out_in_the_runs_folder() {
        let run = tempfile::tempdir().unwrap();
        let (mut binds, mut environment) = (Vec::new(), BTreeMap::new());
        let line = Line {
            command: vec!["vllm".to_owned()],
            arguments: vec!["serve".to_owned()],
            binds: &mut binds,
            environment: &mut environment,
        };
        let folder = run.path().join("servers").join("3");
        let line = line.under(&ProfileSpec::default(), &folder).unwrap();
        let profiles = run.path().join("profiles");
        assert!(!profiles.exists(), "a command that is shown makes nothing");
        make_folder(&folder).unwrap();
        assert_eq!(line.command[..2], ["nsys", "profile"]);
        assert_eq!(line.command.last().unwrap(), "vllm");
        let output = "--output=/run/labrun/profiles/server-3".to_owned();
        assert!(line.command.contains(&output), "{:?}", line.command);
        assert_eq!(line.arguments[..2], ["serve", "--profiler-config"]);
        let bind = format!("{}:/run/labrun/profiles", profiles.display());
        assert_eq!(binds, [bind]);
        assert!(profiles.is_dir());
        assert_eq!(environment["VLLM_WORKER_MULTIPROC_METHOD"], "spawn");
    }
}
