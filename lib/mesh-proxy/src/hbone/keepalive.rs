//! PINGs that find out when a connection is dead although TCP does not say so.

use h2::{Ping, PingPong};
use tokio::time;

use super::settings::Settings;

/// Sends PINGs for as long as they are answered; resolves when one is not in time.
///
/// A connection that cannot take a PING because it is closing gets the time of an answer to do so.
pub(super) async fn unanswered(mut pings: PingPong, settings: &Settings) {
    loop {
        time::sleep(settings.ping_interval).await;
        match time::timeout(settings.ping_timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_pong)) => {}
            Ok(Err(_closing)) => return time::sleep(settings.ping_timeout).await,
            Err(_elapsed) => return,
        }
    }
}
