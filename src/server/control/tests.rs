use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn the_configuration_of_an_older_lmcache_server_is_asked_by_its_own_route() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let older = async {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let read = peer.read(&mut head).await.unwrap();
            let asked = String::from_utf8_lossy(&head[..read]).into_owned();
            let (status, body) = if asked.starts_with("GET /conf ") {
                ("200 OK", r#"{"mp":{"chunk_size":256}}"#)
            } else {
                ("404 Not Found", "{}")
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            peer.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let control = Control::new(Endpoint::new(&url, "m").unwrap()).unwrap();
    let found = tokio::select! {
        found = control.lmcache_config(&url) => found,
        () = older => None,
    };
    assert_eq!(found.unwrap()["mp"]["chunk_size"], 256);
}

#[test]
fn a_server_is_scheme_host_and_port() {
    let endpoint = Endpoint::new("http://127.0.0.1:8000/", "m").unwrap();
    assert_eq!(endpoint.url, "http://127.0.0.1:8000");
    for wrong in [
        "http://127.0.0.1:8000/v1",
        "127.0.0.1:8000",
        "ftp://x",
        "http://x?y",
    ] {
        assert!(Endpoint::new(wrong, "m").is_err(), "{wrong}");
    }
}

/// A server that answers each request with `answer(path)` and goes on with nothing more.
async fn serving(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    drop(rustls::crypto::ring::default_provider().install_default());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut peer, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let read = peer.read(&mut head).await.unwrap();
            let asked = String::from_utf8_lossy(&head[..read]).into_owned();
            // A client that gave up reads no more.
            let _gone = peer.write_all(&answer(&asked)).await;
            open.push(peer);
        }
    });
    url
}

fn head_of(status: &str, length: usize) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n")
        .into_bytes()
}

fn client(url: &str, key: Option<&str>) -> Control {
    let mut endpoint = Endpoint::new(url, "m").unwrap();
    endpoint.api_key = key.and_then(ApiKey::of);
    Control::new(endpoint).unwrap()
}

#[tokio::test]
async fn a_body_without_an_end_is_refused() {
    let url = serving(|_| [head_of("200 OK", 1 << 30), vec![b'x'; 17 << 20]].concat()).await;
    let control = client(&url, None);
    let error = control.version().await.unwrap_err().to_string();
    assert_eq!(error, "/version answered more than 16 MiB");
    let error = control.models().await.unwrap_err().to_string();
    assert_eq!(error, "/v1/models answered more than 16 MiB");
    let error = control.metrics().await.unwrap_err().to_string();
    assert_eq!(error, "a line of /metrics is longer than 1 MiB");
}

#[tokio::test]
async fn a_key_is_sent_to_the_server_and_wanted_by_name() {
    let url = serving(|asked| {
        let has_key = asked.contains("authorization: Bearer sesame\r\n");
        let status = if has_key {
            "200 OK"
        } else {
            "401 Unauthorized"
        };
        let body = br#"{"data":[{"id":"m"}]}"#;
        [head_of(status, body.len()), body.to_vec()].concat()
    })
    .await;
    assert_eq!(client(&url, Some("sesame")).models().await.unwrap(), ["m"]);
    let refused = client(&url, None).models().await.unwrap_err();
    assert!(refused.is::<WantsKey>(), "{refused}");
    let other = url.replace("127.0.0.1", "localhost");
    let elsewhere = client(&url, Some("sesame"))
        .scrape(&format!("{other}/metrics"))
        .await;
    assert!(
        elsewhere.unwrap_err().is::<WantsKey>(),
        "no other server gets the key"
    );
}

#[tokio::test]
async fn a_route_that_hangs_is_named() {
    let mut control = client(&serving(|_| Vec::new()).await, None);
    control.question_limit = Duration::from_millis(300);
    let first = control.metrics().await.unwrap_err().to_string();
    assert_eq!(first, "/metrics did not answer within 0.3 s");
    control.question_limit = Duration::from_secs(3600);
    let again = control.clone().metrics().await.unwrap_err().to_string();
    assert_eq!(
        again, "/metrics did not answer within 1 s",
        "not waited for as long"
    );
    assert_eq!(control.troubles(), [first]);
}

#[test]
fn a_password_in_a_url_is_not_shown() {
    for url in [
        "http://me:sesame@h:1",
        "me:sesame@h",
        "http://h/?key=sesame",
    ] {
        let refused = Endpoint::new(url, "m").unwrap_err().to_string();
        assert!(!refused.contains("sesame"), "{refused}");
    }
}

#[test]
fn a_long_list_of_models_and_a_long_name_are_shortened_and_steer_nothing() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let control = Control::new(Endpoint::new("http://h:1", "m").unwrap()).unwrap();
    let mut models = vec!["\u{1b}]0;x\u{7}".to_owned(), "v".repeat(5_000_000)];
    models.extend((0..100_000).map(|number| format!("model-{number}")));
    let message = control.not_among(&models).unwrap();
    assert!(
        message.starts_with("it serves `\\x1b]0;x\\x07`, `vvv"),
        "{}",
        &message[..80]
    );
    assert!(
        message.ends_with("and 99994 more, not `m`"),
        "{}",
        message.len()
    );
    assert!(message.len() < 1_000 && message.contains("(5000000 bytes)"));
    models.push("m".to_owned());
    assert_eq!(control.not_among(&models), None);
}

/// Scrapes a server that answers everything with `answer`.
async fn scraped(answer: &'static str) -> Result<Scrape, String> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = async {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let read = peer.read(&mut head).await.unwrap();
            let login = head[..read].starts_with(b"GET /login");
            let page = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>log in</html>";
            let answer = if login { page } else { answer };
            peer.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let control = Control::new(Endpoint::new(&url, "m").unwrap()).unwrap();
    tokio::select! {
        found = control.metrics() => found.map_err(|error| format!("{error:#}")),
        () = server => unreachable!(),
    }
}

#[tokio::test]
async fn an_error_of_a_scrape_names_the_reason() {
    for (answer, reason) in [
        (
            "HTTP/1.1 401 X\r\ncontent-length: 0\r\n\r\n",
            "the server wants a key: /metrics answered 401",
        ),
        (
            "HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n",
            "/metrics answered 404: the server has no",
        ),
        (
            "HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n",
            "/metrics answered 503",
        ),
        (
            "HTTP/1.1 302 X\r\nlocation: /login\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "/metrics answered no metrics, at 127.0.0.1/login, where it is redirected to",
        ),
        (
            "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n",
            "/metrics answered no metrics",
        ),
    ] {
        let error = scraped(answer).await.unwrap_err();
        assert!(error.starts_with(reason), "{error}");
    }
    let found = scraped("HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nvllm:a 1\n").await;
    assert_eq!(found.unwrap().sum("vllm:a", None), Some(1.0));
}

#[tokio::test]
async fn a_server_is_up_and_a_cache_reset_unless_the_answer_denies_it() {
    for (status, body) in [
        ("200 OK", ""),
        ("200 OK", "null"),
        ("200 OK", "{}"),
        ("200 OK", r#"{"message":"done"}"#),
        ("200 OK", r#"{"success":true}"#),
    ] {
        let answer = move |_: &str| [head_of(status, body.len()), body.into()].concat();
        let control = client(&serving(answer).await, None);
        control.health().await.unwrap();
        control.reset_prefix_cache(Reset::Gpu).await.unwrap();
    }
    let up = client(&serving(|_| head_of("204 No Content", 0)).await, None);
    up.health().await.unwrap();
    let denied = br#"{"success":false}"#;
    let answer = |_: &str| [head_of("200 OK", denied.len()), denied.to_vec()].concat();
    let control = client(&serving(answer).await, None);
    let error = control
        .reset_prefix_cache(Reset::Gpu)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("refused for 2 s"), "{error}");
}
