//! The keys of `[server]` that say what a container gets: only for `launcher = "docker"`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::reader::TableReader;
use super::value::{array, describe, non_negative, positive, string, up_to};

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// Never: it must be there.
    Never,
    /// Where it is not there.
    #[default]
    Missing,
    /// Before every start, so that a tag is the registry's newest.
    Always,
}

impl Pull {
    const NAMED: [(&'static str, Pull); 3] = [
        ("never", Self::Never),
        ("missing", Self::Missing),
        ("always", Self::Always),
    ];
}

/// The GPUs that a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gpus {
    /// None.
    #[default]
    None,
    /// All of the machine.
    All,
    /// This many, which Docker chooses.
    Count(u32),
    /// These, by index, UUID or CDI name.
    Ids(Vec<String>),
}

/// A folder or file of the host in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The host's path; `~/` is the home folder.
    pub source: PathBuf,
    /// The container's path.
    pub target: String,
    /// Whether the container may only read.
    pub read_only: bool,
}

/// Soft and hard limit; -1 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What holds at the start.
    pub soft: i64,
    /// What it can be raised to.
    pub hard: i64,
}

/// What a container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerSpec {
    /// Tag or digest.
    pub image: String,
    /// When it is fetched.
    pub pull: Pull,
    /// The program before vLLM's arguments, instead of the image's entrypoint.
    pub command: Vec<String>,
    /// Image of the LMCache server in multi-process mode; empty: `image`.
    pub lmcache_image: String,
    /// The program before the LMCache server's arguments.
    pub lmcache_command: Vec<String>,
    /// Image of a Redis of the redis tier's own; empty: the machine's `redis.url` is used.
    pub redis_image: String,
    /// Further folders and files of the host.
    pub mounts: Vec<Mount>,
    /// `host`, `private`, `shareable` or `container:NAME`; empty: Docker's default.
    pub ipc: String,
    /// Size of `/dev/shm`, bytes.
    pub shm_size_bytes: Option<u64>,
    /// Limits by name (`memlock`).
    pub ulimits: BTreeMap<String, Ulimit>,
    /// The GPUs that it sees.
    pub gpus: Gpus,
    /// `bridge`, `host` or a network's name; empty: Docker's default, or one of the cell's own
    /// where containers must reach each other.
    pub network: String,
    /// Port of 127.0.0.1 that the server is published on; `None`: one that is free.
    pub port: Option<u32>,
    /// `UID[:GID]` or a name; empty: the image's.
    pub user: String,
    /// CPUs, such as `0-15`; empty: all.
    pub cpuset: String,
    /// Memory limit, bytes.
    pub memory_bytes: Option<u64>,
    /// Variables of labrun's environment that reach the container by a file.
    pub secrets: Vec<String>,
    /// Whether the container serves labrun's simulator instead of vLLM ([server.sim] is there).
    pub simulator: bool,
}

/// The keys, for messages of other launchers.
const KEYS: [&str; 17] = [
    "image",
    "pull",
    "command",
    "lmcache_image",
    "lmcache_command",
    "redis_image",
    "mounts",
    "ipc",
    "shm_size",
    "ulimits",
    "gpus",
    "network",
    "port",
    "user",
    "cpuset",
    "memory",
    "secrets",
];

impl DockerSpec {
    /// Reads the keys of `[server]`; a missing `image` is a problem.
    pub fn read(table: &TableReader<'_>, simulator: bool) -> Self {
        let text = |key: &str| {
            table
                .read(key, string)
                .map_or(String::new(), |found| found.value)
        };
        let words = |key: &str, default: &[&str]| match table.read(key, array(string)) {
            Some(found) => found.value.into_iter().map(|word| word.value).collect(),
            None => default.iter().map(|word| (*word).to_owned()).collect(),
        };
        let image = table.require("image", string);
        let vllm: &[&str] = if simulator {
            &["labrun"]
        } else {
            &["vllm", "serve"]
        };
        let spec = Self {
            image: image.map_or(String::new(), |found| found.value),
            pull: table
                .choice("pull", &Pull::NAMED)
                .map_or(Pull::default(), |found| found.value),
            command: words("command", vllm),
            lmcache_image: text("lmcache_image"),
            lmcache_command: words("lmcache_command", &["lmcache", "server"]),
            redis_image: text("redis_image"),
            mounts: read_mounts(table),
            ipc: text("ipc"),
            shm_size_bytes: read_bytes(table, "shm_size"),
            ulimits: read_ulimits(table),
            gpus: read_gpus(table),
            network: text("network"),
            port: table.read("port", up_to(65_535)).map(|found| found.value),
            user: text("user"),
            cpuset: text("cpuset"),
            memory_bytes: read_bytes(table, "memory"),
            secrets: words("secrets", &[]),
            simulator,
        };
        spec.check(table);
        spec
    }

    /// Reports every key of a container's in `[server]` of another launcher.
    pub fn refuse(table: &TableReader<'_>) {
        for key in table.keys() {
            if KEYS.contains(&key.value.as_str()) {
                // Asked for, so that it is not called unknown besides.
                let _asked = table.value(&key.value);
                let message = format!("`{}` is only for `launcher = \"docker\"`", key.value);
                table.problems().add(key.span, message, "remove it");
            }
        }
    }

    fn check(&self, table: &TableReader<'_>) {
        let at = |key: &str| table.value(key).map_or(table.span(), |found| found.span);
        let add = |key: &str, message: &str, hint: &str| {
            table.problems().add(at(key), message, hint);
        };
        if self.network == "host" && !self.redis_image.is_empty() {
            add(
                "redis_image",
                "a Redis of the cell's own needs a network of the cell's own",
                "remove `network`, or `redis_image` (the machine's `redis.url` is used then)",
            );
        }
        if self.network == "none" {
            add(
                "network",
                "without a network nothing can be asked",
                "remove it",
            );
        }
        for name in &self.secrets {
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                let message = format!("`{name}` in `secrets` cannot name a variable");
                add(
                    "secrets",
                    &message,
                    "write the name only; its value is taken from the environment",
                );
            }
        }
    }
}

fn read_mounts(table: &TableReader<'_>) -> Vec<Mount> {
    let Some(found) = table.read("mounts", array(string)) else {
        return Vec::new();
    };
    let mut mounts = Vec::new();
    for item in found.value {
        match parse_mount(&item.value) {
            Some(mount) => mounts.push(mount),
            None => {
                let message = format!("`{}` in `mounts` is no mount", item.value);
                let hint = "write \"/HOST/PATH:/CONTAINER/PATH\", with \":ro\" behind it to forbid writing";
                table.problems().add(item.span, message, hint);
            }
        }
    }
    mounts
}

fn parse_mount(text: &str) -> Option<Mount> {
    let mut parts = text.split(':');
    let (source, target, mode) = (parts.next()?, parts.next()?, parts.next());
    let is_absolute = source.starts_with('/') || source.starts_with("~/");
    let read_only = match mode {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(_) => return None,
    };
    (is_absolute && target.starts_with('/') && parts.next().is_none()).then(|| Mount {
        source: PathBuf::from(source),
        target: target.to_owned(),
        read_only,
    })
}

fn read_bytes(table: &TableReader<'_>, key: &str) -> Option<u64> {
    let read = |value: &DeValue<'_>| {
        value
            .as_str()
            .and_then(parse_bytes)
            .ok_or_else(|| "a size such as \"16GiB\"".to_owned())
    };
    table.read(key, read).map(|found| found.value)
}

/// A size as Docker reads it: units are powers of 1024, with or without `iB`.
fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "b" => 0,
        "k" | "kib" | "kb" => 10,
        "m" | "mib" | "mb" => 20,
        "g" | "gib" | "gb" => 30,
        "t" | "tib" | "tb" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

fn read_ulimits(table: &TableReader<'_>) -> BTreeMap<String, Ulimit> {
    let mut all = BTreeMap::new();
    let Some(limits) = table.table("ulimits") else {
        return all;
    };
    for name in limits.keys() {
        let read = |value: &DeValue<'_>| {
            if value
                .as_integer()
                .is_some_and(|number| number.as_str() == "-1")
            {
                return Ok(-1);
            }
            let limit = non_negative(value)
                .ok()
                .and_then(|limit| i64::try_from(limit).ok());
            limit.ok_or_else(|| "a number, -1 for no limit".to_owned())
        };
        if let Some(found) = limits.read(&name.value, read) {
            let limit = Ulimit {
                soft: found.value,
                hard: found.value,
            };
            all.insert(name.value, limit);
        }
    }
    all
}

fn read_gpus(table: &TableReader<'_>) -> Gpus {
    let read = |value: &DeValue<'_>| {
        let wrong = || "\"all\", a number of GPUs, or a list of ids".to_owned();
        match value {
            DeValue::String(text) if text == "all" => Ok(Gpus::All),
            DeValue::Integer(_) => positive(value).map(Gpus::Count).map_err(|_| wrong()),
            DeValue::Array(_) => array(id)(value)
                .map(|ids| Gpus::Ids(ids.into_iter().map(|id| id.value).collect()))
                .map_err(|_| wrong()),
            _ => Err(format!("{}, not {}", wrong(), describe(value))),
        }
    };
    table
        .read("gpus", read)
        .map_or(Gpus::None, |found| found.value)
}

/// An index or a name.
fn id(value: &DeValue<'_>) -> Result<String, String> {
    match non_negative(value) {
        Ok(index) => Ok(index.to_string()),
        Err(_) => string(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_as_docker_reads_them() {
        assert_eq!(parse_bytes("16GiB"), Some(16 << 30));
        assert_eq!(parse_bytes("64m"), Some(64 << 20));
        assert_eq!(parse_bytes("512 b"), Some(512));
        for wrong in ["", "16", "GiB", "16XB", "0g", "99999999999t"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn mounts_are_absolute_on_both_sides() {
        let mount = parse_mount("/data:/models:ro").unwrap();
        assert_eq!((mount.target.as_str(), mount.read_only), ("/models", true));
        assert!(parse_mount("~/.cache:/x").is_some());
        for wrong in ["data:/x", "/data", "/a:b", "/a:/b:rx", "/a:/b:ro:z"] {
            assert_eq!(parse_mount(wrong), None, "{wrong}");
        }
    }
}
