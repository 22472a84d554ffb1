//! What stands in the place of a server that is being started again.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready as at_once_ready};
use tokio_util::sync::CancellationToken;

use crate::server::Server;
use crate::server::control::Endpoint;
use crate::server::group::Stopped;

/// In the place of a server between its stop and its next start.
pub(super) struct Gone(pub(super) Endpoint);

impl Server for Gone {
    fn endpoint(&self) -> &Endpoint {
        &self.0
    }

    fn exited(&mut self) -> BoxFuture<'_, String> {
        pending().boxed()
    }

    fn stop(self: Box<Self>, _: Duration, _: CancellationToken) -> BoxFuture<'static, Stopped> {
        at_once_ready(Stopped::said("was stopped for a restart")).boxed()
    }
}
