use super::*;

#[tokio::test]
async fn completions_have_the_bytes_of_the_captures() {
    let server = TestServer::start(tiny(&[])).await;
    let whole = request(6, r#""max_tokens":3"#);
    let reply = server.complete(&whole).await;
    assert_eq!(mask(&reply.body), mask(&captured("completion_nonstream")));
    assert!(reply.head.contains("server: labrun-sim"), "{}", reply.head);

    let count = captured("completion_stream_usage")
        .matches("\"index\":0")
        .count();
    let streamed = request(30, &format!(r#""max_tokens":{count},{STREAM}"#));
    let reply = server.complete(&streamed).await;
    assert_eq!(
        mask(&reply.body),
        mask(&captured("completion_stream_usage"))
    );
    assert!(
        reply
            .head
            .contains("content-type: text/event-stream; charset=utf-8")
    );

    let every = r#""max_tokens":4,"return_token_ids":true,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}"#;
    server.call("POST", "/reset_prefix_cache", "").await;
    server.complete(&request(600, every)).await;
    let warm = server.complete(&request(600, every)).await;
    assert_eq!(
        mask(&warm.body),
        mask(&captured("completion_tokenids_warm"))
    );

    let grouped = request(
        600,
        &format!(r#""max_tokens":10,"stream_interval":4,{STREAM}"#),
    );
    let reply = server.complete(&grouped).await;
    assert_eq!(
        mask(&reply.body),
        mask(&captured("completion_stream_interval4"))
    );

    let clamped = request(8_190, r#""max_tokens":100,"stream":true"#);
    let reply = server.complete(&clamped).await;
    assert_eq!(
        mask(&reply.body),
        mask(&captured("err_prompt_plus_max_tokens"))
    );
    assert_eq!(server.stop().await, SimExit::Stopped);
}

#[tokio::test]
async fn chat_has_the_bytes_of_the_captures() {
    let server = TestServer::start(tiny(&[])).await;
    let chat = |more: &str| {
        format!(
            r#"{{"model":"tiny","messages":[{{"role":"user","content":"hi there you all see me now today too"}}],"temperature":0,"ignore_eos":true,"max_tokens":4{more}}}"#
        )
    };
    for (more, capture) in [
        (String::new(), "chat_nonstream"),
        (r#","stream":true"#.to_owned(), "chat_stream_no_usage"),
        (format!(",{STREAM}"), "chat_stream"),
    ] {
        let reply = server
            .call("POST", "/v1/chat/completions", &chat(&more))
            .await;
        assert_eq!(mask(&reply.body), mask(&captured(capture)), "{capture}");
    }
}

#[tokio::test]
async fn log_probabilities_come_where_they_are_asked_for() {
    let server = TestServer::start(tiny(&[])).await;
    let asked = r#""max_tokens":2,"logprobs":2,"return_token_ids":true"#;
    let whole = server.complete(&request(6, asked)).await.body;
    let body: serde_json::Value = serde_json::from_str(&whole).unwrap();
    let scores = &body["choices"][0]["logprobs"];
    let ids = body["choices"][0]["token_ids"].as_array().unwrap();
    for (at, id) in ids.iter().enumerate() {
        let name = format!("token_id:{id}");
        assert_eq!(scores["tokens"][at], name);
        let number = scores["token_logprobs"][at].as_f64().unwrap();
        assert!((-2.0..=0.0).contains(&number));
        let tops = scores["top_logprobs"][at].as_object().unwrap();
        assert_eq!(
            (tops.len(), &tops[&name]),
            (2, &scores["token_logprobs"][at])
        );
    }
    let streamed = request(6, &format!("{asked},{STREAM}"));
    let again = server.complete(&streamed).await.body;
    let first = scores["token_logprobs"][0].to_string();
    assert!(
        again.contains(&format!(r#""token_logprobs":[{first}]"#)),
        "{again}"
    );
    let chat = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"temperature":0,"max_tokens":2,"logprobs":true,"top_logprobs":2}"#;
    let reply = server.call("POST", "/v1/chat/completions", chat).await.body;
    let body: serde_json::Value = serde_json::from_str(&reply).unwrap();
    let content = body["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    assert_eq!(content.len(), 2, "{reply}");
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn errors_are_those_of_the_captures() {
    let server = TestServer::start(tiny(&[])).await;
    let long = request(9_000, r#""max_tokens":1"#);
    for (capture, status, body) in [
        (
            "err_unknown_model",
            404,
            r#"{"model":"nope","prompt":"x","max_tokens":1}"#,
        ),
        ("err_bad_json", 400, r#"{"model":"tiny","prompt":"#),
        (
            "err_bad_type",
            400,
            r#"{"model":"tiny","prompt":"x","max_tokens":"many"}"#,
        ),
        (
            "err_bad_temperature",
            400,
            r#"{"model":"tiny","prompt":"x","temperature":-1}"#,
        ),
        (
            "err_missing_prompt",
            400,
            r#"{"model":"tiny","max_tokens":1}"#,
        ),
        (
            "err_token_out_of_vocab",
            400,
            r#"{"model":"tiny","prompt":[5,99999]}"#,
        ),
        ("err_prompt_too_long", 400, &long),
        (
            "stream_options_without_stream",
            400,
            r#"{"model":"tiny","prompt":"x","stream_options":{"include_usage":true}}"#,
        ),
    ] {
        let reply = server.complete(body).await;
        assert_eq!(
            (reply.status(), reply.body),
            (status, captured(capture)),
            "{capture}"
        );
    }
}

#[tokio::test]
async fn other_routes_answer_like_the_captures() {
    let server = TestServer::start(tiny(&[])).await;
    for (capture, method, path, status) in [
        ("err_404", "GET", "/v1/nothing", 404),
        ("err_405", "GET", "/v1/completions", 405),
        ("reset_get_method", "GET", "/reset_prefix_cache", 405),
        ("reset_prefix_cache", "POST", "/reset_prefix_cache", 200),
        ("health", "GET", "/health", 200),
        ("ping", "GET", "/ping", 200),
        ("load", "GET", "/load", 200),
    ] {
        let reply = server.call(method, path, "").await;
        assert_eq!(
            (reply.status(), reply.body),
            (status, captured(capture)),
            "{capture}"
        );
        assert_eq!(
            reply.head.contains("allow: POST"),
            status == 405,
            "{}",
            reply.head
        );
    }
    let models = server.call("GET", "/v1/models", "").await;
    assert_eq!(mask(&models.body), mask(&captured("models")));
    let version = server.call("GET", "/version", "").await.body;
    assert_eq!(
        version,
        captured("version").replace("0.32.0", crate::sim::VERSION)
    );
}

#[tokio::test]
async fn the_tokenizer_is_the_one_that_prompts_go_through() {
    let server = TestServer::start(tiny(&[])).await;
    let body = r#"{"model":"tiny","prompt":"t5 t6"}"#;
    let reply = server.call("POST", "/tokenize", body).await;
    let expected = r#"{"count":3,"max_model_len":8192,"tokens":[768,5,6],"token_strs":null}"#;
    assert_eq!(reply.body, expected);
    let body = r#"{"model":"tiny","tokens":[768,5,6]}"#;
    let reply = server.call("POST", "/detokenize", body).await;
    assert_eq!(reply.body, r#"{"prompt":" t5 t6"}"#);
    let text = r#"{"model":"tiny","prompt":"t5 t6","max_tokens":1}"#;
    assert!(
        server
            .complete(text)
            .await
            .body
            .contains(r#""prompt_tokens":3"#)
    );
    let lists = r#"{"model":"tiny","prompt":[[5],[5,6]],"max_tokens":1,"temperature":0}"#;
    let reply = server.complete(lists).await.body;
    assert!(
        reply.contains(r#""index":1"#) && reply.contains(r#""prompt_tokens":3"#),
        "{reply}"
    );
}

#[tokio::test]
async fn the_client_names_the_request() {
    let server = TestServer::start(tiny(&[])).await;
    let body = request(3, r#""max_tokens":1,"request_id":"mine""#);
    assert!(
        server
            .complete(&body)
            .await
            .body
            .starts_with(r#"{"id":"cmpl-mine","#)
    );
    let mut socket = server
        .send("POST", "/v1/completions", "x-request-id: h1\r\n", &body)
        .await;
    assert!(
        read(&mut socket)
            .await
            .body
            .starts_with(r#"{"id":"cmpl-h1","#)
    );
}

#[tokio::test]
async fn metrics_have_vllms_names_and_count_tokens_by_source() {
    let server = TestServer::start(tiny(&[])).await;
    let body = request(1_100, r#""max_tokens":5"#);
    server.complete(&body).await;
    server.complete(&body).await;
    let page = server.call("GET", "/metrics", "").await;
    assert_eq!(page.metric("vllm:prompt_tokens_total"), 2_200);
    assert_eq!(page.metric("vllm:prefix_cache_hits_total"), 1_024);
    assert_eq!(page.metric("vllm:generation_tokens_total"), 10);
    assert_eq!(page.metric("vllm:time_to_first_token_seconds_count"), 2);
    let sample = r#"vllm:prompt_tokens_by_source_total{engine="0",model_name="tiny",source="local_cache_hit"} 1024.0"#;
    assert!(page.body.contains(sample), "{}", page.body);
    // Every series of the capture with its labels, but for those no benchmark reads.
    let unread = ["mm_cache", "estimated_", "admission_", "cache_config_info"];
    let series = |line: &str| line.rsplit_once(' ').map(|(series, _)| series.to_owned());
    let ours: Vec<String> = page.body.lines().filter_map(series).collect();
    for line in captured("metrics")
        .lines()
        .filter(|line| line.starts_with("vllm:"))
    {
        let wanted = series(line).unwrap();
        if !unread.iter().any(|part| wanted.contains(part)) {
            assert!(ours.contains(&wanted), "{wanted} is missing");
        }
    }
    assert!(
        page.body
            .contains("vllm:cache_config_info{block_size=\"128\"")
    );
}

#[tokio::test]
async fn reset_is_refused_while_a_request_runs_and_an_abandoned_request_is_aborted() {
    let spec = SimSpec {
        weights_us: 20_000.0,
        ..tiny(&[])
    };
    let server = TestServer::start(spec).await;
    let body = request(300, r#""max_tokens":7000,"stream":true"#);
    let mut socket = server.send("POST", "/v1/completions", "", &body).await;
    let mut first = [0; 1];
    socket.read_exact(&mut first).await.unwrap();
    let reset = server.call("POST", "/reset_prefix_cache", "").await;
    assert_eq!(reset.body, r#"{"success":false}"#);
    assert_eq!(server.metric("vllm:num_requests_running").await, 1);
    drop(socket);
    let gone = async { while server.metric("vllm:num_requests_running").await > 0 {} };
    timeout(PATIENCE, gone).await.unwrap();
    let reset = server.call("POST", "/reset_prefix_cache", "").await;
    assert_eq!(reset.body, r#"{"success":true}"#);
}

#[tokio::test]
async fn a_tier_serves_after_a_reset_with_the_same_text() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "max_local_cpu_size: 1\nlocal_device: cpu\n").unwrap();
    let with_tier = |o: &mut SimOptions| o.lmcache_config = Some(file.path().to_owned());
    let server = TestServer::start_with(tiny(&[]), with_tier).await;
    let body = request(1_100, r#""max_tokens":5"#);
    let cold = server.complete(&body).await.body;
    server.call("POST", "/reset_prefix_cache", "").await;
    let warm = server.complete(&body).await.body;
    let text = |body: &str| body.split("\"text\":").nth(1).unwrap()[..20].to_owned();
    assert_eq!(text(&warm), text(&cold));
    assert!(warm.contains(r#""cached_tokens":1024"#), "{warm}");
    let page = server.call("GET", "/metrics", "").await;
    assert_eq!(page.metric("labrun_sim_pcie_rx_bytes_total"), 1_024 * 2_048);
    assert_eq!(page.metric("lmcache:num_hit_tokens_total"), 1_024);
    assert_eq!(page.metric("lmcache:local_cache_usage"), 1_024 * 2_048);
    let log = server.log.lock().unwrap().clone();
    for line in [
        "labrun simulator: no model and no GPU",
        "GPU KV cache size: 524,288 tokens, Maximum concurrency for 8,192 tokens",
        "Unknown configuration key: local_device (source: file: /",
        "Creating LMCacheEngine with config: {'max_local_cpu_size': 1,",
        "Stored 1024 out of total 1024 tokens.",
        "LMCache hit tokens: 1024, need to load: 1024",
        "Retrieved 1024 out of 1024 required tokens",
        "\"POST /v1/completions HTTP/1.1\" 200 OK",
    ] {
        assert!(log.contains(line), "{line} is missing in:\n{log}");
    }
    assert!(
        log.starts_with("labrun simulator"),
        "the first line names the simulator"
    );
}
