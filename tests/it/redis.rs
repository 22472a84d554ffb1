//! The client of Redis against a real one.

use labrun::server::leftovers::Mark;
use labrun::server::redis_local::LocalRedis;
use tokio_util::sync::CancellationToken;

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
