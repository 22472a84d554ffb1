//! The load loop: one for every arrival process, on a thread of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::alarm::{Alarm, Timer};
use super::audit::{Audit, CpuTimes, audit, measure_lag};
use super::endpoint::{Endpoint, Scheme};
use super::link::{Dial, Pool};
use super::open_files::{self, TooFewFiles};
use super::pacer::{Next, Pacer};
use super::progress::Progress;
use super::record::{Outcome, RequestRecord};
use super::request::{Sender, Transport};
use crate::plan::load_spec::{LoadSpec, Timeouts};
use crate::record::schema::Counts;
use crate::units::span_of_seconds;
use crate::workload::Schedule;

/// How a load is run.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Limits for each request.
    pub timeouts: Timeouts,
    /// No request is begun after this; absent: all of the schedule are.
    pub stop_after: Option<Duration>,
    /// How long requests in flight may still take once the load's time is over.
    pub drain: Duration,
    /// How long they may still take once the load was cancelled.
    pub cancel_drain: Duration,
    /// The clock that its waits use.
    pub timer: Timer,
    /// Cancelled to end the requests in flight at once (the second Ctrl-C).
    pub kill: CancellationToken,
}

impl From<&LoadSpec> for LoadOptions {
    fn from(spec: &LoadSpec) -> Self {
        Self {
            timeouts: spec.timeouts,
            stop_after: spec.stop.after(),
            drain: span_of_seconds(spec.drain_s),
            cancel_drain: span_of_seconds(spec.drain_s).min(MAX_CANCEL_DRAIN),
            ..Self::default()
        }
    }
}

/// The longest that a cancelled load waits for answers: the user waits as long.
const MAX_CANCEL_DRAIN: Duration = Duration::from_secs(5);

/// What ended a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// Every planned request was sent and ended.
    Count,
    /// Its time was over.
    Time,
    /// Its `cancel` token was cancelled.
    Cancel,
}

/// When a load ran.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Its start; the instants of its records are distances from it.
    pub epoch: Instant,
    /// From its start to the last arrival.
    pub duration: Duration,
    /// Why it ended.
    pub ended_by: EndedBy,
}

/// Everything that is known about a load.
#[derive(Clone, Debug)]
pub struct LoadOutcome {
    /// Every request that was begun, in planned order.
    pub records: Vec<RequestRecord>,
    /// Start, length and end of the load.
    pub window: Window,
    /// Whether the client may have shaped the numbers.
    pub audit: Audit,
}

impl LoadOutcome {
    /// Requests by how they ended.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for record in &self.records {
            counts.sent += 1;
            match record.outcome {
                Outcome::Ok => counts.ok += 1,
                Outcome::Failed(_) => counts.failed += 1,
                Outcome::Unfinished => counts.unfinished += 1,
            }
        }
        counts
    }
}

/// Why a load could not even begin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The server's name has no address.
    #[error("cannot find `{endpoint}`: {source}")]
    Resolve {
        /// Host and port.
        endpoint: String,
        /// The system's error.
        source: io::Error,
    },
    /// The machine refused what the client needs.
    #[error("the load client cannot start: {0}")]
    Start(#[from] io::Error),
    /// More streams than this process may open.
    #[error(transparent)]
    OpenFiles(#[from] TooFewFiles),
    /// The HTTP client for TLS could not be made.
    #[error("the HTTPS client cannot start: {0}")]
    Https(#[from] reqwest::Error),
}

/// Sends the schedule's requests to `endpoint` and waits until all have ended.
///
/// `cancel` ends it early: nothing more is sent, requests in flight may still end within
/// `options.cancel_drain`, and the rest is recorded as unfinished. Dropping the returned future
/// ends it too.
///
/// The load has a thread and a single-threaded runtime of its own. Nothing else that labrun does
/// (sampling, logging, a simulator) can delay the stamp of a socket read.
pub async fn drive(
    schedule: Arc<Schedule>,
    endpoint: &Endpoint,
    options: &LoadOptions,
    cancel: &CancellationToken,
    progress: &Arc<Progress>,
) -> Result<LoadOutcome, LoadError> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let (endpoint, cancel) = (endpoint.clone(), cancel.clone());
    let (mut options, progress) = (options.clone(), Arc::clone(progress));
    options.kill = options.kill.child_token();
    let abandoned = options.kill.clone().drop_guard();
    let abandon = cancel.child_token();
    let abandoned_too = abandon.clone().drop_guard();
    let requests = u32::try_from(schedule.requests.len()).unwrap_or(u32::MAX);
    open_files::check(schedule.slots.min(requests))?;
    crate::nvtx::prepare();
    std::thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let outcome = runtime.map_err(LoadError::Start).and_then(|runtime| {
                runtime.block_on(async {
                    let patience = span_of_seconds(options.timeouts.connect_s);
                    let transport = transport_to(&endpoint, patience).await?;
                    let sender = Sender::new(schedule, transport, &endpoint, &options);
                    drive_here(sender, &options, &abandon, &progress).await
                })
            });
            // Nobody waits any more if the caller dropped the future.
            let _abandoned = send.send(outcome);
        })?;
    let outcome = receive.await.unwrap_or_else(|_| {
        Err(LoadError::Start(io::Error::other(
            "the load thread panicked",
        )))
    });
    drop((abandoned, abandoned_too));
    outcome
}

async fn transport_to(endpoint: &Endpoint, patience: Duration) -> Result<Transport, LoadError> {
    match endpoint.scheme() {
        Scheme::Http => {
            let resolved = endpoint.resolve(patience).await;
            let address = resolved.map_err(|source| LoadError::Resolve {
                endpoint: endpoint.to_string(),
                source,
            })?;
            Ok(Transport::Direct(Pool::new(Dial::Tcp(address))))
        }
        Scheme::Https => Ok(Transport::https(endpoint, patience)?),
    }
}

/// The loop, on the runtime that it is called on.
pub(crate) async fn drive_here(
    sender: Sender,
    options: &LoadOptions,
    cancel: &CancellationToken,
    progress: &Progress,
) -> Result<LoadOutcome, LoadError> {
    let mut pacer = Pacer::new(sender.schedule());
    let alarm = Alarm::new(options.timer)?;
    let over = CancellationToken::new();
    let lag = measure_lag(options.timer, over.clone());
    let cpu_before = CpuTimes::now();
    let epoch = Instant::now();
    let sender = Arc::new(sender.start(epoch));
    let work = async {
        let mut flight = Flight {
            epoch,
            sender: Arc::clone(&sender),
            tasks: JoinSet::new(),
            records: Vec::new(),
        };
        let ended_by = flight
            .run(&mut pacer, &alarm, options, (cancel, progress))
            .await;
        over.cancel();
        (flight.records, ended_by)
    };
    let ((mut records, ended_by), lag) = tokio::join!(work, lag);
    let cpu_after = CpuTimes::now();
    let busy = epoch.elapsed();
    records.sort_unstable_by_key(|record| record.index);
    let duration = records
        .iter()
        .map(RequestRecord::last_arrival)
        .max()
        .unwrap_or_default();
    let audit = audit(
        &records,
        (&lag?, sender.waits()),
        (cpu_before, cpu_after),
        busy,
    );
    Ok(LoadOutcome {
        records,
        window: Window {
            epoch,
            duration,
            ended_by,
        },
        audit,
    })
}

struct Flight {
    epoch: Instant,
    sender: Arc<Sender>,
    tasks: JoinSet<RequestRecord>,
    records: Vec<RequestRecord>,
}

impl Flight {
    async fn run(
        &mut self,
        pacer: &mut Pacer,
        alarm: &Alarm,
        options: &LoadOptions,
        (cancel, progress): (&CancellationToken, &Progress),
    ) -> EndedBy {
        let mut ended_by = EndedBy::Count;
        // Far enough never to come, near enough to be an instant.
        let never = self.epoch + Duration::from_secs(10 * 365 * 86_400);
        let mut stop = std::pin::pin!(sleep_until(
            options.stop_after.map_or(never, |after| self.epoch + after)
        ));
        let mut drained = std::pin::pin!(sleep_until(never));
        let mut cancelled = std::pin::pin!(cancel.cancelled());
        loop {
            let wake = match pacer.next(self.epoch.elapsed()) {
                Next::Send { index, intended } => {
                    progress.began();
                    self.tasks
                        .spawn(Arc::clone(&self.sender).send(index, intended));
                    continue;
                }
                Next::WaitUntil(instant) => Some(self.epoch + instant),
                Next::WaitForEnd => None,
                Next::Finished => return ended_by,
            };
            let running = ended_by == EndedBy::Count;
            tokio::select! {
                biased;
                () = cancelled.as_mut(), if ended_by != EndedBy::Cancel => {
                    ended_by = EndedBy::Cancel;
                    pacer.stop();
                    drained.as_mut().reset(Instant::now() + options.cancel_drain);
                }
                () = stop.as_mut(), if running => {
                    ended_by = EndedBy::Time;
                    pacer.stop();
                    drained.as_mut().reset(Instant::now() + options.drain);
                }
                () = drained.as_mut(), if !options.kill.is_cancelled() => options.kill.cancel(),
                Some(ended) = self.tasks.join_next() => self.ended(ended, pacer, progress),
                () = alarm.wait_until(wake.unwrap_or(never)), if wake.is_some() => {}
            }
        }
    }

    fn ended(
        &mut self,
        ended: Result<RequestRecord, tokio::task::JoinError>,
        pacer: &mut Pacer,
        progress: &Progress,
    ) {
        match ended {
            Ok(record) => {
                pacer.ended(record.index as usize, record.done);
                progress.ended(&record);
                self.records.push(record);
            }
            // No task is ever aborted: this is the panic of a bug, and the caller shall see it.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
