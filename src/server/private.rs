//! A rendered configuration that holds a secret: in memory, for its user alone, gone with its server.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::LaunchScope;
use super::leftovers::{self, MEMORY, Mark};
use super::render::Rendered;
use crate::secret;

/// The folder of such files of one server; removed with it. Where labrun is killed, the next run and
/// `clean` find it by its name.
#[derive(Debug)]
pub(crate) struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// The one of the server whose folder is `server`. It is made when something is put into it.
    pub(crate) fn of(mark: &Mark, server: &Path) -> Self {
        let number = server.file_name().unwrap_or_default().to_string_lossy();
        Self(Path::new(MEMORY).join(leftovers::private_name(mark, &number)))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _absent = fs::remove_dir_all(&self.0);
    }
}

/// Where the rendered configuration of a server is: in its folder, or apart where it holds a secret.
pub(super) fn path(rendered: &Rendered, scope: &LaunchScope<'_>) -> PathBuf {
    if secret::is_in(&rendered.text) {
        let number = scope.folder.file_name().unwrap_or_default();
        let name = leftovers::private_name(scope.mark, &number.to_string_lossy());
        Path::new(MEMORY).join(name).join(rendered.file_name)
    } else {
        scope.folder.join(rendered.file_name)
    }
}

/// Writes the rendered configuration of a server to its [`path`].
pub(super) fn write(rendered: &Rendered, scope: &LaunchScope<'_>) -> Result<()> {
    let path = path(rendered, scope);
    let trouble = || format!("writing `{}`", path.display());
    if let Some(folder) = path.parent().filter(|folder| *folder != scope.folder) {
        // Made anew: a folder of somebody else is never written into.
        let _absent = fs::remove_dir_all(folder);
        let made = DirBuilder::new().mode(0o700).create(folder);
        made.with_context(|| format!("making the folder `{}`", folder.display()))?;
    }
    // After a restart it is there already.
    let _absent = fs::remove_file(&path);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(if secret::is_in(&rendered.text) {
            0o600
        } else {
            0o644
        })
        .open(&path)
        .with_context(trouble)?;
    file.write_all(rendered.text.as_bytes())
        .with_context(trouble)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_configuration_with_a_password_is_private_and_outside_the_results() {
        let results = tempfile::tempdir().unwrap();
        let settings = Config::load(None).unwrap().settings;
        let folder = results.path().join("private-test");
        fs::create_dir(&folder).unwrap();
        let mark = Mark::of_this_process("private");
        let scope = LaunchScope {
            settings: &settings,
            mark: &mark,
            folder: &folder,
            scratch: &folder,
            cancel: &CancellationToken::new(),
        };
        let rendered = |text: &str| Rendered {
            file_name: "lmcache.yaml",
            text: text.to_owned(),
        };
        let guard = PrivateFolder::of(&mark, &folder);
        let plain = rendered("chunk_size: 256\n");
        let secret = rendered("remote_url: \"redis://:canary@h:1\"\n");
        for _restart in 0..2 {
            write(&plain, &scope).unwrap();
            write(&secret, &scope).unwrap();
        }
        assert_eq!(path(&plain, &scope), folder.join("lmcache.yaml"));
        let written = path(&secret, &scope);
        assert!(
            !written.starts_with(results.path()),
            "{}",
            written.display()
        );
        assert_eq!(fs::metadata(&written).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(written.parent().unwrap()).unwrap().mode() & 0o777,
            0o700
        );
        assert_eq!(fs::read_to_string(&written).unwrap(), secret.text);
        drop(guard);
        assert!(!written.exists() && !written.parent().unwrap().exists());
    }
}
