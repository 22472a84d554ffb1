//! A server that runs already. labrun neither starts nor stops it.

use std::time::Duration;

use anyhow::Result;
use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready};
use tokio_util::sync::CancellationToken;

use super::Server;
use super::control::Endpoint;
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

impl Server for External {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn lmcache_url(&self) -> Option<&str> {
        None
    }

    fn processes(&self) -> Vec<(&'static str, u32)> {
        Vec::new()
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
