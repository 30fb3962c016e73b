//! What systemd is told, where it asked to be (`NOTIFY_SOCKET`, `WATCHDOG_USEC`; sd_notify(3)): that the node is ready once it
//! has recovered, that it stops, and, as long as commits can be made, that it lives.

use std::{net::SocketAddr, time::Duration};

use sd_notify::{NotifyState, notify};

use crate::consensus::Groups;

/// Nothing is served yet.
pub fn starting() {
    tell(&[NotifyState::Status("recovers what is on disk")]);
}

/// It serves; from now on the watchdog is fed.
pub fn ready(address: SocketAddr, groups: Groups) {
    let status = format!("serves on {address}");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    if let Some(limit) = sd_notify::watchdog_enabled() {
        tokio::spawn(feed(limit, groups));
    }
}

/// It hands its leaderships over and ends.
pub fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("hands over and stops"),
    ]);
}

/// Each time that the log writer has gone through a turn: a node whose commit loop hangs is not fed, and is restarted.
async fn feed(limit: Duration, groups: Groups) {
    let pause = limit / 3;
    while groups.probe().await.is_ok() {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(pause).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        tracing::debug!(%error, "the service manager can't be told");
    }
}
