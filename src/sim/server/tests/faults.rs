use super::*;

#[tokio::test]
async fn the_port_refuses_connections_until_the_server_is_loaded() {
    let mut options = SimOptions::for_model("m");
    options.port = 0;
    options.spec = SimSpec {
        start_ms: 3_600_000,
        ..tiny(&[])
    };
    options.log = LogSink::Memory(Arc::default());
    let server = SimServer::bind(options).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let run = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    assert!(TcpStream::connect(address).await.is_err(), "not loaded yet");
    stop.send(()).unwrap();
    let exit = timeout(PATIENCE, run).await.unwrap().unwrap().unwrap();
    assert_eq!(exit, SimExit::Stopped, "it can be stopped while loading");
}

#[cfg(feature = "paused-clock")]
#[tokio::test(start_paused = true)]
async fn start_faults_are_acted_out() {
    let run = async |faults: &[Fault]| {
        let mut options = SimOptions::for_model("m");
        options.port = 0;
        options.spec = SimSpec {
            start_ms: 1_000,
            ..tiny(faults)
        };
        options.log = LogSink::Memory(Arc::default());
        let started = tokio::time::Instant::now();
        let server = SimServer::bind(options).await.unwrap();
        let exit = server.load().await;
        (exit, started.elapsed().as_millis())
    };
    assert_eq!(run(&[]).await.0, None);
    let (exit, ms) = run(&[Fault::SlowStart]).await;
    assert!(exit.is_none() && ms >= 20_000, "{ms} ms");
    let (exit, ms) = run(&[Fault::ExitWhileLoading]).await;
    assert_eq!(exit, Some(SimExit::Fault(Fault::ExitWhileLoading)));
    assert!(ms < 1_000, "{ms} ms");
}

#[tokio::test]
async fn exit_mid_load_breaks_the_streams_and_ends_the_server() {
    let spec = SimSpec {
        fault_after_requests: 1,
        ..tiny(&[Fault::ExitMidLoad])
    };
    let server = TestServer::start(spec).await;
    let body = request(10, r#""max_tokens":50,"stream":true"#);
    assert!(server.complete(&body).await.complete);
    let broken = server.complete(&body).await;
    assert!(
        !broken.complete && !broken.body.contains("[DONE]"),
        "{}",
        broken.body
    );
    let exit = timeout(PATIENCE, server.run)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(exit, SimExit::Fault(Fault::ExitMidLoad));
}

#[tokio::test]
async fn every_nth_request_fails_with_http_500_or_a_cut_stream() {
    let spec = SimSpec {
        fault_every_requests: 2,
        ..tiny(&[Fault::Http500])
    };
    let server = TestServer::start(spec).await;
    let body = request(10, r#""max_tokens":5,"stream":true"#);
    assert_eq!(server.complete(&body).await.status(), 200);
    let failed = server.complete(&body).await;
    assert_eq!(failed.status(), 500);
    assert!(
        failed
            .body
            .contains(r#""type":"InternalServerError","param":null,"code":500"#)
    );
    server.stop().await;

    let spec = SimSpec {
        fault_every_requests: 2,
        ..tiny(&[Fault::CutStream])
    };
    let server = TestServer::start(spec).await;
    assert!(server.complete(&body).await.complete);
    let cut = server.complete(&body).await;
    assert_eq!((cut.status(), cut.complete), (200, false));
    assert!(
        (1..5).contains(&cut.body.matches("data:").count()),
        "{}",
        cut.body
    );
}

#[tokio::test]
async fn a_stalled_server_stays_healthy_and_silent() {
    let spec = SimSpec {
        fault_after_requests: 1,
        ..tiny(&[Fault::Stall])
    };
    let server = TestServer::start(spec).await;
    let body = request(10, r#""max_tokens":5,"stream":true"#);
    assert!(server.complete(&body).await.complete);
    let stalled = server.send("POST", "/v1/completions", "", &body).await;
    let waits = async { while server.metric("vllm:num_requests_waiting").await < 1 {} };
    timeout(PATIENCE, waits).await.unwrap();
    assert_eq!(server.call("GET", "/health", "").await.status(), 200);
    assert_eq!(server.metric("vllm:generation_tokens_total").await, 5);
    drop(stalled);
}
