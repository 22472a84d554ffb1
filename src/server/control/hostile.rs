//! Every route that labrun asks, vLLM's and LMCache's, of a server that answers anything.

use proptest::prelude::*;

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A server that answers every request with `bytes` and closes.
async fn answering(bytes: Vec<u8>) -> (String, tokio::task::JoinHandle<()>) {
    drop(rustls::crypto::ring::default_provider().install_default());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _asked = peer.read(&mut head).await;
            let _gone = peer.write_all(&bytes).await;
        }
    };
    (url, tokio::spawn(serve))
}

fn body() -> impl Strategy<Value = Vec<u8>> + Clone {
    let json = prop::sample::select(vec![
        r#"{"data":[{"id":"m"}]}"#,
        r#"{"data":[{"id":5},{},null]}"#,
        r#"{"version":"0.32.0"}"#,
        r#"{"version":{}}"#,
        r#"{"count":7,"tokens":[1,2]}"#,
        r#"{"count":-1,"tokens":"x"}"#,
        r#"{"status":"ok"}"#,
        r#"{"success":true}"#,
        r#"{"usage":{"completion_tokens":1}}"#,
        r#"{"usage":{"completion_tokens":1e999}}"#,
        r#"{"mp":{"chunk_size":256}}"#,
        "vllm:a_total{b=\"c\"} 5\nlmcache:d 1e999\n# TYPE e f\n",
        "null",
        "[[[[",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        json.prop_map(|text| text.as_bytes().to_vec()),
        (1_usize..300_000).prop_map(|depth| vec![b'['; depth]),
    ]
}

/// An answer, whole or with a byte changed, or cut.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    let status = prop::sample::select(vec![
        "200 OK",
        "204 No Content",
        "307 Moved\r\nlocation: /x",
        "401 No",
        "404 None",
        "500 \u{1b}[2J",
        "999 X",
    ]);
    let whole = (status, body()).prop_map(|(status, body)| {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
        [head.as_bytes(), b"connection: close\r\n\r\n", &body].concat()
    });
    let any_bytes = prop::collection::vec(any::<u8>(), 0..300);
    let changed = (whole.clone(), any::<prop::sample::Index>(), any::<u8>());
    let changed = changed.prop_map(|(mut bytes, at, byte)| {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    let cut = (whole.clone(), any::<prop::sample::Index>()).prop_map(|(mut bytes, at)| {
        bytes.truncate(at.index(bytes.len()));
        bytes
    });
    prop_oneof![whole, changed, cut, any_bytes]
}

/// What each question ends with that fails.
async fn errors(url: &str) -> Vec<String> {
    let mut endpoint = Endpoint::new(url, "m").unwrap();
    endpoint.api_key = ApiKey::of("sesame-of-the-server");
    let mut control = Control::new(endpoint).unwrap();
    // A cut answer is not waited for.
    control.question_limit = Duration::from_secs(2);
    let error_of = |result: Result<()>| result.err().map(|error| format!("{error:#}"));
    let mut all = vec![
        error_of(control.health().await),
        error_of(control.models().await.map(drop)),
        error_of(control.one_token().await),
        error_of(control.version().await.map(drop)),
        error_of(control.tokenize(Bytes::from_static(b"{}")).await.map(drop)),
        error_of(control.metrics().await.map(drop)),
        error_of(
            control
                .scrape(&format!("{url}/lmcache/metrics"))
                .await
                .map(drop),
        ),
        error_of(control.profiler("start_profile").await),
        error_of(control.clear_lmcache_l1(url).await),
        error_of(control.lmcache_health(url).await),
    ];
    let _configuration = control.lmcache_config(url).await;
    all.push(control.not_among(&control.models().await.unwrap_or_default()));
    all.into_iter().flatten().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_server_answers_each_question_ends_and_its_error_is_short(bytes in answer()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let errors = runtime.block_on(async {
            let (url, server) = answering(bytes).await;
            let errors = errors(&url).await;
            server.abort();
            errors
        });
        let steers = |c: char| c.is_control() && !"\n\t".contains(c);
        for error in errors {
            prop_assert!(error.len() < 2_000, "{} bytes: {error:?}", error.len());
            prop_assert!(!error.contains("sesame"), "{error}");
            prop_assert!(!error.contains(steers), "{error:?}");
        }
    }
}
