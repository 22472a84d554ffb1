//! The Docker daemon: where it is, as Docker's own client finds it, and how it is asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bollard::Docker;
use bollard::errors::Error;
use serde_json::Value;

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Longest wait for the first answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for any answer; creating a container from a large image on a slow disk takes long.
const ANSWER_LIMIT: Duration = Duration::from_secs(600);

/// A daemon that answered.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    /// Its client, in a version that both speak.
    pub docker: Docker,
    /// Address of the daemon, `unix://...` or `tcp://...`.
    pub host: String,
}

impl Daemon {
    /// The daemon that `DOCKER_HOST`, or else the current Docker context, names.
    pub(crate) async fn connect() -> Result<Self> {
        let host = host()?;
        check_transport(&host)?;
        let trouble = || {
            format!(
                "cannot reach Docker at `{host}`; is the daemon running, and may this user use it? \
                 (`docker version`; DOCKER_HOST names another)"
            )
        };
        let docker = client(&host).with_context(trouble)?;
        let asked = tokio::time::timeout(CONNECT_LIMIT, docker.negotiate_version()).await;
        let docker = asked
            .map_err(|_| anyhow!("no answer within {} s", CONNECT_LIMIT.as_secs()))
            .and_then(|answer| answer.map_err(plain))
            .with_context(trouble)?;
        Ok(Self { docker, host })
    }

    /// Whether its 127.0.0.1 and its files are this machine's.
    pub(crate) fn is_local(&self) -> bool {
        is_local(&self.host)
    }

    /// Refuses a daemon of another machine: its ports and files are not this machine's, and which labruns
    /// live there is unknown.
    pub(crate) fn check_is_local(&self) -> Result<()> {
        if self.is_local() {
            return Ok(());
        }
        bail!(
            "Docker at `{}` is another machine's: its containers' ports (on its 127.0.0.1) and the \
             files that they mount are not this machine's; run labrun there",
            self.host
        )
    }
}

fn is_local(host: &str) -> bool {
    let Some((scheme, rest)) = host.split_once("://") else {
        return false;
    };
    let name = rest.split(['/', '?']).next().unwrap_or(rest);
    let name = match name.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => name.split(':').next().unwrap_or(name),
    };
    let own = rustix::system::uname();
    let own = own.nodename().to_str().unwrap_or_default();
    scheme == "unix" || ["localhost", "127.0.0.1", "::1", own].contains(&name)
}

/// Refuses an address that labrun cannot speak to.
fn check_transport(host: &str) -> Result<()> {
    if host.starts_with("ssh://") {
        bail!(
            "labrun does not reach Docker over ssh (`{host}`): the daemon must be this machine's; run \
             labrun on that machine, with DOCKER_HOST={DEFAULT_HOST}"
        );
    }
    let tls = ["DOCKER_TLS_VERIFY", "DOCKER_TLS"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let is_tcp = host.starts_with("tcp://") || host.starts_with("http://");
    if is_tcp && tls || host.starts_with("https://") {
        bail!(
            "labrun does not speak TLS to Docker (`{host}`); use its socket, DOCKER_HOST={DEFAULT_HOST}"
        );
    }
    Ok(())
}

fn client(host: &str) -> Result<Docker> {
    let docker = Docker::connect_with_host(host).map_err(plain)?;
    Ok(docker.with_timeout(ANSWER_LIMIT))
}

/// Whether a daemon is to be expected: one is named, or the default socket is there.
pub(crate) fn may_be_there() -> bool {
    // A context that is named and missing is a daemon that was expected.
    host().map_or(true, |host| host != DEFAULT_HOST) || Path::new("/var/run/docker.sock").exists()
}

/// The address that Docker's own client would use: `DOCKER_HOST`, then `DOCKER_CONTEXT`, then the
/// current context of its configuration, then the default socket.
///
/// # Errors
/// Where the context that is named is missing.
fn host() -> Result<String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(host) = set("DOCKER_HOST") {
        return Ok(host);
    }
    let folder = set("DOCKER_CONFIG").map(PathBuf::from).or_else(|| {
        let home = std::env::home_dir()?;
        Some(home.join(".docker"))
    });
    let named = match folder {
        Some(folder) => context_host(&folder, set("DOCKER_CONTEXT"))?,
        None => None,
    };
    Ok(named.unwrap_or_else(|| DEFAULT_HOST.to_owned()))
}

/// The host of a context, from the files that `docker context create` writes.
fn context_host(folder: &Path, named: Option<String>) -> Result<Option<String>> {
    let json = |path: &Path| -> Option<Value> {
        serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
    };
    let current = || {
        let config = json(&folder.join("config.json"))?;
        config["currentContext"].as_str().map(str::to_owned)
    };
    let by = match &named {
        Some(_) => "DOCKER_CONTEXT".to_owned(),
        None => format!("`{}`", folder.join("config.json").display()),
    };
    let Some(name) = named.or_else(current).filter(|name| name != "default") else {
        return Ok(None);
    };
    let entries = std::fs::read_dir(folder.join("contexts/meta"));
    let mut entries = entries.into_iter().flatten().flatten();
    let host = entries.find_map(|entry| {
        let meta = json(&entry.path().join("meta.json"))?;
        let host = meta["Endpoints"]["docker"]["Host"].as_str()?;
        (meta["Name"] == *name).then(|| host.to_owned())
    });
    match host {
        Some(host) => Ok(Some(host)),
        None => bail!(
            "{by} names the Docker context `{name}`, which `{}` does not hold; see `docker context ls`",
            folder.display()
        ),
    }
}

/// The daemon's own words where it answered with an error.
pub(crate) fn plain(error: Error) -> anyhow::Error {
    match error {
        Error::DockerResponseServerError { message, .. } => anyhow!(message.trim().to_owned()),
        Error::DockerStreamError { error } => anyhow!(error),
        other => anyhow!(other),
    }
}

/// The HTTP status of the daemon's error answer.
pub(crate) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_of_another_machine_is_known() {
        for local in [
            "unix:///var/run/docker.sock",
            "tcp://127.0.0.1:2375",
            "tcp://localhost:2375/",
            "tcp://[::1]:2375",
        ] {
            assert!(is_local(local), "{local}");
        }
        for other in ["tcp://10.0.0.7:2375", "tcp://gpu-box:2375", "nonsense"] {
            assert!(!is_local(other), "{other}");
        }
        let own = rustix::system::uname();
        let own = format!("tcp://{}:2375", own.nodename().to_str().unwrap());
        assert!(is_local(&own), "{own}");
    }

    #[test]
    fn a_context_names_the_host_as_docker_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().join("contexts/meta/0f");
        std::fs::create_dir_all(&meta).unwrap();
        let text = r#"{"Name": "box", "Endpoints": {"docker": {"Host": "ssh://me@box"}}}"#;
        std::fs::write(meta.join("meta.json"), text).unwrap();
        let context_host = |folder: &Path, named| context_host(folder, named).unwrap();
        assert_eq!(context_host(dir.path(), None), None);
        let host = Some("ssh://me@box".to_owned());
        assert_eq!(context_host(dir.path(), Some("box".into())), host);
        assert_eq!(context_host(dir.path(), Some("default".into())), None);
        std::fs::write(
            dir.path().join("config.json"),
            r#"{"currentContext": "box"}"#,
        )
        .unwrap();
        assert_eq!(context_host(dir.path(), None), host);
    }

    #[test]
    fn a_context_that_is_missing_is_not_the_default_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = context_host(dir.path(), Some("box".into()))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("DOCKER_CONTEXT names the Docker context `box`"),
            "{error}"
        );
        let config = dir.path().join("config.json");
        for (text, missing) in [
            (r#"{"currentContext": "gone"}"#, true),
            (r#"{"currentContext": "default"}"#, false),
            ("{}", false),
            ("not JSON", false),
        ] {
            std::fs::write(&config, text).unwrap();
            assert_eq!(context_host(dir.path(), None).is_err(), missing, "{text}");
        }
    }
}
