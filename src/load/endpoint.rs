//! Where the server is.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// The protocol of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1 without TLS.
    Http,
    /// HTTP with TLS, through the general client.
    Https,
}

/// A server's address and what every request to it carries.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    host: String,
    port: u16,
    base_path: String,
    api_key: Option<String>,
}

/// Why a URL is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is not the URL of a server: {why}")]
pub struct BadEndpoint {
    url: String,
    why: &'static str,
}

impl Endpoint {
    /// Reads `http://host[:port][/base]`. A base that ends in `/v1` is taken without it, because
    /// every route brings its own.
    pub fn parse(url: &str) -> Result<Self, BadEndpoint> {
        let bad = |why| BadEndpoint {
            url: without_secrets(url),
            why,
        };
        let (scheme, rest) = if let Some(rest) = url.strip_prefix("http://") {
            (Scheme::Http, rest)
        } else if let Some(rest) = url.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else {
            return Err(bad("it must begin with `http://` or `https://`"));
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if url.contains('@') {
            return Err(bad(
                "it names a user or a password; a key goes into OPENAI_API_KEY",
            ));
        }
        if path.contains(['?', '#']) {
            return Err(bad("it may hold a host, a port and a path, nothing else"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (
                host,
                port.parse()
                    .map_err(|_| bad("the port is not a number up to 65535"))?,
            ),
            _ => (authority, if scheme == Scheme::Http { 80 } else { 443 }),
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(bad("it names no host"));
        }
        let path = path.trim_end_matches('/');
        let base_path = path.strip_suffix("/v1").unwrap_or(path).to_owned();
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
            base_path,
            api_key: None,
        })
    }

    /// The same endpoint, with a key that is sent as a bearer token and never shown.
    #[must_use]
    pub fn with_api_key(mut self, key: String) -> Self {
        self.api_key = Some(key);
        self
    }

    /// How it is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The URL of a route such as `/v1/completions`.
    pub fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    pub(crate) fn api_key(&self) -> Option<&str> {
        self.api_key.as_deref()
    }

    /// `host:port`, as the `Host` header has it.
    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The head of a request, whole.
    pub(crate) fn request_head(&self, path: &str, content_length: usize) -> Vec<u8> {
        let mut head = format!(
            "POST {}{path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             accept: text/event-stream\r\naccept-encoding: identity\r\nuser-agent: labrun\r\n\
             content-length: {content_length}\r\n",
            self.base_path,
            self.authority(),
        );
        if let Some(key) = &self.api_key {
            head.push_str("authorization: Bearer ");
            head.push_str(key);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The address that requests go to. A name with several addresses (`localhost` is often `::1`
    /// and `127.0.0.1`) is settled here, before the clock starts, by which one answers.
    pub(crate) async fn resolve(&self, patience: Duration) -> io::Result<SocketAddr> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> = lookup_host((host, self.port)).await?.collect();
        let Some(first) = addresses.first().copied() else {
            let message = format!("`{host}` has no address");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        };
        if addresses.len() > 1 {
            for address in addresses {
                if let Ok(Ok(_)) = timeout(patience, TcpStream::connect(address)).await {
                    return Ok(address);
                }
            }
        }
        Ok(first)
    }
}

/// `url` as it may be shown: without what may be a password, and without a query.
fn without_secrets(url: &str) -> String {
    let scheme = url.find("://").map_or("", |at| &url[..at + 3]);
    match (url.rsplit_once('@'), url.find(['?', '#'])) {
        (Some((_, host)), None) => format!("{scheme}***@{host}"),
        (Some(_), Some(_)) => format!("{scheme}***"),
        (None, Some(at)) => url[..at].to_owned(),
        (None, None) => url.to_owned(),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.base_path)
    }
}

/// Shows the address only: the key is a secret.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let shown = |url| Endpoint::parse(url).map(|endpoint| endpoint.to_string());
        assert_eq!(
            shown("http://127.0.0.1:8000"),
            Ok("http://127.0.0.1:8000".to_owned())
        );
        assert_eq!(shown("http://host/v1/"), Ok("http://host:80".to_owned()));
        assert_eq!(
            shown("https://a.b/llm/v1"),
            Ok("https://a.b:443/llm".to_owned())
        );
        assert_eq!(shown("http://[::1]:9"), Ok("http://[::1]:9".to_owned()));
        for bad in [
            "127.0.0.1:8000",
            "http://",
            "http://h:99999",
            "http://u:p@h/",
            "http://h/?x",
        ] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_password_is_shown_where_a_url_is_refused() {
        for url in [
            "http://me:sesame@h:1",
            "http://me:pass/sesame@h:1",
            "http://me:sesame#1@h",
            "me:sesame@h",
            "ftp://me:sesame@h",
            "http://h/?key=sesame",
            "http://h/?mail=me@sesame",
            "http://:sesame@h:99999",
        ] {
            let refused = Endpoint::parse(url).unwrap_err().to_string();
            assert!(!refused.contains("sesame"), "{refused}");
        }
    }

    #[test]
    fn the_key_is_sent_and_never_shown() {
        let endpoint = Endpoint::parse("http://h:1")
            .unwrap()
            .with_api_key("sesame".to_owned());
        let head = String::from_utf8(endpoint.request_head("/v1/completions", 5)).unwrap();
        assert!(
            head.starts_with("POST /v1/completions HTTP/1.1\r\nhost: h:1\r\n"),
            "{head}"
        );
        assert!(head.contains("authorization: Bearer sesame\r\n"));
        assert!(head.ends_with("content-length: 5\r\nauthorization: Bearer sesame\r\n\r\n"));
        assert!(!format!("{endpoint:?}{endpoint}").contains("sesame"));
    }
}
