//! A server that runs already. labrun neither starts nor stops it.

use std::time::Duration;

use anyhow::Result;
use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready};
use tokio_util::sync::CancellationToken;

use super::Server;
use super::control::{Control, Endpoint};
use super::group::Stopped;
use crate::matrix::Cell;

/// A server that labrun only sends requests to.
#[derive(Debug)]
pub(crate) struct External {
    endpoint: Endpoint,
}

/// The server at the plan's `url`.
pub(crate) fn attach(cell: &Cell) -> Result<External> {
    let endpoint = Endpoint::new(&cell.resolved.server.url, &cell.resolved.model)?;
    Ok(External {
        endpoint: endpoint.with_key_of_environment(),
    })
}

/// The version that the server of `cell` reports; `None` where it has no `/version`. Fails where it
/// does not answer.
pub(crate) async fn version(cell: &Cell) -> Result<Option<String>> {
    let control = Control::new(attach(cell)?.endpoint)?;
    control.version().await
}

/// Whether `error` means that nothing listens there, or that no way leads there.
pub(crate) fn is_unreachable(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let cause = cause.downcast_ref::<reqwest::Error>();
        cause.is_some_and(reqwest::Error::is_connect)
    })
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
        ready(Stopped::new("left running")).boxed()
    }
}
