//! The objects that an LMCache server's second layer holds, where its adapter lists them.

use anyhow::{Result, ensure};
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};

use super::{ACTION_LIMIT, Control};

/// How often a store is asked for what it still holds: each time it names up to 1,000 objects.
const MAX_PAGES: usize = 10_000;

impl Control {
    /// The keys of the first objects in the store behind an LMCache server; up to 1,000.
    pub(crate) async fn lmcache_objects(&self, lmcache_url: &str) -> Result<Vec<Value>> {
        let url = format!("{lmcache_url}/cache/objects?tier=l2&page_size=1000");
        let answer = self.send(Method::GET, &url, None, ACTION_LIMIT).await?;
        let page = answer.success("cache/objects")?.json();
        let entries = page["entries"].as_array().into_iter().flatten();
        Ok(entries.map(|entry| entry["key"].clone()).collect())
    }

    /// Removes every object in the store behind an LMCache server.
    pub(crate) async fn remove_lmcache_objects(&self, lmcache_url: &str) -> Result<()> {
        let url = format!("{lmcache_url}/cache/objects");
        let mut before = Vec::new();
        for _ in 0..MAX_PAGES {
            let keys = self.lmcache_objects(lmcache_url).await?;
            if keys.is_empty() {
                return Ok(());
            }
            ensure!(
                keys != before,
                "the store behind the LMCache server does not remove its objects (see LMCache's log)"
            );
            let body = Bytes::from(json!({"tier": "l2", "keys": keys}).to_string());
            let sent = self.send(Method::DELETE, &url, Some(body), ACTION_LIMIT);
            sent.await?.success("cache/objects")?;
            before = keys;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Json;
    use axum::extract::State;
    use axum::routing::get;

    use super::*;
    use crate::server::control::Endpoint;

    type Store = Arc<Mutex<Vec<u64>>>;

    async fn list(State(store): State<Store>) -> Json<Value> {
        let store = store.lock().unwrap();
        let entries: Vec<Value> = store.iter().map(|key| json!({"key": {"n": key}})).collect();
        Json(json!({"adapter": "s3", "entries": entries}))
    }

    async fn delete(State(store): State<Store>, Json(body): Json<Value>) -> Json<Value> {
        let keys = body["keys"].as_array().unwrap();
        let is_named = |key: &u64| keys.iter().any(|named| named["n"] == *key);
        // An odd object is never removed.
        store
            .lock()
            .unwrap()
            .retain(|key| !is_named(key) || key % 2 == 1);
        Json(json!({"deleted": keys.len(), "ok": true}))
    }

    /// What is left of `objects`, and how removing them ended.
    async fn removed(objects: &[u64]) -> (Vec<u64>, Result<()>) {
        drop(rustls::crypto::ring::default_provider().install_default());
        let store = Store::new(Mutex::new(objects.to_vec()));
        let routes = axum::Router::new().route("/cache/objects", get(list).delete(delete));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving =
            tokio::spawn(axum::serve(listener, routes.with_state(store.clone())).into_future());
        let control = Control::new(Endpoint::new(&url, "m").unwrap()).unwrap();
        let ended = control.remove_lmcache_objects(&url).await;
        serving.abort();
        let left = store.lock().unwrap().clone();
        (left, ended)
    }

    #[tokio::test]
    async fn a_store_is_emptied_or_said_to_keep_its_objects() {
        let (left, ended) = removed(&[2, 4, 6]).await;
        assert!(left.is_empty() && ended.is_ok(), "{left:?} {ended:?}");
        let (left, ended) = removed(&[2, 3]).await;
        assert_eq!(left, [3]);
        let error = ended.unwrap_err().to_string();
        assert!(error.contains("does not remove its objects"), "{error}");
    }
}
