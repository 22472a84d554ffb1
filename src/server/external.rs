//! A server that runs already. labrun neither starts nor stops it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready};
use tokio_util::sync::CancellationToken;

use super::Server;
use super::control::{Control, Endpoint};
use super::group::Stopped;
use crate::matrix::Cell;

/// An attached server.
#[derive(Debug)]
pub struct External {
    endpoint: Endpoint,
}

/// The server at the plan's `url`.
pub fn attach(cell: &Cell) -> Result<External> {
    let endpoint = Endpoint::new(&cell.resolved.server.url, &cell.resolved.model)?;
    Ok(External { endpoint })
}

/// Longest wait for a server that runs already to say what it is.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What the server of `cell` says its version is; `None` where it has no `/version`. Fails where it
/// does not answer.
pub async fn version(cell: &Cell) -> Result<Option<String>> {
    let control = Control::new(attach(cell)?.endpoint)?;
    let told = tokio::time::timeout(ANSWER_LIMIT, control.told_version()).await;
    told.context("no answer in time")?
}

impl Server for External {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn exited(&mut self) -> BoxFuture<'_, String> {
        pending().boxed()
    }

    fn stop(
        self: Box<Self>,
        _grace: Duration,
        _at_once: CancellationToken,
    ) -> BoxFuture<'static, Stopped> {
        ready(Stopped::said("left running")).boxed()
    }
}
