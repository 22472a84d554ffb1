//! What a connector's tier is watched by, as one start of its server has it.

use anyhow::{Result, ensure};

use super::Session;
use crate::matrix::Cell;
use crate::server::redis::Redis;
use crate::telemetry::host::tcp::{PortTotals, TcpPort};

impl Session {
    /// Connects to the Redis that a connector's tier names, and counts the bytes of its port. Both may be of
    /// a side process, which is another one after a restart.
    pub(super) async fn connect_watched(&mut self, cell: &Cell) -> Result<()> {
        let port = self.server.watched().and_then(|it| it.port);
        self.port = port.map(|port| TcpPort::watch(port).map_err(|error| format!("{error:#}")));
        let Some(url) = self.server.watched().and_then(|it| it.redis.as_deref()) else {
            return Ok(());
        };
        let redis = Redis::connect(url).await?;
        let keys = redis.keys().await?;
        ensure!(
            keys == 0 || self.redis.is_some(),
            "the Redis of the tier `{}` at {} holds {keys} keys before anything was stored; labrun empties \
             it at the end, so that the tier needs one of its own: empty this one (FLUSHDB), or name \
             another in `watch.redis`",
            cell.tier.name,
            redis.shown()
        );
        self.redis = Some(redis);
        Ok(())
    }

    /// Bytes of the port that a connector's tier names, or why they are unknown; `None` where it names none.
    pub(in crate::runner) async fn read_port(&self) -> Option<Result<PortTotals, String>> {
        Some(match self.port.as_ref()? {
            Ok(port) => port.read().await.map_err(|error| format!("{error:#}")),
            Err(why) => Err(why.clone()),
        })
    }
}
