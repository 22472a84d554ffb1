//! The keys of `[server]` for containers: only for `launcher = "docker"`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::problem::suggestion;
use super::reader::TableReader;
use super::value::{non_negative, positive, string, up_to};

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// Never: it must exist already.
    Never,
    /// If it is missing.
    #[default]
    Missing,
    /// Before every start: a tag is the registry's newest.
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
    /// The container sees no GPU.
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
    /// The limit at the start.
    pub soft: i64,
    /// The value that it can be raised to.
    pub hard: i64,
}

/// The image, devices, mounts and limits of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerSpec {
    /// The image, with tag or digest.
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

/// The least memory that Docker limits a container to.
const MIN_MEMORY_BYTES: u64 = 6 << 20;

/// The limits that Docker knows.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

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
                .map_or(String::new(), |located| located.value)
        };
        let fitting = |key: &str, fits: fn(&str) -> bool, expected: &str| {
            let read = |value: &DeValue<'_>| {
                let text = value.as_str().filter(|text| fits(text));
                text.map(str::to_owned).ok_or_else(|| expected.to_owned())
            };
            table
                .read(key, read)
                .map_or(String::new(), |located| located.value)
        };
        let words = |key: &str, default: &[&str]| match table.list(key, string) {
            Some(located) => located.value.into_iter().map(|word| word.value).collect(),
            None => default.iter().map(|word| (*word).to_owned()).collect(),
        };
        let image = table.require("image", string);
        let vllm: &[&str] = if simulator {
            &["labrun"]
        } else {
            &["vllm", "serve"]
        };
        let spec = Self {
            image: image.map_or(String::new(), |located| located.value),
            pull: table
                .choice("pull", &Pull::NAMED)
                .map_or(Pull::default(), |located| located.value),
            command: words("command", vllm),
            lmcache_image: text("lmcache_image"),
            lmcache_command: words("lmcache_command", &["lmcache", "server"]),
            redis_image: text("redis_image"),
            mounts: read_mounts(table),
            ipc: fitting(
                "ipc",
                is_ipc,
                "`none`, `private`, `shareable`, `host` or `container:NAME`",
            ),
            shm_size_bytes: read_bytes(table, "shm_size"),
            ulimits: read_ulimits(table),
            gpus: read_gpus(table),
            network: text("network"),
            port: table
                .read("port", up_to(65_535))
                .map(|located| located.value),
            user: text("user"),
            cpuset: fitting("cpuset", is_cpuset, "CPUs such as `0-15` or `0,2,4`"),
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
                // Asked for: `finish` must not report it as unknown too.
                let _asked = table.value(&key.value);
                let message = format!("`{}` is only for `launcher = \"docker\"`", key.value);
                table.problems().add(key.span, message, "remove it");
            }
        }
    }

    fn check(&self, table: &TableReader<'_>) {
        let at = |key: &str| {
            table
                .value(key)
                .map_or(table.span(), |located| located.span)
        };
        let add = |key: &str, message: &str, hint: &str| {
            table.problems().add(at(key), message, hint);
        };
        for (key, name) in [
            ("image", &self.image),
            ("lmcache_image", &self.lmcache_image),
            ("redis_image", &self.redis_image),
        ] {
            if let Err(hint) = image(name)
                && !name.is_empty()
            {
                add(
                    key,
                    &format!("`{name}` cannot be the name of an image"),
                    hint,
                );
            }
        }
        if self
            .memory_bytes
            .is_some_and(|bytes| bytes < MIN_MEMORY_BYTES)
        {
            add(
                "memory",
                "Docker gives a container at least 6 MiB of memory",
                "write a size such as \"64GiB\"",
            );
        }
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
    let Some(located) = table.list("mounts", string) else {
        return Vec::new();
    };
    let mut mounts = Vec::new();
    for item in located.value {
        match parse_mount(&item.value) {
            Some(mount) => mounts.push(mount),
            None => {
                let message = format!("invalid mount `{}` in `mounts`", item.value);
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
    table.read(key, read).map(|located| located.value)
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
        if !ULIMITS.contains(&name.value.as_str()) {
            let message = format!("unknown key `{}` in {}", name.value, limits.title());
            limits
                .problems()
                .add(name.span, message, suggestion(&name.value, &ULIMITS));
            continue;
        }
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
        if let Some(located) = limits.read(&name.value, read) {
            let limit = Ulimit {
                soft: located.value,
                hard: located.value,
            };
            all.insert(name.value, limit);
        }
    }
    all
}

fn read_gpus(table: &TableReader<'_>) -> Gpus {
    let is_list = table
        .value("gpus")
        .is_some_and(|located| located.value.is_array());
    if is_list {
        let Some(located) = table.list("gpus", id) else {
            return Gpus::None;
        };
        for (index, item) in located.value.iter().enumerate() {
            if located.value[..index]
                .iter()
                .any(|earlier| earlier.value == item.value)
            {
                let message = format!("`gpus` in {} names `{}` twice", table.title(), item.value);
                table
                    .problems()
                    .add(item.span.clone(), message, "remove one");
            }
        }
        return Gpus::Ids(located.value.into_iter().map(|id| id.value).collect());
    }
    let read = |value: &DeValue<'_>| match value {
        DeValue::String(text) if text == "all" => Ok(Gpus::All),
        DeValue::Integer(_) if positive(value).is_ok() => positive(value).map(Gpus::Count),
        _ => Err("\"all\", a number of GPUs from 1, or a list of ids".to_owned()),
    };
    table
        .read("gpus", read)
        .map_or(Gpus::None, |located| located.value)
}

/// An index, a UUID or a CDI name.
fn id(value: &DeValue<'_>) -> Result<String, String> {
    let text = match non_negative(value) {
        Ok(index) => index.to_string(),
        Err(_) => string(value).unwrap_or_default(),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:/=".contains(c);
    if text.is_empty() || !text.chars().all(fits) {
        return Err("an index from 0, or a name such as `GPU-<UUID>`".to_owned());
    }
    Ok(text)
}

/// The name of an image, as Docker takes it.
///
/// # Errors
/// The reason why Docker would refuse it.
fn image(text: &str) -> Result<(), &'static str> {
    let lowercase = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    // An id of this machine's.
    if text.strip_prefix("sha256:").unwrap_or(text).len() == 64
        && text
            .strip_prefix("sha256:")
            .unwrap_or(text)
            .chars()
            .all(|c| c.is_ascii_hexdigit())
    {
        return Ok(());
    }
    if text.contains("://") {
        return Err("leave out what stands before and including `://`");
    }
    let (name, digest) = text
        .split_once('@')
        .map_or((text, None), |(name, digest)| (name, Some(digest)));
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("a digest is written `@sha256:` and 64 hexadecimal digits");
    }
    // A colon before the last slash is that of a registry's port.
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let tag = name[last..].find(':').map(|colon| last + colon);
    if let Some(tag) = tag.map(|colon| &name[colon + 1..]) {
        let fits = |(at, c): (usize, char)| {
            c.is_ascii_alphanumeric() || c == '_' || at > 0 && "-.".contains(c)
        };
        if tag.is_empty() || tag.len() > 128 || !tag.char_indices().all(fits) {
            return Err("a tag is 1 to 128 letters, digits, `_`, `.` and `-`");
        }
    }
    let mut parts: Vec<&str> = name[..tag.unwrap_or(name.len())].split('/').collect();
    let is_registry = |part: &str| part.contains(['.', ':']) || part == "localhost";
    if parts.len() > 1 && is_registry(parts[0]) {
        let (host, port) = parts[0].split_once(':').unwrap_or((parts[0], "0"));
        let fits = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        if host.is_empty() || !host.chars().all(fits) || port.parse::<u16>().is_err() {
            return Err("a registry is written `HOST` or `HOST:PORT`");
        }
        parts.remove(0);
    }
    if parts
        .iter()
        .any(|part| part.chars().any(|c| c.is_ascii_uppercase()))
    {
        return Err("write it in lowercase");
    }
    // Between letters and digits stand a dot, one or two underscores, or dashes.
    let is_part = |part: &&str| {
        let ends = part.starts_with(lowercase) && part.ends_with(lowercase);
        let mut between = part.split(lowercase).filter(|mark| !mark.is_empty());
        ends && between
            .all(|mark| [".", "_", "__"].contains(&mark) || mark.chars().all(|c| c == '-'))
    };
    if parts.iter().all(is_part) {
        Ok(())
    } else {
        Err(
            "write it as Docker does: lowercase letters and digits, with `.`, `_` or `-` between them",
        )
    }
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
}

/// CPUs as Docker takes them: `0-3,5`.
fn is_cpuset(text: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    text.split(',').all(|part| match part.split_once('-') {
        Some((from, to)) => matches!((number(from), number(to)), (Some(a), Some(b)) if a <= b),
        None => number(part).is_some(),
    })
}

fn is_ipc(text: &str) -> bool {
    let named = text.strip_prefix("container:");
    ["none", "private", "shareable", "host"].contains(&text)
        || named.is_some_and(|name| !name.is_empty())
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

    fn problems(text: &str) -> Vec<(String, String)> {
        let document = toml::de::DeTable::parse(text).unwrap();
        let problems = super::super::reader::Problems::default();
        let span = document.span();
        let table = TableReader::new("server", document.get_ref(), span, &problems);
        DockerSpec::read(&table, false);
        let problems = problems.into_sorted().into_iter();
        problems
            .map(|problem| (text[problem.span].to_owned(), problem.message))
            .collect()
    }

    #[test]
    fn names_of_images_are_those_that_docker_takes() {
        let id = "a".repeat(64);
        for name in [
            "redis",
            "redis:7",
            "vllm/vllm-openai:v0.24.0",
            "lmcache/vllm-openai:latest-nightly",
            "localhost/x",
            "localhost:5000/a/b__c/d-e.f:V1_2.3-x",
            "registry.example.com:443/a/b",
            "GHCR.io/a/b",
            &id,
            &format!("sha256:{id}"),
            &format!("vllm/vllm-openai@sha256:{id}"),
            &format!("vllm/vllm-openai:v1@sha256:{id}"),
        ] {
            assert_eq!(image(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "LMCache/vllm-openai:v0.4.7",
            "lmcache/vLLM",
            "docker://lmcache/vllm-openai",
            "lmcache/vllm openai",
            "lmcache/vllm-openai:",
            "lmcache/vllm-openai:v 1",
            "lmcache/vllm-openai:-v1",
            "/vllm",
            "lmcache/",
            "lmcache//vllm",
            "-x",
            "x-",
            "a..b",
            "a___b",
            "a@sha256:12",
            "a:b:c",
            ":5000/a",
            "h:port/a",
            "x\u{e9}",
        ] {
            assert!(image(name).is_err(), "{name}");
        }
    }

    #[test]
    fn what_docker_would_refuse_is_refused_where_it_stands() {
        for (line, at) in [
            ("ipc = \"Host\"", "\"Host\""),
            ("ipc = \"container:\"", "\"container:\""),
            ("cpuset = \"0-\"", "\"0-\""),
            ("cpuset = \"3-1\"", "\"3-1\""),
            ("cpuset = \"0,,2\"", "\"0,,2\""),
            ("memory = \"1m\"", "\"1m\""),
            ("memory = \"16\"", "\"16\""),
            ("gpus = 0", "0"),
            ("gpus = \"two\"", "\"two\""),
            ("gpus = [0, 0]", "0"),
            ("gpus = [0, -1]", "-1"),
            ("gpus = [0, \"a b\"]", "\"a b\""),
            ("gpus = []", "[]"),
            ("redis_image = \"Redis\"", "\"Redis\""),
            ("ulimits = { memlok = -1 }", "memlok"),
            ("command = [\"vllm\", 1]", "1"),
        ] {
            let problems = problems(&format!("image = \"a\"\n{line}\n"));
            assert_eq!(problems.len(), 1, "{line}: {problems:?}");
            assert_eq!(problems[0].0, at, "{line}: {problems:?}");
        }
        let good = "image = \"a\"\nipc = \"host\"\ncpuset = \"0-3,8\"\nmemory = \"64GiB\"\n\
                    gpus = [0, \"GPU-0a1b\", \"nvidia.com/gpu=1\"]\nulimits = { memlock = -1 }\n";
        assert_eq!(problems(good), []);
    }

    proptest::proptest! {
        #[test]
        fn no_name_of_an_image_makes_it_panic(name in "\\PC{0,40}") {
            let _any = image(&name);
        }
    }
}
