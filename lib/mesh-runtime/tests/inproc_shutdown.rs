//! Real signals to this very process. One test, because signals concern the process as a whole.

use std::time::Duration;

use mesh_runtime::shutdown::{self, Cause};
use nix::sys::signal::{Signal, raise};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn signals_and_requests_to_quit_are_heard_one_after_the_other() {
    let mut signals = shutdown::signals().unwrap();
    let quit = signals.quitter();

    raise(Signal::SIGTERM).unwrap();
    assert_eq!(
        timeout(DEADLINE, signals.next()).await,
        Ok(Cause::Terminate)
    );
    raise(Signal::SIGINT).unwrap();
    assert_eq!(
        timeout(DEADLINE, signals.next()).await,
        Ok(Cause::Interrupt)
    );
    quit.quit();
    quit.clone().quit();
    assert_eq!(timeout(DEADLINE, signals.next()).await, Ok(Cause::Quit));
}
