//! The client of Redis against a real one.

use std::process::{Command, Stdio};
use std::time::Duration;

use labrun::server::leftovers::Mark;
use labrun::server::redis_local::LocalRedis;
use tokio_util::sync::CancellationToken;

use crate::process;
use crate::support::{Kill, Lab, wait_until};

/// A Redis that wants a password, and its port.
pub fn with_password(lab: &Lab, password: &str) -> (Kill, u16) {
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
pub fn assert_kept_nowhere(lab: &Lab, secret: &str) {
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
echo "told <$LMCACHE_RESP_USERNAME> ${#LMCACHE_RESP_PASSWORD} labrun <$LABRUN_REDIS__URL>"
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
    assert!(log.contains("told <> 13 labrun <>\nright"), "{log}");
    let address = format!(r#""host":"127.0.0.1","port":{port}"#);
    assert!(log.contains(&address), "{log}");
    assert_kept_nowhere(&lab, password);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn bytes_keys_and_emptying_are_told_by_a_real_redis() {
    let folder = tempfile::tempdir().unwrap();
    let mark = Mark::of_this_process("redis-test");
    let mut server = LocalRedis::start(folder.path(), &mark).unwrap();
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
