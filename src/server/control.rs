//! The server's control routes: health, models, version, metrics, cache resets. Never on the
//! measuring path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::prom::Scrape;
use crate::foreign::{one_line, shortened, visible};
use crate::secret;

/// Where requests go, and the model that they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://host:port`, without a slash at the end.
    pub url: String,
    /// The model's served name.
    pub model: String,
}

impl Endpoint {
    /// The server at `url`, which must be no more than scheme, host and port: every route is told
    /// from there, and one that is missed would be missed silently.
    pub fn new(url: &str, model: &str) -> Result<Self> {
        let url = url.trim_end_matches('/');
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        match rest {
            None => bail!("`{url}` is no server's URL: it must begin with http:// or https://"),
            Some(rest) if rest.contains(['/', '?', '#']) => {
                bail!("`{url}` has a path; give only http://HOST:PORT")
            }
            Some(_) => Ok(Self {
                url: url.to_owned(),
                model: model.to_owned(),
            }),
        }
    }
}

/// A client of the control routes.
#[derive(Clone, Debug)]
pub struct Control {
    http: reqwest::Client,
    endpoint: Endpoint,
    /// Whether the last scrape did not answer in time.
    is_slow: Arc<AtomicBool>,
}

/// The most models that a message lists, of those that a server has.
const MAX_SHOWN_MODELS: usize = 8;
/// The most characters of a model's id or of a version.
const MAX_ID_CHARS: usize = 200;

/// Longest wait for `/metrics`, and for those after one that did not answer.
const SCRAPE_LIMIT: Duration = Duration::from_secs(10);
const SLOW_SCRAPE_LIMIT: Duration = Duration::from_secs(1);

/// Longest wait for one control answer. A reset of a large cache takes seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Longest wait for a profile to be written.
const PROFILE_LIMIT: Duration = Duration::from_secs(600);

impl Control {
    /// A client of `endpoint`.
    pub fn new(endpoint: Endpoint) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            // uvicorn closes idle connections after 5 s; an older one would fail its next request.
            .pool_idle_timeout(Duration::from_secs(2))
            .connect_timeout(Duration::from_secs(5))
            .timeout(ANSWER_LIMIT)
            .build()
            .context("building the HTTP client")?;
        Ok(Self {
            http,
            endpoint,
            is_slow: Arc::default(),
        })
    }

    /// What it talks to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint.url)
    }

    /// `GET /health` answered 200.
    pub async fn health(&self) -> Result<()> {
        let answer = self.http.get(self.url("/health")).send().await?;
        match answer.status().as_u16() {
            200 => Ok(()),
            status => bail!("/health answered {status}"),
        }
    }

    /// The models that `GET /v1/models` lists.
    pub async fn models(&self) -> Result<Vec<String>> {
        let answer = self.http.get(self.url("/v1/models")).send().await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        let models = answer["data"]
            .as_array()
            .context("/v1/models lists no models")?;
        let ids = models.iter().filter_map(|model| model["id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// What it serves instead, where the model is not among `models`.
    pub fn not_among(&self, models: &[String]) -> Option<String> {
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
    pub async fn one_token(&self) -> Result<()> {
        let body = json!({
            "model": self.endpoint.model, "prompt": "Hello", "max_tokens": 1, "temperature": 0,
        });
        let answer = self
            .http
            .post(self.url("/v1/completions"))
            .json(&body)
            .send()
            .await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        let tokens = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|answer| answer["usage"]["completion_tokens"].as_u64());
        match (status, tokens) {
            (200, Some(1..)) => Ok(()),
            _ => bail!(
                "a request for one token was answered {status}: {}",
                head(&text)
            ),
        }
    }

    /// What `GET /version` answers, if it is there.
    pub async fn version(&self) -> Option<String> {
        self.told_version().await.ok().flatten()
    }

    /// What `GET /version` answers; `None` from a server that has no such route. Fails where nobody
    /// answers, or a proxy in the place of the server.
    pub async fn told_version(&self) -> Result<Option<String>> {
        let answer = self.http.get(self.url("/version")).send().await?;
        let status = answer.status();
        if status.is_server_error() {
            bail!("/version answered {}", status.as_u16());
        }
        let answer: Value = answer.json().await.unwrap_or_default();
        Ok(answer["version"].as_str().map(shown_id))
    }

    /// How many tokens the server makes of a `/tokenize` body.
    pub async fn count_tokens(&self, body: bytes::Bytes) -> Result<u32> {
        let request = self.http.post(self.url("/tokenize"));
        let request = request
            .header("content-type", "application/json")
            .body(body);
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        let count = answer["count"]
            .as_u64()
            .and_then(|count| u32::try_from(count).ok());
        count.with_context(|| format!("/tokenize answered {answer}"))
    }

    /// A scrape of `GET /metrics`.
    pub async fn metrics(&self) -> Result<Scrape> {
        self.scrape(&self.url("/metrics")).await
    }

    /// A scrape of another exposition, such as the LMCache server's. Once one did not answer in time,
    /// the next ones are not waited for as long.
    ///
    /// # Errors
    /// Says how the route was refused: its status, where it leads to, or that it does not answer.
    pub async fn scrape(&self, url: &str) -> Result<Scrape> {
        let route = url.rsplit('/').next().unwrap_or_default();
        let limit = if self.is_slow.load(Ordering::Relaxed) {
            SLOW_SCRAPE_LIMIT
        } else {
            SCRAPE_LIMIT
        };
        let asked = async {
            let answer = self.http.get(url).send().await?;
            let (at, status) = (answer.url().clone(), answer.status());
            Ok::<_, reqwest::Error>((at, status, answer.text().await?))
        };
        let answered = tokio::time::timeout(limit, asked).await;
        self.is_slow.store(answered.is_err(), Ordering::Relaxed);
        let (at, status, text) = match answered {
            Ok(answer) => answer.map_err(reqwest::Error::without_url)?,
            Err(_) => bail!("/{route} did not answer within {} s", limit.as_secs()),
        };
        let redirected = if at.as_str() == url {
            String::new()
        } else {
            format!(
                ", at {}{}, where it is redirected to",
                at.host_str().unwrap_or_default(),
                at.path()
            )
        };
        let why = match status.as_u16() {
            200 => {
                let scrape = Scrape::parse(&text);
                if scrape.is_empty() {
                    bail!("/{route} answered no metrics{redirected}");
                }
                return Ok(scrape);
            }
            401 | 403 => ": it wants a login that labrun does not have",
            404 => ": the server has no such route",
            _ => "",
        };
        bail!("/{route} answered {}{redirected}{why}", status.as_u16())
    }

    /// Empties the GPU prefix cache and leaves every tier as it is. Retried while requests that
    /// have just ended still hold blocks.
    pub async fn reset_prefix_cache(&self) -> Result<()> {
        let url = self.url("/reset_prefix_cache");
        for _ in 0..20 {
            let answer = self.http.post(&url).send().await?;
            let status = answer.status().as_u16();
            let text = answer.text().await?;
            match (status, serde_json::from_str::<Value>(&text)) {
                // Before 0.32 vLLM answers an empty body whether it cleared anything or not; the
                // measured pass's own counters tell.
                (200, Err(_)) => return Ok(()),
                (200, Ok(answer)) if answer["success"] == Value::Bool(true) => return Ok(()),
                (200, Ok(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                (404 | 405, _) => bail!(
                    "the server has no /reset_prefix_cache; start it with VLLM_SERVER_DEV_MODE=1"
                ),
                _ => bail!("/reset_prefix_cache answered {status}: {}", head(&text)),
            }
        }
        bail!("/reset_prefix_cache was refused for 2 s: some request still holds its blocks")
    }

    /// Asks vLLM for `start_profile` or `stop_profile`. The second returns when the profile is
    /// written, which may take minutes.
    pub async fn profiler(&self, route: &str) -> Result<()> {
        let request = self.http.post(self.url(&format!("/{route}")));
        let answer = request.timeout(PROFILE_LIMIT).send().await?;
        let status = answer.status().as_u16();
        match status {
            200 => Ok(()),
            404 | 405 => {
                bail!("the server has no /{route}; vLLM has it when started with --profiler-config")
            }
            _ => bail!(
                "/{route} answered {status}: {}",
                head(&answer.text().await?)
            ),
        }
    }

    /// Empties the RAM layer of an LMCache server and leaves its second layer as it is.
    pub async fn clear_lmcache_l1(&self, lmcache_url: &str) -> Result<()> {
        let url = format!("{lmcache_url}/cache/clear");
        let body = json!({"tier": "l1", "force": false});
        let answer = self.http.post(&url).json(&body).send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if status == 200 && answer["status"] == "ok" {
            return Ok(());
        }
        bail!("LMCache's /cache/clear answered {status}: {}", head(&text))
    }

    /// The configuration that an LMCache server says it runs with, if it says it.
    pub async fn lmcache_config(&self, lmcache_url: &str) -> Option<Value> {
        // Up to 0.5.0 the route has the shorter name.
        for route in ["config", "conf"] {
            let url = format!("{lmcache_url}/{route}");
            let answer = self.http.get(&url).send().await.ok()?;
            if let Ok(answer) = answer.error_for_status() {
                return answer.json().await.ok();
            }
        }
        None
    }

    /// An LMCache server says that it is healthy.
    pub async fn lmcache_health(&self, lmcache_url: &str) -> Result<()> {
        let url = format!("{lmcache_url}/healthcheck");
        let answer = self.http.get(&url).send().await?;
        match answer.status().as_u16() {
            200 => Ok(()),
            status => bail!("LMCache's /healthcheck answered {status}"),
        }
    }
}

/// The beginning of an answer, for messages. Masked before it is cut: half of a secret is known as none.
fn head(text: &str) -> String {
    let begin: String = text.chars().take(4_000).collect();
    visible(&shortened(&secret::mask(&begin), 300)).into_owned()
}

/// A model's id or a version, as it is stored and shown: no real one is longer.
fn shown_id(text: &str) -> String {
    one_line(&shortened(text, MAX_ID_CHARS))
}

#[cfg(test)]
mod tests {
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

    /// What a scrape of a server comes to that answers everything with `answer`, or the error.
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
    async fn a_refused_scrape_says_how_it_was_refused() {
        for (answer, reason) in [
            (
                "HTTP/1.1 401 X\r\ncontent-length: 0\r\n\r\n",
                "/metrics answered 401: it wants a login",
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
        let found = scraped("HTTP/1.1 200 X\r\ncontent-length: 4\r\n\r\na 1\n").await;
        assert_eq!(found.unwrap().sum("a", None), Some(1.0));
    }

    #[test]
    fn a_long_list_of_models_and_a_long_name_are_shortened_and_steer_nothing() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let control = Control::new(Endpoint::new("http://h:1", "m").unwrap()).unwrap();
        let mut models = vec!["\u{1b}]0;x\u{7}".to_owned(), "v".repeat(5_000_000)];
        models.extend((0..100_000).map(|number| format!("model-{number}")));
        let told = control.not_among(&models).unwrap();
        assert!(
            told.starts_with("it serves `\\x1b]0;x\\x07`, `vvv"),
            "{}",
            &told[..80]
        );
        assert!(told.ends_with("and 99994 more, not `m`"), "{}", told.len());
        assert!(told.len() < 1_000 && told.contains("(5000000 bytes)"));
        models.push("m".to_owned());
        assert_eq!(control.not_among(&models), None);
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
}
