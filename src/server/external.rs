//! A server that runs already. labrun neither starts nor stops it.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready};

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
pub fn attach(cell: &Cell) -> External {
    let url = cell.resolved.server.url.trim_end_matches('/').to_owned();
    External {
        endpoint: Endpoint {
            url,
            model: cell.resolved.model.clone(),
        },
    }
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

    fn stop(self: Box<Self>, _grace: Duration) -> BoxFuture<'static, Stopped> {
        ready(Stopped("left running".to_owned())).boxed()
    }
}
