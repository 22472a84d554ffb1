//! The server's control routes: health, models, version, metrics, cache resets. Never on the
//! measuring path.

mod objects;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};

use super::answer::{Answer, series};
use super::api_key::{ApiKey, WantsKey};
use super::prom::Scrape;
use crate::foreign::{one_line, shortened};
use crate::workload::Tokenized;

/// A server without the route by which labrun asks whether it is up.
#[derive(Debug, thiserror::Error)]
#[error(
    "/health answered 404: labrun asks there whether the server is up; name the address of vLLM \
     itself, or let the proxy before it pass /health on"
)]
pub(crate) struct NoHealth;

/// Where requests go, and the model that they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `http://host:port`, without a slash at the end.
    pub url: String,
    /// The model's served name.
    pub model: String,
    /// The key that the server wants.
    pub api_key: Option<ApiKey>,
}

impl Endpoint {
    /// The server at `url`, which must be no more than scheme, host and port: labrun appends every
    /// route to it, and a wrong route would go unnoticed.
    pub(crate) fn new(url: &str, model: &str) -> Result<Self> {
        let url = url.trim_end_matches('/');
        if url.contains('@') {
            // What stands before it may be a password.
            bail!(
                "the server's URL names a user or a password: write http://HOST:PORT alone; a key \
                 goes into {}",
                ApiKey::VARIABLE
            );
        }
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        match rest {
            None => {
                bail!("`{url}` is not the URL of a server: it must begin with http:// or https://")
            }
            Some(rest) if rest.contains(['/', '?', '#']) => {
                let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
                bail!("the URL of `{host}` has a path; give only http://HOST:PORT")
            }
            Some(_) => Ok(Self {
                url: url.to_owned(),
                model: model.to_owned(),
                api_key: None,
            }),
        }
    }

    /// The same, with the key of this process's environment.
    #[must_use]
    pub(crate) fn with_key_of_environment(self) -> Self {
        Self {
            api_key: ApiKey::of_environment(),
            ..self
        }
    }
}

/// What a reset of the prefix cache empties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// The GPU prefix cache.
    Gpu,
    /// That, and what the connector holds in RAM.
    WithConnector,
}

/// A client of the control routes.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    http: reqwest::Client,
    endpoint: Endpoint,
    /// Longest wait for one answer of a read-only route.
    question_limit: Duration,
    /// Routes that did not answer in time when they were asked last, a sentence each.
    hung: Arc<Mutex<BTreeMap<String, String>>>,
    /// Series that it reads of an exposition besides those of vLLM, LMCache and the simulator.
    also: Vec<String>,
}

/// The most models that a message lists.
const MAX_SHOWN_MODELS: usize = 8;
/// The most characters of a model's id or of a version.
const MAX_ID_CHARS: usize = 200;

/// Longest wait for one answer of a route that changes something. A reset of a large cache takes
/// seconds.
const ACTION_LIMIT: Duration = Duration::from_secs(30);

/// Longest wait for one answer of a read-only route.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);

/// Longest wait for a route that did not answer in time before.
const HUNG_LIMIT: Duration = Duration::from_secs(1);

/// Longest wait for a profile to be written.
const PROFILE_LIMIT: Duration = Duration::from_secs(600);

impl Control {
    /// A client of `endpoint`.
    pub(crate) fn new(endpoint: Endpoint) -> Result<Self> {
        let mut http = reqwest::Client::builder()
            .no_proxy()
            // uvicorn closes idle connections after 5 s; an older one would fail its next request.
            .pool_idle_timeout(Duration::from_secs(2))
            .connect_timeout(Duration::from_secs(5));
        if endpoint.url.starts_with("http://") {
            // Small containers have no certificates, and plain HTTP needs none.
            http = http.tls_certs_only([]);
        }
        let http = http.build().context(
            "building the HTTPS client (without certificates of authorities? install \
             `ca-certificates`)",
        )?;
        Ok(Self {
            http,
            endpoint,
            question_limit: QUESTION_LIMIT,
            hung: Arc::default(),
            also: Vec::new(),
        })
    }

    /// The same, which reads the series called `names` too.
    #[must_use]
    pub(crate) fn reading_also(self, names: Vec<String>) -> Self {
        Self {
            also: names,
            ..self
        }
    }

    /// Server and model of its requests.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint.url)
    }

    /// Sends a request to `url` and reads its answer within `limit`.
    async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> Result<Answer> {
        let route = self.route(url);
        let asked = async {
            let answer = self.open(method, url, body).await?;
            Answer::read(&route, answer).await
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => bail!("{route} did not answer within {} s", limit.as_secs()),
        }
    }

    /// Sends a request to `url`; returns once the head of its answer came.
    async fn open(
        &self,
        method: Method,
        url: &str,
        body: Option<Bytes>,
    ) -> Result<reqwest::Response> {
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            let json = "application/json";
            request = request.header("content-type", json).body(body);
        }
        // A key is for the server alone, not for what runs beside it.
        let is_server = url.starts_with(&format!("{}/", self.endpoint.url));
        if let Some(key) = self.endpoint.api_key.as_ref().filter(|_| is_server) {
            request = request.bearer_auth(key.secret());
        }
        let answer = request.send().await?;
        match answer.status().as_u16() {
            status @ (401 | 403) => {
                let route = self.route(url);
                let has_key = self.endpoint.api_key.is_some();
                Err(WantsKey::new(route, status, has_key).into())
            }
            _ => Ok(answer),
        }
    }

    /// `url` as messages name it: the path of the server's own routes.
    fn route(&self, url: &str) -> String {
        url.strip_prefix(&self.endpoint.url)
            .unwrap_or(url)
            .to_owned()
    }

    /// Asks an optional route. One that timed out before gets a shorter limit.
    async fn ask<T>(&self, url: &str, question: impl Future<Output = Result<T>>) -> Result<T> {
        let route = self.route(url);
        let limit = if self.hung().contains_key(&route) {
            self.question_limit.min(HUNG_LIMIT)
        } else {
            self.question_limit
        };
        let Ok(answer) = tokio::time::timeout(limit, question).await else {
            let why = format!("{route} did not answer within {} s", limit.as_secs_f64());
            self.hung().entry(route).or_insert_with(|| why.clone());
            bail!("{why}");
        };
        self.hung().remove(&route);
        answer
    }

    fn hung(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.hung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What routes did not answer in time, a sentence each.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.hung().values().cloned().collect()
    }

    /// `GET /health` answered 200, or another status of success, as a proxy may.
    pub(crate) async fn health(&self) -> Result<()> {
        let url = self.url("/health");
        let answer = self
            .send(Method::GET, &url, None, self.question_limit)
            .await?;
        match answer.status {
            200..300 => Ok(()),
            404 => Err(NoHealth.into()),
            status => bail!("/health answered {status}"),
        }
    }

    /// The models that `GET /v1/models` lists.
    pub(crate) async fn models(&self) -> Result<Vec<String>> {
        let url = self.url("/v1/models");
        let answer = self
            .send(Method::GET, &url, None, self.question_limit)
            .await?;
        let answer = answer.success("/v1/models")?.json();
        let models = answer["data"]
            .as_array()
            .context("/v1/models lists no models")?;
        let ids = models.iter().filter_map(|model| model["id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// A message with the served `models`, where the model is not among them.
    pub(crate) fn not_among(&self, models: &[String]) -> Option<String> {
        let wanted = &self.endpoint.model;
        if models.contains(wanted) {
            return None;
        }
        let shown = models.iter().take(MAX_SHOWN_MODELS);
        let mut served: Vec<String> = shown
            .map(|model| format!("`{}`", shown_id(model)))
            .collect();
        if models.len() > MAX_SHOWN_MODELS {
            served.push(format!("and {} more", models.len() - MAX_SHOWN_MODELS));
        }
        Some(format!("it serves {}, not `{wanted}`", served.join(", ")))
    }

    /// One real token: the proof that the engine answers, not only the HTTP front.
    pub(crate) async fn one_token(&self) -> Result<()> {
        let body = json!({
            "model": self.endpoint.model, "prompt": "Hello", "max_tokens": 1, "temperature": 0,
        });
        let url = self.url("/v1/completions");
        let answer = self.post(&url, &body, ACTION_LIMIT).await?;
        match answer.json()["usage"]["completion_tokens"].as_f64() {
            Some(1.0..) if answer.status == 200 => Ok(()),
            _ => bail!(
                "a request for one token was answered {}: {}",
                answer.status,
                answer.head()
            ),
        }
    }

    async fn post(&self, url: &str, body: &Value, limit: Duration) -> Result<Answer> {
        let body = Bytes::from(body.to_string());
        self.send(Method::POST, url, Some(body), limit).await
    }

    /// What `GET /version` answers; `None` from a server that has no such route. Fails where
    /// nothing answers, or a proxy answers in the place of the server.
    pub(crate) async fn version(&self) -> Result<Option<String>> {
        let url = self.url("/version");
        let question = self.send(Method::GET, &url, None, ACTION_LIMIT);
        let answer = self.ask(&url, question).await?;
        if answer.status >= 500 {
            bail!("/version answered {}", answer.status);
        }
        Ok(answer.json()["version"].as_str().map(shown_id))
    }

    /// The tokens that the server makes of a `/tokenize` body.
    pub(crate) async fn tokenize(&self, body: Bytes) -> Result<Tokenized> {
        let url = self.url("/tokenize");
        let answer = self.send(Method::POST, &url, Some(body), ACTION_LIMIT);
        let answer = answer.await?.success("/tokenize")?;
        serde_json::from_value(answer.json())
            .with_context(|| format!("/tokenize answered {}", answer.head()))
    }

    /// A scrape of `GET /metrics`.
    pub(crate) async fn metrics(&self) -> Result<Scrape> {
        self.scrape(&self.url("/metrics")).await
    }

    /// A scrape of another exposition, such as the LMCache server's.
    ///
    /// # Errors
    /// Names the reason: the status, the redirect, or no answer in time.
    pub(crate) async fn scrape(&self, url: &str) -> Result<Scrape> {
        let route = self.route(url);
        let question = async {
            let answer = self.open(Method::GET, url, None).await;
            let answer = answer.map_err(without_url)?;
            let at = answer.url().clone();
            let redirected = if at.as_str() == url {
                String::new()
            } else {
                let host = at.host_str().unwrap_or_default();
                format!(", at {host}{}, where it is redirected to", at.path())
            };
            let status = answer.status().as_u16();
            let why = match status {
                200 => match series(&route, &self.also, answer).await? {
                    Some(series) => return Ok(Scrape::parse(&series)),
                    None => bail!("{route} answered no metrics{redirected}"),
                },
                404 => ": the server has no such route",
                _ => "",
            };
            bail!("{route} answered {status}{redirected}{why}")
        };
        self.ask(url, question).await
    }

    /// Empties the GPU prefix cache, and what else `reset` names. Retried while requests that
    /// have just ended still hold blocks.
    pub(crate) async fn reset_prefix_cache(&self, reset: Reset) -> Result<()> {
        let url = self.url(match reset {
            Reset::Gpu => "/reset_prefix_cache",
            Reset::WithConnector => "/reset_prefix_cache?reset_external=true",
        });
        for _ in 0..20 {
            let answer = self.send(Method::POST, &url, None, ACTION_LIMIT).await?;
            let status = answer.status;
            match (status, serde_json::from_slice::<Value>(&answer.body)) {
                (200, Ok(answer)) if answer["success"] == Value::Bool(false) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                // Before 0.32 vLLM answers an empty body whether it cleared anything or not, and
                // what stands before it may write `null`; the measured pass's own counters show it.
                (200, _) => return Ok(()),
                (404 | 405, _) => bail!(
                    "the server has no /reset_prefix_cache; start it with VLLM_SERVER_DEV_MODE=1"
                ),
                _ => bail!("/reset_prefix_cache answered {status}: {}", answer.head()),
            }
        }
        bail!("/reset_prefix_cache was refused for 2 s: some request still holds its blocks")
    }

    /// Posts to `url` what empties the RAM before a connector's tier.
    pub(crate) async fn reset_tier(&self, url: &str, body: Option<&Value>) -> Result<()> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        let answer = self.send(Method::POST, url, body, ACTION_LIMIT).await?;
        match answer.status {
            200..300 => Ok(()),
            status => bail!(
                "the tier's `reset` at {} answered {status}: {}",
                self.route(url),
                answer.head()
            ),
        }
    }

    /// Asks vLLM for `start_profile` or `stop_profile`. The second returns when the profile is
    /// written, which may take minutes.
    pub(crate) async fn profiler(&self, route: &str) -> Result<()> {
        let url = self.url(&format!("/{route}"));
        let answer = self.send(Method::POST, &url, None, PROFILE_LIMIT).await?;
        match answer.status {
            200 => Ok(()),
            404 | 405 => {
                bail!("the server has no /{route}; vLLM has it when started with --profiler-config")
            }
            status => bail!("/{route} answered {status}: {}", answer.head()),
        }
    }

    /// Empties the RAM layer of an LMCache server and leaves its second layer as it is.
    pub(crate) async fn clear_lmcache_l1(&self, lmcache_url: &str) -> Result<()> {
        let url = format!("{lmcache_url}/cache/clear");
        let body = json!({"tier": "l1", "force": false});
        let answer = self.post(&url, &body, ACTION_LIMIT).await?;
        if answer.status == 200 && answer.json()["status"] == "ok" {
            return Ok(());
        }
        bail!(
            "LMCache's /cache/clear answered {}: {}",
            answer.status,
            answer.head()
        )
    }

    /// The configuration that an LMCache server reports; `None` where it has no such route.
    pub(crate) async fn lmcache_config(&self, lmcache_url: &str) -> Option<Value> {
        // Up to 0.5.0 the route has the shorter name.
        for route in ["config", "conf"] {
            let url = format!("{lmcache_url}/{route}");
            let answer = self.send(Method::GET, &url, None, self.question_limit);
            if let Ok(answer) = answer.await.ok()?.success(route) {
                return serde_json::from_slice(&answer.body).ok();
            }
        }
        None
    }

    /// Asks an LMCache server whether it is healthy.
    pub(crate) async fn lmcache_health(&self, lmcache_url: &str) -> Result<()> {
        let url = format!("{lmcache_url}/healthcheck");
        let answer = self
            .send(Method::GET, &url, None, self.question_limit)
            .await?;
        match answer.status {
            200 => Ok(()),
            status => bail!("LMCache's /healthcheck answered {status}"),
        }
    }
}

/// An error of a request, without the URL where it is the client library's own.
fn without_url(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<reqwest::Error>() {
        Ok(error) => error.without_url().into(),
        Err(other) => other,
    }
}

/// A model's id or a version, as it is stored and shown: no real one is longer.
fn shown_id(text: &str) -> String {
    one_line(&shortened(text, MAX_ID_CHARS))
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
