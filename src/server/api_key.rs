//! The key that a server may want.

use std::fmt;

/// A key that is sent as a bearer token and never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ApiKey(String);

impl ApiKey {
    /// The environment variable that holds it.
    pub(crate) const VARIABLE: &'static str = "OPENAI_API_KEY";

    /// The key of this process's environment.
    pub(crate) fn of_environment() -> Option<Self> {
        Self::of(&std::env::var(Self::VARIABLE).ok()?)
    }

    /// The key that `text` is; none where it is empty.
    pub(crate) fn of(text: &str) -> Option<Self> {
        Some(text.trim())
            .filter(|key| !key.is_empty())
            .map(|key| Self(key.to_owned()))
    }

    /// The key, unmasked.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

/// A server that answers a request with 401 or 403.
#[derive(Debug, thiserror::Error)]
#[error("the server wants a key: {route} answered {status}; {advice}")]
pub(crate) struct WantsKey {
    /// The route that was asked.
    pub route: String,
    /// Status of the answer.
    pub status: u16,
    advice: &'static str,
}

impl WantsKey {
    /// The answer of `route` to a request that had a key, or had none.
    pub(super) fn new(route: String, status: u16, has_key: bool) -> Self {
        let advice = if has_key {
            "it does not take the one in OPENAI_API_KEY"
        } else {
            "set OPENAI_API_KEY, which is sent and never stored"
        };
        Self {
            route,
            status,
            advice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown_and_a_missing_one_is_named() {
        assert_eq!(format!("{:?}", ApiKey("sesame".to_owned())), "ApiKey(***)");
        let wants = |has_key| WantsKey::new("/v1/models".to_owned(), 401, has_key);
        assert_eq!(
            wants(false).to_string(),
            "the server wants a key: /v1/models answered 401; set OPENAI_API_KEY, which is sent and \
             never stored"
        );
        assert!(
            wants(true)
                .to_string()
                .contains("does not take the one in OPENAI_API_KEY")
        );
    }
}
