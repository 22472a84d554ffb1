//! The HTTP handlers.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, DefaultBodyLimit, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio::sync::watch;

use super::{
    answer::Api,
    driver::{Command, DriverHandle, External, Health},
    error::{ApiError, detail, json_response},
    generate,
    log::{Log, Speaker},
    metrics::{self, HttpCounts, Identity},
    protocol::{Context, RequestBody},
};
use crate::{plan::sim_spec::SimSpec, sim::tokenizer::Vocabulary};

/// What every handler sees.
#[derive(Debug)]
pub(super) struct App {
    pub(super) driver: DriverHandle,
    pub(super) spec: SimSpec,
    pub(super) vocabulary: Vocabulary,
    pub(super) identity: Identity,
    pub(super) max_model_len: u32,
    pub(super) health: watch::Receiver<Health>,
    pub(super) log: Log,
    /// Engine requests so far.
    pub(super) next_id: AtomicU64,
    /// Generation requests so far, for the faults that hit every n-th.
    pub(super) generations: AtomicU64,
    pub(super) http: Mutex<HttpCounts>,
}

impl App {
    pub(super) fn context(&self) -> Context<'_> {
        Context {
            served_model: &self.identity.served_model,
            max_model_len: self.max_model_len,
            vocabulary: self.vocabulary,
        }
    }
}

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ping", get(health).post(health))
        .route("/load", get(load))
        .route("/version", get(version))
        .route("/v1/models", get(models))
        .route("/metrics", get(metrics_page))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/reset_prefix_cache", post(reset_prefix_cache))
        .route("/labrun_sim/drop_page_cache", post(drop_page_cache))
        .fallback(|| async { detail(StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async {
            detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// Names the simulator in every answer, logs the access like uvicorn, and counts.
async fn observe(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().to_string();
    let target = request.uri().to_string();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert(header::SERVER, HeaderValue::from_static("labrun-sim"));
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or("");
    let line = format!(
        "INFO:     {peer} - \"{method} {target} HTTP/1.1\" {} {reason}",
        status.as_u16()
    );
    app.log.line(Speaker::ApiServer, &line);
    if !matches!(
        path.as_str(),
        "/metrics" | "/health" | "/load" | "/ping" | "/version"
    ) {
        let unknown = matches!(status.as_u16(), 404 | 405) && !path.starts_with("/v1/c");
        let handler = if unknown { "none".to_owned() } else { path };
        let class = format!("{}xx", status.as_u16() / 100);
        let mut counts = app.http.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((handler, method, class)).or_insert(0) += 1;
    }
    response
}

async fn health(State(app): State<Arc<App>>) -> StatusCode {
    match *app.health.borrow() {
        Health::Serving => StatusCode::OK,
        Health::Dead => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn load() -> Response {
    // As without `--enable-server-load-tracking`.
    json_response(StatusCode::OK, json!({"server_load": 0}).to_string())
}

async fn version(State(app): State<Arc<App>>) -> Response {
    let answer = json!({ "version": app.identity.version });
    json_response(StatusCode::OK, answer.to_string())
}

async fn models(State(app): State<Arc<App>>) -> Response {
    let created_s = unix_s();
    let body = json!({"object": "list", "data": [{
        "id": app.identity.served_model,
        "object": "model",
        "created": created_s,
        "owned_by": "vllm",
        "root": app.identity.model,
        "parent": null,
        "max_model_len": app.max_model_len,
        "permission": [{
            "id": format!("modelperm-{:016x}", generate::fresh_id(&app)),
            "object": "model_permission",
            "created": created_s,
            "allow_create_engine": false,
            "allow_sampling": true,
            "allow_logprobs": true,
            "allow_search_indices": false,
            "allow_view": true,
            "allow_fine_tuning": false,
            "organization": "*",
            "group": null,
            "is_blocking": false,
        }],
    }]});
    json_response(StatusCode::OK, body.to_string())
}

async fn metrics_page(State(app): State<Arc<App>>) -> Response {
    let Some(snapshot) = app.driver.ask(Command::Snapshot).await else {
        return ApiError::engine_dead().into_response();
    };
    let http = app
        .http
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let mut response = Response::new(Body::from(metrics::page(&app.identity, &snapshot, &http)));
    let kind = HeaderValue::from_static("text/plain; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn tokenize(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, ApiError> {
    let tokens = RequestBody::parse(&body)?.tokenize(app.context())?;
    let answer = json!({
        "count": tokens.len(),
        "max_model_len": app.max_model_len,
        "tokens": tokens,
        "token_strs": null,
    });
    Ok(json_response(StatusCode::OK, answer.to_string()))
}

async fn detokenize(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, ApiError> {
    let tokens = RequestBody::parse(&body)?.detokenize(app.context())?;
    let answer = json!({"prompt": app.vocabulary.decode(&tokens)});
    Ok(json_response(StatusCode::OK, answer.to_string()))
}

async fn completions(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let generation = RequestBody::parse(&body)?.completion(&headers, app.context())?;
    generate::respond(app, Api::Completions, generation).await
}

async fn chat(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let generation = RequestBody::parse(&body)?.chat(&headers, app.context())?;
    generate::respond(app, Api::Chat, generation).await
}

async fn reset_prefix_cache(
    State(app): State<Arc<App>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let asked = |name: &str| {
        query
            .iter()
            .any(|(key, value)| key == name && value.eq_ignore_ascii_case("true"))
    };
    let external = if asked("reset_external") {
        External::Reset
    } else {
        External::Keep
    };
    let source = "api_router.py:36";
    app.log.vllm(
        Speaker::ApiServer,
        "INFO",
        source,
        "Resetting prefix cache...",
    );
    let reset = |done| Command::ResetPrefixCache { external, done };
    match app.driver.ask(reset).await {
        Some(success) => json_response(StatusCode::OK, json!({ "success": success }).to_string()),
        None => ApiError::engine_dead().into_response(),
    }
}

async fn drop_page_cache(State(app): State<Arc<App>>) -> Response {
    let success = app.driver.ask(Command::DropPageCache).await.is_some();
    json_response(StatusCode::OK, json!({ "success": success }).to_string())
}

/// Seconds since 1970.
pub(super) fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The next number of a counter, from 1.
pub(super) fn next(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}
