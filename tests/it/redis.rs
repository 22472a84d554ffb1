//! The client of Redis against a real one.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use labrun::internals::{Batch, LocalRedis, Mark, RedisSampler, Sampler as _};
use tokio_util::sync::CancellationToken;

use crate::process;
use crate::support::{Kill, Lab, wait_until};

/// A Redis that wants a password, and its port.
pub(crate) fn with_password(lab: &Lab, password: &str) -> (Kill, u16) {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let text =
        format!("port {port}\nbind 127.0.0.1\nsave \"\"\nappendonly no\nrequirepass {password}\n");
    let file = lab.write("redis.conf", &text);
    let mut command = Command::new("redis-server");
    command.arg(file).stdout(Stdio::null());
    let server = Kill(command.spawn().unwrap());
    let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(wait_until(Duration::from_secs(20), listens));
    (server, port)
}

/// No file of the run holds `secret`.
pub(crate) fn assert_stored_nowhere(lab: &Lab, secret: &str) {
    let files = lab.files("out");
    assert!(files.len() > 5);
    for (path, bytes) in files {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(secret), "{} holds it", path.display());
    }
}

#[test]
#[ignore = "needs redis-server"]
fn a_password_reaches_an_lmcache_server_by_its_environment_alone() {
    let password = "s3cret-canary";
    let lmcache = r#"echo "args: $*"
echo "given <$LMCACHE_RESP_USERNAME> ${#LMCACHE_RESP_PASSWORD} labrun <$LABRUN_REDIS__URL>"
test "$LMCACHE_RESP_PASSWORD" = s3cret-canary && echo right
exit 4"#;
    let lab = process::lab_with("sleep 300", lmcache, "multi-process");
    let plan = lab.read("plan.toml").replace(r#"["cpu"]"#, r#"["redis"]"#);
    lab.write("plan.toml", &plan);
    let (_redis, port) = with_password(&lab, password);
    let mut command = lab.command(&process::RUN);
    command.env(
        "LABRUN_REDIS__URL",
        format!("redis://:{password}@127.0.0.1:{port}"),
    );
    assert_eq!(command.status().unwrap().code(), Some(1));
    let (path, cell) = lab.cells().remove(0);
    assert_eq!(cell["outcome"]["phase"], "ready", "{cell}");
    let log = std::fs::read_to_string(path.join("lmcache_server.log")).unwrap();
    assert!(log.contains("given <> 13 labrun <>\nright"), "{log}");
    let address = format!(r#""host":"127.0.0.1","port":{port}"#);
    assert!(log.contains(&address), "{log}");
    assert_stored_nowhere(&lab, password);
}

/// Points of one reading at `second`, by metric.
fn read_at(sampler: &mut RedisSampler, second: u64) -> BTreeMap<&'static str, f64> {
    let mut batch = Batch::new(Duration::from_secs(second), false);
    sampler.sample(&mut batch).unwrap();
    let points = batch.points().iter();
    points
        .map(|(key, point)| (key.series.name(), point.value))
        .collect()
}

#[test]
#[ignore = "needs redis-server"]
fn telemetry_records_a_redis_and_finds_it_again_after_a_restart() {
    let lab = Lab::new();
    let (first, port) = with_password(&lab, "pw");
    let url = format!("redis://:pw@127.0.0.1:{port}");
    let mut sampler = RedisSampler::new(&url, Duration::from_secs(1)).unwrap();
    let began = read_at(&mut sampler, 0);
    assert!(
        began["used_memory"] > 1e5 && began["clients"] >= 1.0,
        "{began:?}"
    );
    let client = redis::Client::open(url.as_str()).unwrap();
    let mut other = client.get_connection().unwrap();
    let value = vec![7_u8; 1 << 20];
    redis::cmd("SET")
        .arg("a")
        .arg(&value)
        .exec(&mut other)
        .unwrap();
    for key in ["a", "a", "none"] {
        redis::cmd("GET").arg(key).exec(&mut other).unwrap();
    }
    let readings = read_at(&mut sampler, 2);
    // Over two seconds: a write of 1 MiB, two reads of it, and one of what is not there.
    for (metric, bytes) in [("write", 1 << 20), ("read", 2 << 20)] {
        let ratio = readings[metric] * 2.0 / f64::from(bytes);
        assert!((0.8..1.05).contains(&ratio), "{metric}: {readings:?}");
    }
    let keys = [("key_hits", 1.0), ("key_misses", 0.5)];
    // The answer comes a moment after the reading was due.
    let is_right = |(metric, rate): &(&str, f64)| (readings[metric] / rate - 1.0).abs() < 0.2;
    assert!(keys.iter().all(is_right), "{readings:?}");
    assert!(
        readings["commands"] >= 2.0 && readings.contains_key("cpu"),
        "{readings:?}"
    );
    drop(first);
    assert_eq!(read_at(&mut sampler, 4), BTreeMap::new(), "it is gone");
    let file = lab.path("redis.conf");
    let mut again = Command::new("redis-server");
    let _second = Kill(again.arg(file).stdout(Stdio::null()).spawn().unwrap());
    let mut second = 5;
    let is_found = || {
        second += 1;
        read_at(&mut sampler, second).contains_key("used_memory")
    };
    assert!(wait_until(Duration::from_secs(20), is_found));
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn bytes_keys_and_emptying_are_reported_by_a_real_redis() {
    let folder = tempfile::tempdir().unwrap();
    let mark = Mark::of_this_process("redis-test");
    let mut server = LocalRedis::start("redis-server", folder.path(), &mark).unwrap();
    let redis = server.wait_ready().await.unwrap();
    assert_eq!(redis.keys().await.unwrap(), 0);
    let before = redis.info().await.unwrap();
    assert!(!before.version.is_empty());

    let value = vec![7_u8; 1 << 20];
    let client = redis::Client::open(server.url()).unwrap();
    let mut other = client.get_multiplexed_async_connection().await.unwrap();
    for key in ["a", "b"] {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(&value);
        set.query_async::<()>(&mut other).await.unwrap();
    }
    let stored = redis.info().await.unwrap();
    assert_eq!(redis.keys().await.unwrap(), 2);
    let got: Vec<u8> = redis::cmd("GET")
        .arg("a")
        .query_async(&mut other)
        .await
        .unwrap();
    assert_eq!(got, value);
    let fetched = redis.info().await.unwrap();

    let grown = |then: Option<f64>, now: Option<f64>| now.unwrap() - then.unwrap();
    let (mib, slack) = (f64::from(1 << 20), 65_536.0);
    let written = grown(before.net_input_bytes, stored.net_input_bytes);
    assert!(
        (2.0 * mib..2.0 * mib + slack).contains(&written),
        "{written}"
    );
    let read = grown(stored.net_output_bytes, fetched.net_output_bytes);
    assert!((mib..mib + slack).contains(&read), "{read}");
    assert!(grown(stored.keyspace_hits, fetched.keyspace_hits) > 0.5);
    assert!(fetched.used_memory_bytes.unwrap() > 2.0 * mib);

    assert_eq!(redis.largest_value_bytes().await, Some(512 << 20));
    redis.flush().await.unwrap();
    assert_eq!(redis.keys().await.unwrap(), 0);
    let stopped = server.stop(CancellationToken::new()).await;
    assert!(stopped.how.contains("exited with code 0"), "{stopped:?}");
    assert!(redis.ping().await.is_err(), "it is gone");
}
