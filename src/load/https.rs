//! The transport for TLS: the general client.
//!
//! Its frames are the client library's, stamped when they come out of it, and it does not tell how
//! long a connection took: `connect` stays absent, and the first request of a connection has its
//! set-up inside TTFT. Plain HTTP never goes this way.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::endpoint::Endpoint;
use super::error::{ErrorKind, Failure, MESSAGE_BYTES};
use super::exchange::Bounds;
use super::reading::Reading;
use super::record::{Outcome, RequestRecord};
use crate::nvtx::RequestRange;
use crate::workload::PlannedRequest;

/// uvicorn closes idle connections after 5 s.
const IDLE: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(crate) struct Https {
    client: reqwest::Client,
    endpoint: Endpoint,
}

impl Https {
    /// A client without proxies, redirects or retries. The caller has installed a TLS provider.
    pub(crate) fn new(endpoint: &Endpoint, patience: Duration) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(patience)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(usize::MAX)
            .build()?;
        Ok(Self {
            client,
            endpoint: endpoint.clone(),
        })
    }

    pub(crate) async fn exchange(
        &self,
        request: &PlannedRequest,
        bounds: Bounds<'_>,
        record: &mut RequestRecord,
    ) -> Outcome {
        let mut builder = self
            .client
            .post(self.endpoint.url(request.path))
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .body(request.body.clone());
        if let Some(key) = self.endpoint.api_key() {
            builder = builder.bearer_auth(key);
        }
        let sent = Instant::now();
        record.sent = Some(sent - bounds.epoch);
        let range = RequestRange::sent(record.index);
        let first_token = sent + bounds.first_token.min(bounds.total);
        let response = tokio::select! {
            biased;
            response = builder.send() => response,
            () = sleep_until(first_token) => return late(ErrorKind::TimeoutFirstToken),
            () = bounds.kill.cancelled() => return Outcome::Unfinished,
        };
        match response {
            Ok(response) => {
                self.read(response, request, (sent, bounds, range), record)
                    .await
            }
            Err(error) => Outcome::Failed(failure_of(&error)),
        }
    }

    async fn read(
        &self,
        mut response: reqwest::Response,
        request: &PlannedRequest,
        (sent, bounds, mut range): (Instant, Bounds<'_>, RequestRange),
        record: &mut RequestRecord,
    ) -> Outcome {
        let status = response.status().as_u16();
        record.http_status = Some(status);
        let content_type = response.headers().get("content-type");
        let is_stream = content_type
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.to_ascii_lowercase().starts_with("text/event-stream"));
        let streamed = status == 200 && is_stream;
        let mut reading = Reading::new(request.keep, request.gen_len, record);
        let mut words = Vec::new();
        let mut last = sent;
        let cut = loop {
            let limit = if record.token_events > 0 {
                bounds.total
            } else {
                bounds.first_token
            };
            let frame = tokio::select! {
                biased;
                frame = response.chunk() => frame,
                () = sleep_until(sent + limit.min(bounds.total)) => {
                    let first = record.token_events == 0;
                    let kind =
                        if first { ErrorKind::TimeoutFirstToken } else { ErrorKind::TimeoutTotal };
                    break Some(Failure::new(kind, "no end of the answer in time"));
                }
                () = bounds.kill.cancelled() => return Outcome::Unfinished,
            };
            let at = Instant::now();
            match frame {
                Ok(Some(bytes)) if streamed => {
                    last = at;
                    let mark = reading.mark(record);
                    let none_yet = record.token_events == 0;
                    reading.take(&bytes, record);
                    reading.close_frame(mark, at - sent, record);
                    if none_yet && record.token_events > 0 {
                        range.first_token();
                    }
                    bounds.waits.add(None);
                    if reading.has_failed() {
                        break None;
                    }
                }
                Ok(Some(bytes)) => {
                    let room = MESSAGE_BYTES - words.len();
                    words.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                Ok(None) => break None,
                Err(error) => break Some(failure_of(&error)),
            }
        };
        if streamed {
            return reading.finish(cut, last - sent, record);
        }
        let kind = if status == 200 {
            ErrorKind::NotAStream
        } else {
            ErrorKind::Http(status)
        };
        Outcome::Failed(Failure::with_body(kind, &words))
    }
}

fn late(kind: ErrorKind) -> Outcome {
    Outcome::Failed(Failure::new(kind, "no answer in time"))
}

/// Says what to do about a certificate that is not trusted.
fn with_advice(mut failure: Failure) -> Failure {
    if failure.message.contains("certificate") {
        failure.message.push_str(
            "; to trust a private authority, name its PEM file in SSL_CERT_FILE (it takes the \
             place of the system's)",
        );
    }
    failure
}

/// The kind behind a client library's error, by what the system said.
fn failure_of(error: &reqwest::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut system = None;
    while let Some(error) = cause {
        system = error.downcast_ref::<std::io::Error>().or(system);
        cause = error.source();
    }
    match (error.is_connect(), system) {
        (true, _) if error.is_timeout() => {
            Failure::new(ErrorKind::TimeoutConnect, error.to_string())
        }
        (true, Some(system)) => with_advice(Failure::connecting(system)),
        (true, None) => Failure::new(ErrorKind::Connect, error.to_string()),
        (false, Some(system)) => Failure::transferring(system),
        (false, None) => Failure::new(ErrorKind::CutStream, error.to_string()),
    }
}
