//! The configuration keys of each version of LMCache, by its own lists.
//!
//! LMCache only warns of a key that it does not know and goes on with its default. A typing error,
//! or a key of another version, would silently measure something else.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use super::problem::suggestion;
use super::server::LmcacheMode;

/// Keys of the file of in-process mode.
static IN_PROCESS: LazyLock<Keys> =
    LazyLock::new(|| Keys::parse(include_str!("lmcache_keys/in_process.txt")));
/// Arguments of `lmcache server`, without the leading dashes.
static SERVER: LazyLock<Keys> =
    LazyLock::new(|| Keys::parse(include_str!("lmcache_keys/server.txt")));
/// Keys of the adapters behind `--l2-adapter`, each after its type and a point.
static ADAPTERS: LazyLock<Keys> =
    LazyLock::new(|| Keys::parse(include_str!("lmcache_keys/adapters.txt")));

/// Keys that LMCache reads of every adapter, whatever its type.
pub(crate) const KEYS_OF_EVERY_ADAPTER: [&str; 7] = [
    "type",
    "eviction",
    "serde",
    "persist_enabled",
    "per_op_workers",
    "affinity_tag",
    "shared",
];

/// The adapter that hands every key on to the store behind it.
const OPEN_ADAPTER: &str = "mooncake_store";

/// Keys of the file of in-process mode that LMCache's main branch has and no listed release.
const UNRELEASED: [&str; 1] = ["pd_retrieve_locations"];

/// Names of the file of in-process mode that LMCache had once, and what they are called today: its
/// own `_CONFIG_ALIASES`, of which it still maps two, and names of its releases before 0.4.
const RENAMED: [(&str, &str); 19] = [
    ("controller_url", "controller_pull_url"),
    ("enable_nixl", "enable_pd"),
    ("enable_xpyd", "enable_pd"),
    ("external_backends", "storage_plugins"),
    ("lmcache_worker_port", "lmcache_worker_ports"),
    ("local_device", "local_cpu` or `local_disk"),
    (
        "max_local_cache_size",
        "max_local_cpu_size` or `max_local_disk_size",
    ),
    ("nixl_buffer_size", "pd_buffer_size"),
    ("nixl_peer_alloc_port", "pd_peer_alloc_port"),
    ("nixl_peer_host", "pd_peer_host"),
    ("nixl_peer_init_port", "pd_peer_init_port"),
    ("nixl_peer_port", "pd_peer_init_port"),
    ("nixl_proxy_host", "pd_proxy_host"),
    ("nixl_proxy_port", "pd_proxy_port"),
    ("nixl_receiver_host", "pd_peer_host"),
    ("nixl_receiver_port", "pd_peer_init_port"),
    ("nixl_role", "pd_role"),
    ("plugin_locations", "runtime_plugin_locations"),
    ("weka_path", "gds_path"),
];

/// What LMCache calls `key` today, where it had that name once and no listed release has it.
pub(crate) fn renamed(key: &str) -> Option<&'static str> {
    let (_, now) = RENAMED.iter().find(|(old, _)| *old == key)?;
    IN_PROCESS.find(key).is_none().then_some(now)
}

/// A release of LMCache or vLLM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    /// The release `major.minor.patch`.
    pub(crate) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self(major, minor, patch)
    }
}

impl FromStr for Version {
    type Err = ();

    /// Reads the release that `0.5.6`, `v0.5.6`, `0.5.6.post1` or `0.5.6-g3e11e108` is of.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(());
        Ok(Self(number()?, number()?, number()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// One key, and the first and last of the listed versions that have it.
#[derive(Clone, Copy, Debug)]
struct Key {
    name: &'static str,
    first: Version,
    last: Version,
}

/// What the listed versions of one mode have.
#[derive(Debug)]
struct Keys {
    versions: Vec<Version>,
    keys: Vec<Key>,
}

impl Keys {
    /// Reads a list as `scripts/list-lmcache-keys.py` writes it. What cannot be read is left out, which
    /// the tests would notice.
    fn parse(text: &'static str) -> Self {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let versions = lines.next().unwrap_or_default();
        let versions = versions.split_whitespace().filter_map(|v| v.parse().ok());
        let versions: Vec<Version> = versions.collect();
        let whole = versions.first().copied().zip(versions.last().copied());
        let key = |line: &'static str| {
            let (name, range) = line.split_once(' ').unwrap_or((line, ""));
            let own = || {
                let (first, last) = range.split_once('-')?;
                Some((first.parse().ok()?, last.parse().ok()?))
            };
            let (first, last) = if range.is_empty() { whole? } else { own()? };
            Some(Key { name, first, last })
        };
        Self {
            keys: lines.filter_map(key).collect(),
            versions,
        }
    }

    fn of(mode: LmcacheMode) -> &'static Self {
        match mode {
            LmcacheMode::InProcess => &IN_PROCESS,
            LmcacheMode::MultiProcess => &SERVER,
        }
    }

    /// The newest listed version.
    fn last(&self) -> Version {
        self.versions.last().copied().unwrap_or(Version(0, 0, 0))
    }

    fn find(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    fn has(&self, name: &str, version: Version) -> bool {
        self.find(name)
            .is_some_and(|key| (key.first..=key.last).contains(&version))
    }
}

/// Every key that any listed version, or LMCache's main branch, has in its file of in-process mode.
pub(crate) fn in_process() -> Vec<&'static str> {
    let listed = IN_PROCESS.keys.iter().map(|key| key.name);
    listed.chain(UNRELEASED).collect()
}

/// Whether `version` has `key`; `None` for a version that is not listed.
pub(crate) fn has(mode: LmcacheMode, key: &str, version: Version) -> Option<bool> {
    let keys = Keys::of(mode);
    let is_listed = keys.versions.contains(&version);
    is_listed.then(|| keys.has(key, version))
}

/// Checks that LMCache has `key`: in `version`, or, where that is not known, in any listed one. A
/// version that is not listed has keys that nobody here knows: LMCache itself decides.
///
/// # Errors
/// Where it has no such key; with the versions that do, or the nearest key.
pub(crate) fn check(mode: LmcacheMode, key: &str, version: Option<Version>) -> Result<(), String> {
    let keys = Keys::of(mode);
    let known = match version {
        Some(version) if !keys.versions.contains(&version) => return Ok(()),
        Some(version) => keys.has(key, version),
        None => keys.find(key).is_some() || is_unreleased(mode, key),
    };
    if known {
        return Ok(());
    }
    let who = version.map_or_else(|| "LMCache".to_owned(), |v| format!("LMCache {v}"));
    let what = match mode {
        LmcacheMode::InProcess => format!("{who} has no key `{key}`"),
        LmcacheMode::MultiProcess => format!("`lmcache server` of {who} has no argument `--{key}`"),
    };
    Err(match (keys.find(key), version) {
        (None, _) if is_unreleased(mode, key) => {
            format!("{what}: a version after {} has it", keys.last())
        }
        (None, _) if mode == LmcacheMode::InProcess && renamed(key).is_some() => {
            format!("{what}: today it is `{}`", renamed(key).unwrap_or_default())
        }
        (Some(other), _) if other.first == other.last => {
            format!("{what}: only {} has it", other.first)
        }
        (Some(other), _) => format!("{what}: {} to {} have it", other.first, other.last),
        (None, version) => {
            let there = |known: &&Key| version.is_none_or(|version| keys.has(known.name, version));
            let names = keys.keys.iter().filter(there).map(|known| known.name);
            format!("{what}: {}", suggestion(key, &names.collect::<Vec<_>>()))
        }
    })
}

/// Checks that LMCache's adapter of the type `own` has `key`, as [`check`] does. Types that no listed
/// version has are somebody's own.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_adapter(own: &str, key: &str, version: Option<Version>) -> Result<(), String> {
    let keys = &*ADAPTERS;
    let of_type = |key: &Key| key.name.split_once('.').filter(|(kind, _)| *kind == own);
    let names: Vec<&str> = (keys.keys.iter())
        .filter_map(|key| of_type(key).map(|(_, name)| name))
        .collect();
    let is_open = names.is_empty() || own == OPEN_ADAPTER;
    let is_listed = version.is_none_or(|version| keys.versions.contains(&version));
    if is_open || !is_listed || KEYS_OF_EVERY_ADAPTER.contains(&key) {
        return Ok(());
    }
    let who = version.map_or_else(|| "LMCache".to_owned(), |v| format!("LMCache {v}"));
    match (keys.find(&format!("{own}.{key}")), version) {
        (Some(found), Some(version)) if !(found.first..=found.last).contains(&version) => {
            let what = format!("the adapter `{own}` of {who} has no key `{key}`");
            Err(format!("{what}: {} to {} have it", found.first, found.last))
        }
        (Some(_), _) => Ok(()),
        (None, _) => Err(format!(
            "the adapter `{own}` of {who} has no key `{key}`: {}",
            suggestion(key, &names)
        )),
    }
}

fn is_unreleased(mode: LmcacheMode, key: &str) -> bool {
    mode == LmcacheMode::InProcess && UNRELEASED.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use LmcacheMode::{InProcess, MultiProcess};

    fn version(text: &str) -> Option<Version> {
        text.parse().ok()
    }

    fn refused(mode: LmcacheMode, key: &str, at: Option<Version>) -> String {
        check(mode, key, at).unwrap_err()
    }

    #[test]
    fn releases_are_read_from_what_packages_images_and_logs_call_them() {
        for text in [
            "0.5.6",
            "v0.5.6",
            "0.5.6.post1",
            "0.5.6-g3e11e108",
            "0.5.6+cu129",
        ] {
            assert_eq!(text.parse(), Ok(Version(0, 5, 6)), "{text}");
        }
        for text in ["latest", "0.5", "", "nightly-0.5.6"] {
            assert_eq!(text.parse::<Version>(), Err(()), "{text}");
        }
        assert_eq!(Version(0, 4, 7).to_string(), "0.4.7");
    }

    #[test]
    fn both_lists_are_read_whole() {
        for (mode, versions, text) in [
            (InProcess, 14, include_str!("lmcache_keys/in_process.txt")),
            (MultiProcess, 12, include_str!("lmcache_keys/server.txt")),
        ] {
            let keys = Keys::of(mode);
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            assert_eq!(keys.keys.len() + 1, lines.count(), "{mode:?}");
            assert_eq!(keys.versions.len(), versions, "{mode:?}");
            assert!(keys.versions.is_sorted());
        }
    }

    #[test]
    fn a_key_of_another_version_is_refused_with_the_versions_that_have_it() {
        let key = "cufile_buffer_size";
        assert_eq!(check(InProcess, key, version("0.4.3")), Ok(()));
        let message = refused(InProcess, key, version("0.5.6"));
        let expected = "LMCache 0.5.6 has no key `cufile_buffer_size`: 0.4.1 to 0.4.3 have it";
        assert_eq!(message, expected);
        let message = refused(InProcess, "run_script_api_enabled", version("0.4.7"));
        assert!(message.ends_with("only 0.5.6 has it"), "{message}");
        let message = refused(MultiProcess, "shm-name", version("0.4.5"));
        assert_eq!(
            message,
            "`lmcache server` of LMCache 0.4.5 has no argument `--shm-name`: 0.4.7 to 0.5.6 have it"
        );
    }

    #[test]
    fn without_a_version_any_that_is_listed_may_have_the_key() {
        for key in ["cufile_buffer_size", "run_script_api_enabled", "chunk_size"] {
            assert_eq!(check(InProcess, key, None), Ok(()), "{key}");
        }
        let message = refused(InProcess, "chunk_sise", None);
        assert_eq!(
            message,
            "LMCache has no key `chunk_sise`: did you mean `chunk_size`?"
        );
        let message = refused(MultiProcess, "l1-sise-gb", None);
        assert!(message.ends_with("did you mean `l1-size-gb`?"), "{message}");
        // The modes have lists of their own.
        assert!(check(MultiProcess, "max_local_cpu_size", None).is_err());
    }

    #[test]
    fn a_name_that_lmcache_gave_up_is_reported_with_the_one_that_replaced_it() {
        for (old, now) in RENAMED {
            if IN_PROCESS.find(old).is_some() {
                assert_eq!(renamed(old), None, "{old} is a key of today");
                assert_eq!(check(InProcess, old, None), Ok(()), "{old}");
                continue;
            }
            for key in now.split("` or `") {
                assert_eq!(check(InProcess, key, None), Ok(()), "{key}");
            }
            let message = refused(InProcess, old, None);
            assert_eq!(
                message,
                format!("LMCache has no key `{old}`: today it is `{now}`")
            );
        }
        assert_eq!(renamed("chunk_sise"), None);
    }

    #[test]
    fn a_key_of_the_main_branch_is_taken_where_no_release_is_named() {
        let key = "pd_retrieve_locations";
        assert!(in_process().contains(&key));
        assert_eq!(check(InProcess, key, None), Ok(()));
        assert_eq!(check(InProcess, key, version("0.6.0")), Ok(()));
        let message = refused(InProcess, key, version("0.5.6"));
        assert!(
            message.ends_with("a version after 0.5.6 has it"),
            "{message}"
        );
    }

    #[test]
    fn keys_of_adapters_are_known_by_type_and_version() {
        let fault = |at| check_adapter("fault_inject", "rate", version(at));
        assert_eq!(fault("0.5.6"), Ok(()));
        assert_eq!(
            fault("0.4.7").unwrap_err(),
            "the adapter `fault_inject` of LMCache 0.4.7 has no key `rate`: 0.5.0 to 0.5.6 have it"
        );
        assert_eq!(fault("0.9.0"), Ok(()), "nobody here knows its keys");
        let refused = check_adapter("fs", "num_workers", None).unwrap_err();
        let begin = "the adapter `fs` of LMCache has no key `num_workers`: ";
        assert!(refused.starts_with(begin), "{refused}");
        for (own, key) in [
            ("fs", "serde"),
            ("mooncake_store", "metadata_server"),
            ("somebodys", "own"),
        ] {
            assert_eq!(
                check_adapter(own, key, version("0.5.6")),
                Ok(()),
                "{own}.{key}"
            );
        }
    }

    #[test]
    fn a_version_that_is_not_listed_speaks_for_itself() {
        for text in ["0.6.0", "0.3.15", "0.5.7"] {
            assert_eq!(
                check(InProcess, "brand_new", version(text)),
                Ok(()),
                "{text}"
            );
            let asked = has(InProcess, "brand_new", text.parse().unwrap());
            assert_eq!(asked, None, "{text}");
        }
        assert_eq!(has(MultiProcess, "shm-name", Version(0, 4, 6)), Some(false));
        assert_eq!(has(MultiProcess, "shm-name", Version(0, 4, 7)), Some(true));
    }
}
