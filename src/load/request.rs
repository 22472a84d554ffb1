//! One planned request from its start to its record: connection, exchange, and the one reconnect
//! that is allowed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::audit::Waits;
use super::drive::LoadOptions;
use super::endpoint::Endpoint;
use super::error::{ErrorKind, Failure};
use super::exchange::{Bounds, Ended, exchange};
use super::https::Https;
use super::link::{Connection, Lent, Pool};
use super::record::{Outcome, RequestRecord};
use super::wire::Wire;
use crate::plan::load_spec::Timeouts;
use crate::units::span_of_seconds;
use crate::workload::Schedule;

/// How bytes reach the server.
#[derive(Debug)]
pub(crate) enum Transport {
    /// HTTP/1.1 over sockets that are read in the task of the request itself.
    Direct(Pool),
    /// The general client, for TLS.
    Https(Https),
}

impl Transport {
    pub(crate) fn https(endpoint: &Endpoint, patience: Duration) -> Result<Self, reqwest::Error> {
        Https::new(endpoint, patience).map(Self::Https)
    }
}

/// Everything that requests of one load share, made before its clock starts.
#[derive(Debug)]
pub(crate) struct Sender {
    schedule: Arc<Schedule>,
    /// The head of each request, where the transport writes heads.
    heads: Vec<Vec<u8>>,
    transport: Transport,
    connect: Duration,
    first_token: Duration,
    total: Duration,
    kill: CancellationToken,
    waits: Waits,
    epoch: Instant,
}

impl Sender {
    pub(crate) fn new(
        schedule: Arc<Schedule>,
        transport: Transport,
        endpoint: &Endpoint,
        options: &LoadOptions,
    ) -> Self {
        let heads = match &transport {
            Transport::Direct(_) => schedule
                .requests
                .iter()
                .map(|request| endpoint.request_head(request.path, request.body.len()))
                .collect(),
            Transport::Https(_) => Vec::new(),
        };
        let Timeouts {
            connect_s,
            first_token_s,
            total_s,
        } = options.timeouts;
        Self {
            schedule,
            heads,
            transport,
            connect: span_of_seconds(connect_s),
            first_token: span_of_seconds(first_token_s),
            total: span_of_seconds(total_s),
            kill: options.kill.clone(),
            waits: Waits::new(),
            epoch: Instant::now(),
        }
    }

    /// How long bytes waited to be read, so far.
    pub(crate) fn waits(&self) -> &Waits {
        &self.waits
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The same, with instants as distances from `epoch`.
    pub(crate) fn start(self, epoch: Instant) -> Self {
        Self { epoch, ..self }
    }

    fn bounds(&self) -> Bounds<'_> {
        Bounds {
            epoch: self.epoch,
            first_token: self.first_token,
            total: self.total,
            kill: &self.kill,
            waits: &self.waits,
        }
    }

    /// Sends request `index` and waits for its end.
    pub(crate) async fn send(self: Arc<Self>, index: usize, intended: Duration) -> RequestRecord {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let mut record = RequestRecord::begun(number, intended, self.epoch.elapsed());
        record.asked_tokens = self.schedule.requests[index].gen_len;
        record.outcome = match &self.transport {
            Transport::Direct(pool) => self.send_direct(pool, index, &mut record).await,
            Transport::Https(https) => {
                let request = &self.schedule.requests[index];
                https.exchange(request, self.bounds(), &mut record).await
            }
        };
        record.done = self.epoch.elapsed();
        record
    }

    async fn send_direct(&self, pool: &Pool, index: usize, record: &mut RequestRecord) -> Outcome {
        let request = &self.schedule.requests[index];
        let wire = Wire {
            head: &self.heads[index],
            body: &request.body,
            keep: request.keep,
            gen_len: request.gen_len,
        };
        match pool.lend() {
            Lent::Open(mut idle) => match exchange(&mut idle, wire, self.bounds(), record).await {
                Ended::Ran { outcome, reusable } => return settle(pool, idle, outcome, reusable),
                Ended::NotWritten(_) => record.reconnected = true,
            },
            Lent::Closed => record.reconnected = true,
            Lent::None => {}
        }
        record.sent = None;
        let mut connection = match self.connect(pool, record).await {
            Ok(connection) => connection,
            Err(outcome) => return outcome,
        };
        match exchange(&mut connection, wire, self.bounds(), record).await {
            Ended::Ran { outcome, reusable } => settle(pool, connection, outcome, reusable),
            Ended::NotWritten(failure) => Outcome::Failed(failure),
        }
    }

    /// A new connection, timed.
    async fn connect(
        &self,
        pool: &Pool,
        record: &mut RequestRecord,
    ) -> Result<Connection, Outcome> {
        let began = Instant::now();
        let connecting = async {
            timeout(self.connect, pool.connect())
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        let connected = tokio::select! {
            biased;
            connected = connecting => connected,
            () = self.kill.cancelled() => return Err(Outcome::Unfinished),
        };
        record.connect = Some(began.elapsed());
        connected.map_err(|error| {
            let mut failure = Failure::connecting(&error);
            if failure.kind == ErrorKind::TimeoutConnect {
                failure.message =
                    format!("no connection within {:.3} s", self.connect.as_secs_f64());
            }
            Outcome::Failed(failure)
        })
    }
}

fn settle(pool: &Pool, connection: Connection, outcome: Outcome, reusable: bool) -> Outcome {
    if reusable {
        pool.give_back(connection);
    }
    outcome
}
