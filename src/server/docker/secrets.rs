//! Secrets for a container: in files that only their owner can read, in memory, mounted read-only.
//! They stand in no environment that `docker inspect` shows, on no command line, on no disk.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{Gid, Uid, chown};

use super::super::LaunchScope;
use super::super::adapter;
use super::super::leftovers::{MEMORY, Mark, secrets_name};
use crate::matrix::Cell;
use crate::plan::docker_spec::DockerSpec;
use crate::secret;

/// The container's folder of what labrun mounts.
pub(super) const INSIDE: &str = "/run/labrun";
/// The program that puts secrets into the environment and becomes the server.
const WRAPPER: &str = "set -a; . /run/labrun/secrets; set +a; exec \"$@\"";

/// Secrets that a cell's containers get: the token, what the plan names, and settings whose names
/// mark them as secret.
pub(super) fn values(
    cell: &Cell,
    spec: &DockerSpec,
    scope: LaunchScope<'_>,
) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let machine = scope
        .settings
        .env
        .iter()
        .filter(|(name, _)| secret::name::is_secret(name));
    all.extend(machine.map(|(name, value)| (name.clone(), value.clone())));
    if let Some(token) = std::env::var("HF_TOKEN")
        .ok()
        .filter(|token| !token.is_empty())
    {
        all.insert("HF_TOKEN".to_owned(), token);
    }
    let reads_url = super::has_lmcache_server(cell) && !super::has_own_redis(cell);
    if reads_url {
        let login = adapter::login(cell.tier.kind, &scope.settings.redis.url).into_iter();
        all.extend(login.map(|(name, value)| (name.to_owned(), value)));
    }
    for name in &spec.secrets {
        let value = std::env::var(name).with_context(|| {
            format!("`secrets` in [server] names `{name}`, which is not set; set it in the environment or in `.env`")
        })?;
        secret::remember(&value);
        all.insert(name.clone(), value);
    }
    all.retain(|name, _| !cell.resolved.server.env.contains_key(name));
    Ok(all)
}

/// The files of one server's secrets; removed with it.
#[derive(Debug)]
pub(super) struct Secrets {
    folder: PathBuf,
    /// Whether there is a Hugging Face token.
    has_token: bool,
    /// Whether there are others.
    has_others: bool,
}

impl Secrets {
    /// Writes `values`: `HF_TOKEN` into a file of its own, which the Hugging Face libraries read by
    /// themselves, others into one that the server's wrapper reads. `user` is the container's.
    pub(super) fn write(
        values: &BTreeMap<String, String>,
        user: &str,
        mark: &Mark,
        server: &str,
    ) -> Result<Option<Self>> {
        if values.is_empty() {
            return Ok(None);
        }
        let folder = Path::new(MEMORY).join(secrets_name(mark, server));
        let _old = fs::remove_dir_all(&folder);
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("making the folder `{}`", folder.display()))?;
        let mut secrets = Self {
            folder,
            has_token: false,
            has_others: false,
        };
        let owner = numeric(user);
        let mut others = String::new();
        for (name, value) in values {
            if name == "HF_TOKEN" {
                secrets.has_token = true;
                secrets.put("hf_token", value, owner)?;
            } else {
                let quoted = value.replace('\'', r"'\''");
                others.push_str(&format!("{name}='{quoted}'\n"));
            }
        }
        if !others.is_empty() {
            secrets.has_others = true;
            secrets.put("secrets", &others, owner)?;
        }
        Ok(Some(secrets))
    }

    fn put(&self, name: &str, text: &str, owner: Option<(Uid, Option<Gid>)>) -> Result<()> {
        let path = self.folder.join(name);
        let trouble = || format!("writing `{}`", path.display());
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(trouble)?;
        file.write_all(text.as_bytes()).with_context(trouble)?;
        if let Some((user, group)) = owner {
            // Only root can give a file away; without it the container's user must be this one.
            let _unchanged = chown(&path, Some(user), group);
        }
        Ok(())
    }

    /// `HOST:CONTAINER:ro` of each file.
    pub(super) fn binds(&self) -> Vec<String> {
        let all = [("hf_token", self.has_token), ("secrets", self.has_others)];
        all.iter()
            .filter(|(_, is_there)| *is_there)
            .map(|(name, _)| format!("{}:{INSIDE}/{name}:ro", self.folder.join(name).display()))
            .collect()
    }

    /// The variable that names the file of the token.
    pub(super) fn environment(&self) -> Option<String> {
        self.has_token
            .then(|| format!("HF_TOKEN_PATH={INSIDE}/hf_token"))
    }

    /// `command`, after the secrets were put into its environment where there are any.
    pub(super) fn wrapped(&self, command: &[String]) -> Vec<String> {
        if !self.has_others {
            return command.to_vec();
        }
        let mut all: Vec<String> = ["sh", "-c", WRAPPER, "labrun"].map(str::to_owned).into();
        all.extend_from_slice(command);
        all
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

/// Lets the user of a container read the file at `path` where that is private.
pub(super) fn hand_over(path: &Path, user: &str) {
    // Neither its group nor others may do anything.
    let is_private = fs::metadata(path).is_ok_and(|metadata| metadata.mode().trailing_zeros() >= 6);
    if let Some((user, group)) = numeric(user).filter(|_| is_private) {
        // Only root can give a file away; without it the container's user must be this one.
        let _unchanged = chown(path, Some(user), group);
    }
}

/// Numbers of `UID[:GID]`; a name is known only inside the image.
fn numeric(user: &str) -> Option<(Uid, Option<Gid>)> {
    let (uid, gid) = match user.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (user, None),
    };
    let gid = gid.and_then(|gid| gid.parse().ok()).map(Gid::from_raw);
    Some((Uid::from_raw(uid.parse().ok()?), gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark::of_this_process("secrets")
    }

    #[test]
    fn files_are_private_in_memory_and_gone_with_their_owner() {
        let values = BTreeMap::from([
            ("HF_TOKEN".to_owned(), "hf_canary".to_owned()),
            ("OTHER".to_owned(), "it's".to_owned()),
        ]);
        let secrets = Secrets::write(&values, "", &mark(), "u1").unwrap().unwrap();
        let folder = secrets.folder.clone();
        for name in ["hf_token", "secrets"] {
            let found = fs::metadata(folder.join(name)).unwrap();
            assert_eq!(found.mode() & 0o777, 0o600, "{name}");
        }
        let others = fs::read_to_string(folder.join("secrets")).unwrap();
        assert_eq!(others, "OTHER='it'\\''s'\n");
        let shown = format!(
            "{:?} {:?} {:?}",
            secrets.binds(),
            secrets.environment(),
            secrets.wrapped(&["vllm".to_owned()])
        );
        assert!(
            !shown.contains("canary") && shown.contains("HF_TOKEN_PATH"),
            "{shown}"
        );
        drop(secrets);
        assert!(!folder.exists());
    }

    #[test]
    fn a_token_alone_needs_no_wrapper() {
        let values = BTreeMap::from([("HF_TOKEN".to_owned(), "x".to_owned())]);
        let secrets = Secrets::write(&values, "", &mark(), "u2").unwrap().unwrap();
        assert_eq!(secrets.wrapped(&["vllm".to_owned()]), ["vllm"]);
        assert!(
            Secrets::write(&BTreeMap::new(), "", &mark(), "u3")
                .unwrap()
                .is_none()
        );
    }
}
