//! A client of Redis: what it holds, what it moved, and emptying it. Never on the measuring path.
//!
//! `INFO`'s `total_net_output_bytes` is the witness of the redis tier: it grows by what clients
//! fetched, whatever any of them counts.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, InfoDict, IntoConnectionInfo as _,
};

use crate::plan::adapter::Adapter;
use crate::plan::tier::TierKind;

/// Longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for an answer. Emptying a large database takes seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A connection to one Redis.
#[derive(Clone)]
pub struct Redis {
    connection: MultiplexedConnection,
    shown: String,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Redis").field(&self.shown).finish()
    }
}

/// The answer to `INFO`; counters are since the server's start. A field that an old or foreign server
/// does not have is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RedisInfo {
    /// Redis's own version (`redis_version`).
    pub version: String,
    /// Valkey's own version, which has Redis's beside it.
    pub valkey_version: Option<String>,
    /// Bytes sent to clients: what tiers fetched, and small answers besides.
    pub net_output_bytes: Option<f64>,
    /// Bytes received from clients: what tiers stored, and commands besides.
    pub net_input_bytes: Option<f64>,
    /// Keys that were found.
    pub keyspace_hits: Option<f64>,
    /// Keys that were not found.
    pub keyspace_misses: Option<f64>,
    /// Keys that were evicted because memory was full.
    pub evicted_keys: Option<f64>,
    /// Commands since the start.
    pub commands: Option<f64>,
    /// Memory in use, bytes.
    pub used_memory_bytes: Option<f64>,
    /// Most bytes that may be in use; 0 is "no limit".
    pub maxmemory_bytes: Option<f64>,
    /// Clients that are connected now.
    pub clients: Option<f64>,
    /// CPU time of the server, user and system, seconds.
    pub cpu_s: Option<f64>,
}

impl RedisInfo {
    /// Reads the text of `INFO`.
    pub fn parse(text: &str) -> Self {
        Self::of(&InfoDict::new(text))
    }

    /// The kind of tier that it stores for.
    pub(crate) fn kind(&self) -> TierKind {
        match self.valkey_version {
            Some(_) => TierKind::Adapter(Adapter::Valkey),
            None => TierKind::Redis,
        }
    }

    /// `Valkey 9.1.2`, `Redis 7.0.15`.
    pub(crate) fn product(&self) -> String {
        match &self.valkey_version {
            Some(version) => format!("Valkey {version}"),
            None => format!("Redis {}", self.version),
        }
    }

    fn of(info: &InfoDict) -> Self {
        let number = |name: &str| info.get::<f64>(name);
        let cpu = |name| number(name).unwrap_or(0.0);
        Self {
            version: info.get("redis_version").unwrap_or_default(),
            valkey_version: info.get("valkey_version"),
            net_output_bytes: number("total_net_output_bytes"),
            net_input_bytes: number("total_net_input_bytes"),
            keyspace_hits: number("keyspace_hits"),
            keyspace_misses: number("keyspace_misses"),
            evicted_keys: number("evicted_keys"),
            commands: number("total_commands_processed"),
            used_memory_bytes: number("used_memory"),
            maxmemory_bytes: number("maxmemory"),
            clients: number("connected_clients"),
            cpu_s: number("used_cpu_user").map(|user| user + cpu("used_cpu_sys")),
        }
    }
}

/// `url` without its user and password, as it may be shown.
pub(crate) fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

/// What is wrong with the URL of a Redis that cannot be read. Of its user and password it names no
/// more than a character that must be written otherwise.
fn url_fault(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "it has no scheme; write redis://HOST:PORT".to_owned();
    };
    if !["redis", "rediss", "unix", "redis+unix", "valkey", "valkeys"].contains(&scheme) {
        return format!("`{scheme}://` is not Redis's scheme; write redis://HOST:PORT");
    }
    let (login, rest) = rest
        .rsplit_once('@')
        .map_or((None, rest), |(login, rest)| (Some(login), rest));
    let reserved = |c: &char| "#/?[]@ ".contains(*c);
    if let Some(c) = login.and_then(|login| login.chars().find(reserved)) {
        return format!(
            "its user or password holds `{c}`; percent-encode it as `%{:02X}`",
            u32::from(c)
        );
    }
    let is_encoded =
        |after: &str| after.len() >= 2 && after.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    if login.is_some_and(|login| !login.split('%').skip(1).all(is_encoded)) {
        return "its user or password holds a `%` that encodes nothing; write `%25`".to_owned();
    }
    let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    };
    if host.is_empty() {
        return "it has no host; write redis://HOST:PORT".to_owned();
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return "what stands behind the host's `:` is not a port from 0 to 65535".to_owned();
    }
    if database
        .split('?')
        .next()
        .is_some_and(|db| !db.is_empty() && db.parse::<i64>().is_err())
    {
        return "what stands behind the `/` is not the number of a database".to_owned();
    }
    "write redis://[USER:PASSWORD@]HOST:PORT[/DATABASE]".to_owned()
}

/// The user and password of `url`, as the adapter of an LMCache server reads them from its
/// environment: in its arguments every process of the machine could see them, and it shows its
/// configuration to every client.
pub(crate) fn adapter_login(url: &str) -> Vec<(&'static str, String)> {
    let Ok(info) = url.into_connection_info() else {
        return Vec::new();
    };
    let settings = info.redis_settings();
    let named = [
        ("LMCACHE_RESP_USERNAME", settings.username()),
        ("LMCACHE_RESP_PASSWORD", settings.password()),
    ];
    named
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?.to_owned())))
        .collect()
}

/// Why the adapter of an LMCache server cannot use the Redis at `url` as labrun does: it speaks plain
/// TCP, to the first database.
pub(crate) fn adapter_obstacle(url: &str) -> Option<String> {
    let info = url.into_connection_info().ok()?;
    let db = info.redis_settings().db();
    if !url.starts_with("redis://") {
        let scheme = url.split("://").next().unwrap_or_default();
        return Some(format!("it has no `{scheme}://`"));
    }
    (db != 0).then(|| format!("it knows database 0 alone, not {db}"))
}

impl Redis {
    /// Connects to `redis://[user:password@]host:port[/db]`. No message names the password.
    pub async fn connect(url: &str) -> Result<Self> {
        // The crate's own message may quote the URL.
        let client = Client::open(url)
            .map_err(|_| anyhow!("`redis.url` cannot be read: {}", url_fault(url)))?;
        let shown = shown(url);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(ANSWER_LIMIT));
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .with_context(|| format!("connecting to Redis at {shown}"))?;
        Ok(Self { connection, shown })
    }

    /// Where it is, without user and password.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        let mut cmd = Cmd::new();
        for part in command {
            cmd.arg(part);
        }
        let mut connection = self.connection.clone();
        let answer = cmd.query_async(&mut connection).await;
        answer.with_context(|| format!("asking Redis at {} for {}", self.shown, command.join(" ")))
    }

    /// Fails where it is not the store that a tier of `kind` is named after: Valkey answers as Redis does.
    pub(crate) async fn check_kind(&self, kind: TierKind) -> Result<()> {
        let info = self.info().await?;
        let runs = info.kind();
        ensure!(
            runs == kind,
            "the store at {} is {}, and the tier is of kind `{}`; give the tier the kind `{}`, or name \
             another store in `redis.url`",
            self.shown,
            info.product(),
            kind.name(),
            runs.name()
        );
        Ok(())
    }

    /// Fails where Redis does not answer.
    pub async fn ping(&self) -> Result<()> {
        self.ask::<String>(&["PING"]).await.map(drop)
    }

    /// Asks for `INFO`.
    pub async fn info(&self) -> Result<RedisInfo> {
        let text: String = self.ask(&["INFO"]).await?;
        Ok(RedisInfo::parse(&text))
    }

    /// Keys of the database.
    pub async fn keys(&self) -> Result<u64> {
        self.ask(&["DBSIZE"]).await
    }

    /// Empties the database that the URL names, and waits until it is empty.
    pub async fn flush(&self) -> Result<()> {
        self.ask::<String>(&["FLUSHDB", "SYNC"]).await.map(drop)
    }

    /// The largest value that it takes, bytes; absent where `CONFIG` is forbidden.
    pub async fn largest_value_bytes(&self) -> Option<u64> {
        let answer: Vec<String> = self
            .ask(&["CONFIG", "GET", "proto-max-bulk-len"])
            .await
            .ok()?;
        answer.get(1)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_by_name() {
        let info = RedisInfo::parse(
            "# Server\r\nredis_version:7.0.15\r\n# Stats\r\ntotal_net_output_bytes:4096\r\n\
             used_cpu_sys:0.5\r\nused_cpu_user:1.25\r\nmaxmemory:0\r\n",
        );
        assert_eq!(info.version, "7.0.15");
        assert_eq!(info.net_output_bytes, Some(4096.0));
        assert_eq!(info.cpu_s, Some(1.75));
        assert_eq!(info.maxmemory_bytes, Some(0.0));
        assert_eq!(info.evicted_keys, None, "not exposed is not zero");
    }

    #[test]
    fn valkey_is_told_from_redis() {
        let valkey = RedisInfo::parse(
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n",
        );
        assert_eq!(valkey.kind().name(), "valkey");
        assert_eq!(valkey.product(), "Valkey 9.1.2");
        let redis = RedisInfo::parse("redis_version:7.0.15\r\n");
        assert_eq!(
            (redis.kind(), redis.product().as_str()),
            (TierKind::Redis, "Redis 7.0.15")
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(shown("redis://me:s3cret@h:1/0"), "redis://h:1/0");
        assert_eq!(shown("redis://h:1"), "redis://h:1");
    }

    #[test]
    fn the_login_of_an_adapter_is_decoded_and_only_what_the_url_has() {
        let owned = |pairs: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
            pairs
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect()
        };
        let (user, password) = ("LMCACHE_RESP_USERNAME", "LMCACHE_RESP_PASSWORD");
        assert_eq!(
            adapter_login("redis://me:s%40c%2Fret@h:1"),
            owned(&[(user, "me"), (password, "s@c/ret")])
        );
        assert_eq!(
            adapter_login("redis://:s3cret@h:1"),
            owned(&[(password, "s3cret")])
        );
        assert_eq!(adapter_login("redis://h:1"), owned(&[]));
        assert_eq!(adapter_login("nonsense"), owned(&[]));
    }

    #[test]
    fn what_an_adapter_cannot_reach_is_reported() {
        for good in ["redis://h:1", "redis://:s3cret@h:1/0"] {
            assert_eq!(adapter_obstacle(good), None, "{good}");
        }
        let other = adapter_obstacle("redis://:s3cret@h:1/3").unwrap();
        assert_eq!(other, "it knows database 0 alone, not 3");
        assert_eq!(
            adapter_obstacle("unix:///run/redis.sock").as_deref(),
            Some("it has no `unix://`")
        );
    }

    #[tokio::test]
    async fn errors_name_the_place_and_no_password() {
        let url = "redis://me:s3cret@127.0.0.1:1";
        let error = format!("{:#}", Redis::connect(url).await.unwrap_err());
        assert!(
            error.contains(&shown(url)) && !error.contains("s3cret"),
            "{error}"
        );
        for (url, fault) in [
            (
                "127.0.0.1:6379",
                "it has no scheme; write redis://HOST:PORT",
            ),
            ("s3cret@h:1", "it has no scheme"),
            (
                "nonsense://me:s3cret@h:1",
                "`nonsense://` is not Redis's scheme",
            ),
            (
                "redis://:s3#cret@h:1",
                "holds `#`; percent-encode it as `%23`",
            ),
            (
                "redis://:s3/cret@h:1",
                "holds `/`; percent-encode it as `%2F`",
            ),
            (
                "redis://:s3?cret@h:1",
                "holds `?`; percent-encode it as `%3F`",
            ),
            (
                "redis://:s3@cret@h:x",
                "holds `@`; percent-encode it as `%40`",
            ),
            ("redis://:s3cret@h:x", "is not a port"),
            ("redis://:s3cret@h:99999", "is not a port"),
            ("redis://:s3cret@h:1/a", "is not the number of a database"),
            ("redis://:s3cret@", "it has no host"),
        ] {
            let error = format!("{:#}", Redis::connect(url).await.unwrap_err());
            assert!(error.contains(fault), "{url}: {error}");
            assert!(!error.contains("s3") && !error.contains("cret"), "{error}");
        }
    }
}
