//! The transport for TLS: the general client.
//!
//! Its frames are the client library's, stamped when they come out of it, and it does not
//! report how long a connection took: `connect` stays absent, and TTFT of the first request on a
//! connection includes its set-up. Plain HTTP never uses it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::coding::Coding;
use super::endpoint::Endpoint;
use super::error::{ErrorKind, Failure, MESSAGE_BYTES};
use super::exchange::{Bounds, TAIL};
use super::reading::{Reading, begins_events};
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
            .header("accept-encoding", "identity")
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
        record.http_status = Some(response.status().as_u16());
        let mut body = match Body::of(&response, request, record) {
            Ok(body) => body,
            Err(failure) => return Outcome::Failed(failure),
        };
        let mut last = sent;
        let cut = loop {
            let none_yet = record.token_events == 0;
            let limit = if none_yet {
                bounds.first_token
            } else {
                bounds.total
            };
            let deadline = if body.is_done() {
                last + TAIL
            } else {
                sent + limit.min(bounds.total)
            };
            let frame = tokio::select! {
                biased;
                frame = response.chunk() => frame,
                () = sleep_until(deadline) => {
                    let kind = if none_yet {
                        ErrorKind::TimeoutFirstToken
                    } else {
                        ErrorKind::TimeoutTotal
                    };
                    break Some(Failure::new(kind, "no end of the answer in time"));
                }
                () = bounds.kill.cancelled() => return Outcome::Unfinished,
            };
            let at = Instant::now();
            match frame {
                Ok(Some(bytes)) => {
                    last = at;
                    let more = body.take(&bytes, at - sent, record);
                    bounds.waits.add(None);
                    if none_yet && record.token_events > 0 {
                        range.first_token();
                    }
                    match more {
                        Ok(true) => {}
                        Ok(false) => break None,
                        Err(failure) => break Some(failure),
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(failure_of(&error)),
            }
        };
        body.finish(cut, last - sent, record)
    }
}

/// The body of an answer while it arrives.
struct Body {
    status: u16,
    location: Option<String>,
    coding: Coding,
    reading: Reading,
    /// It is an event stream.
    streamed: bool,
    /// The beginning of one that is not.
    words: Vec<u8>,
}

impl Body {
    fn of(
        response: &reqwest::Response,
        request: &PlannedRequest,
        record: &mut RequestRecord,
    ) -> Result<Self, Failure> {
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let status = response.status().as_u16();
        let kind = header("content-type").unwrap_or_default();
        let is_stream = kind.to_ascii_lowercase().starts_with("text/event-stream");
        let coding = Coding::of(&header("content-encoding").unwrap_or_default());
        Ok(Self {
            status,
            location: header("location"),
            coding: coding.map_err(|why| Failure::new(ErrorKind::BadResponse, why))?,
            reading: Reading::new(request.keep, request.gen_len, record),
            streamed: status == 200 && is_stream,
            words: Vec::new(),
        })
    }

    fn is_done(&self) -> bool {
        self.streamed && self.reading.is_done()
    }

    /// Takes bytes that arrived `since_sent`; whether those behind them matter.
    fn take(
        &mut self,
        bytes: &[u8],
        since_sent: Duration,
        record: &mut RequestRecord,
    ) -> Result<bool, Failure> {
        let mut plain = Vec::new();
        let decoded = self
            .coding
            .decode(bytes, &mut |piece| plain.extend_from_slice(piece));
        // Some servers do not declare the type of their body.
        self.streamed |= self.status == 200 && self.words.is_empty() && begins_events(&plain);
        let more = if self.streamed {
            let mark = self.reading.mark(record);
            self.reading.take(&plain, record);
            self.reading.close_frame(mark, since_sent, record);
            !self.reading.has_failed()
        } else {
            let room = MESSAGE_BYTES - self.words.len();
            self.words
                .extend_from_slice(&plain[..plain.len().min(room)]);
            self.words.len() < MESSAGE_BYTES
        };
        decoded.map_err(|why| Failure::new(ErrorKind::BadResponse, why))?;
        Ok(more)
    }

    fn finish(
        self,
        cut: Option<Failure>,
        since_sent: Duration,
        record: &mut RequestRecord,
    ) -> Outcome {
        if self.streamed {
            return self.reading.finish(cut, since_sent, record);
        }
        let location = self.location.as_deref();
        Outcome::Failed(Failure::answered(self.status, location, &self.words))
    }
}

fn late(kind: ErrorKind) -> Outcome {
    Outcome::Failed(Failure::new(kind, "no answer in time"))
}

/// Adds advice about a certificate that is not trusted.
fn with_advice(mut failure: Failure) -> Failure {
    if failure.message.contains("certificate") {
        failure.message.push_str(
            "; to trust a private authority, name its PEM file in SSL_CERT_FILE (it takes the \
             place of the system's)",
        );
    }
    failure
}

/// The kind of a client library's error, by the system error behind it.
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
