//! The HTTP server around the engine, in real time.

mod announce;
mod answer;
mod driver;
mod error;
mod fields;
mod generate;
mod log;
mod metrics;
mod prometheus;
mod prompt;
mod protocol;
mod routes;
mod series;
#[cfg(test)]
mod tests;

use std::{
    io::Read as _,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, atomic::AtomicU64, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use futures::{FutureExt as _, future::BoxFuture};
use tokio::{
    net::{TcpSocket, lookup_host},
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

pub(super) use self::log::LogSink;
use self::{
    driver::{Command, Driver, DriverHandle, Health},
    log::{Log, Speaker},
    routes::App,
};
use super::{
    engine::Engine,
    keep::{Chunks, Keeper},
    options::{ParentWatch, Setup, SimOptions},
    tokenizer::Vocabulary,
};
use crate::plan::sim_spec::Fault;

/// What `/version` answers by default.
pub(crate) const VERSION: &str = "0.32.0+labrun-sim";
/// How every simulator's version ends: it never looks like a real server's.
pub(crate) const VERSION_SUFFIX: &str = "+labrun-sim";
/// How much longer `slow-start` loads.
const SLOW_START_FACTOR: u64 = 20;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 2_048;
/// How long running requests may go on after the server was stopped.
const GRACE: Duration = Duration::from_secs(3);

/// Why the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SimExit {
    /// By a signal or its caller.
    Stopped,
    /// Its parent process ended.
    ParentEnded,
    /// A fault was acted out.
    Fault(Fault),
}

/// Runs a simulated server until `shutdown` completes or it ends by itself.
pub(crate) async fn serve(
    options: SimOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<SimExit> {
    SimServer::bind(options).await?.run(shutdown).await
}

/// Completes when the process is asked to end (SIGTERM or SIGINT).
pub(crate) async fn termination() {
    use tokio::signal::unix::{SignalKind, signal};
    // Without handlers the default action ends the process, which is what is asked for.
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// A server that has its address but refuses connections until it is loaded.
#[derive(Debug)]
pub(super) struct SimServer {
    options: SimOptions,
    setup: Setup,
    socket: TcpSocket,
    address: SocketAddr,
    log: Log,
}

impl SimServer {
    /// Checks the options and takes the address.
    pub(super) async fn bind(options: SimOptions) -> anyhow::Result<Self> {
        let setup = options.setup()?;
        let host = options.host.clone();
        let mut addresses = lookup_host((host.as_str(), options.port))
            .await
            .with_context(|| format!("the host `{host}` cannot be resolved; give an address"))?;
        let address = addresses
            .next()
            .with_context(|| format!("the host `{host}` has no address; give another"))?;
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket
            .bind(address)
            .with_context(|| format!("{address} cannot be bound; is another server using it?"))?;
        let address = socket.local_addr()?;
        let log = Log::new(options.log.clone());
        Ok(Self {
            options,
            setup,
            socket,
            address,
            log,
        })
    }

    /// The address, with the real port.
    #[cfg(test)]
    fn address(&self) -> SocketAddr {
        self.address
    }

    /// Loads, serves, and ends.
    pub(super) async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
    ) -> anyhow::Result<SimExit> {
        let parent = watch_parent(self.options.parent);
        let end = async {
            tokio::select! {
                () = shutdown => SimExit::Stopped,
                () = parent => SimExit::ParentEnded,
            }
        };
        let mut end = pin!(end);
        tokio::select! {
            exit = &mut end => return Ok(exit),
            exit = self.load() => if let Some(exit) = exit { return Ok(exit) },
        }
        self.serve_loaded(end).await
    }

    /// Pretends to load; returns an exit when the load fails.
    async fn load(&self) -> Option<SimExit> {
        let spec = &self.options.spec;
        self.log_start();
        let factor = if spec.has(Fault::SlowStart) {
            SLOW_START_FACTOR
        } else {
            1
        };
        let load = Duration::from_millis(spec.start_ms.saturating_mul(factor));
        sleep(load / 2).await;
        if spec.has(Fault::ExitWhileLoading) {
            let text = "EngineCore failed to start.";
            self.log
                .vllm(Speaker::EngineCore, "ERROR", "core.py:1090", text);
            let text = "torch.OutOfMemoryError: simulated fault: exit-while-loading";
            self.log.line(Speaker::EngineCore, text);
            return Some(SimExit::Fault(Fault::ExitWhileLoading));
        }
        sleep(load / 2).await;
        self.log_loaded(load);
        None
    }

    async fn serve_loaded(self, end: impl Future<Output = SimExit>) -> anyhow::Result<SimExit> {
        let identity = self.identity();
        let keeper = self.setup.keeper(&self.options);
        let Self {
            options,
            setup,
            socket,
            address,
            log,
        } = self;
        let (commands, inbox) = mpsc::channel();
        let (health, health_seen) = watch::channel(Health::Serving);
        let engine = engine(setup, keeper.clone()).await?;
        let driver = Driver::new(engine, options.spec.clone(), log.clone(), health);
        let thread = std::thread::Builder::new()
            .name("sim-engine".to_owned())
            .spawn(move || driver.run(&inbox))
            .context("the engine's thread cannot be started")?;
        let app = Arc::new(App {
            driver: DriverHandle {
                commands: commands.clone(),
            },
            vocabulary: Vocabulary::new(options.spec.vocab_size),
            spec: options.spec,
            identity,
            max_model_len: options.max_model_len,
            health: health_seen.clone(),
            log: log.clone(),
            next_id: AtomicU64::new(0),
            generations: AtomicU64::new(0),
            http: Mutex::default(),
        });
        let listener = socket.listen(BACKLOG).with_context(|| {
            format!("{address} cannot be listened on; is another server using it?")
        })?;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true); // without it tokens only come late
        });
        log.started();
        let service = routes::router(app).into_make_service_with_connect_info::<SocketAddr>();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum::serve(listener, service).with_graceful_shutdown(stopped.map(drop));
        let mut server = tokio::spawn(server.into_future());
        let mut dies = health_seen;
        let exit = tokio::select! {
            exit = end => exit,
            _ = dies.wait_for(|health| *health == Health::Dead) => {
                SimExit::Fault(Fault::ExitMidLoad)
            }
            result = &mut server => {
                result.context("the server's task broke")?.context("the server broke")?;
                SimExit::Stopped
            }
        };
        if exit != SimExit::Fault(Fault::ExitMidLoad) {
            log.line(Speaker::Process, "INFO:     Shutting down");
            let _ = stop.send(());
            let _ = timeout(GRACE, &mut server).await;
        }
        server.abort();
        let _ = commands.send(Command::Stop);
        // One that died leaves what was there before.
        let keeper = keeper.filter(|_| exit != SimExit::Fault(Fault::ExitMidLoad));
        end_engine(thread, keeper).await?;
        log.line(Speaker::Process, "INFO:     Application shutdown complete.");
        Ok(exit)
    }
}

/// An engine whose tier holds the chunks that an earlier process left with `keeper`.
async fn engine(setup: Setup, keeper: Option<Keeper>) -> anyhow::Result<Engine> {
    let mut engine = Engine::new(setup.engine);
    if let (Some(keeper), Some(offload)) = (keeper, engine.offload_mut()) {
        let chunks = tokio::task::spawn_blocking(move || keeper.load());
        offload.restore(chunks.await??);
    }
    Ok(engine)
}

/// Waits for the engine's thread, then leaves the chunks of its tier with `keeper`.
async fn end_engine(thread: JoinHandle<Chunks>, keeper: Option<Keeper>) -> anyhow::Result<()> {
    let joined = tokio::task::spawn_blocking(move || {
        let chunks = thread.join().unwrap_or_default();
        keeper.map_or(Ok(()), |keeper| keeper.save(&chunks))
    });
    joined.await.context("ending the engine")?
}

/// Completes when the process that started this one is gone.
fn watch_parent(parent: ParentWatch) -> BoxFuture<'static, ()> {
    if parent == ParentWatch::Ignore {
        return std::future::pending().boxed();
    }
    let (gone, is_gone) = oneshot::channel();
    // A thread of its own: a read of standard input cannot be cancelled.
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        let mut input = std::io::stdin().lock();
        while input.read(&mut buffer).is_ok_and(|count| count > 0) {}
        let _ = gone.send(());
    });
    is_gone.map(drop).boxed()
}
