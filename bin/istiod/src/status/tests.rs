//! The writer, on a paused clock before an API server that hangs or refuses.

use mesh_api::condition::{WAYPOINT_BOUND, reporter};
use mesh_index::{Key, Settings, output::Condition as Told};
use prometheus_client::registry::Registry;
use tokio::{task::AbortHandle, time::sleep};

use super::*;
use crate::fake::{FakeApi, Network};

const HOUR: Duration = Duration::from_secs(3600);

struct Writing {
    api: FakeApi,
    outbox: Outbox,
    leads: watch::Sender<bool>,
    task: AbortHandle,
}

impl Writing {
    fn start(services: &[&str]) -> Self {
        let api = FakeApi::default();
        for name in services {
            let object = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            });
            api.put(&path(name), object);
        }
        let metrics = Metrics::new(&mut Registry::default());
        let writer = Writer {
            client: api.client(),
            world: World::new(&Settings::default(), metrics.clone()),
            outbox: Outbox::default(),
            metrics,
        };
        let leads = watch::Sender::new(false);
        Self {
            api,
            outbox: writer.outbox.clone(),
            task: tokio::spawn(writer.run(leads.subscribe())).abort_handle(),
            leads,
        }
    }

    /// Makes it lead, or not, and lets it notice.
    async fn lead(&self, leads: bool) {
        self.leads.send_replace(leads);
        sleep(Duration::from_secs(1)).await;
    }

    fn say(&self, name: &str, message: &str) {
        self.outbox.put(vec![StatusUpdate {
            kind: Kind::Service,
            key: Key::new("shop", name),
            generation: 0,
            reporter: reporter::SERVICE,
            conditions: vec![Told {
                kind: WAYPOINT_BOUND,
                status: true,
                reason: "Test",
                message: message.into(),
            }],
            addresses: Vec::new(),
        }]);
    }

    /// The message that stands in a service's status.
    fn message(&self, name: &str) -> Option<String> {
        let object = self.api.object(&path(name))?;
        let message = object.pointer("/status/conditions/0/message")?;
        message.as_str().map(Into::into)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/shop/services/{name}")
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_writes_nothing() {
    let writing = Writing::start(&["web"]);
    writing.say("web", "one");
    sleep(HOUR).await;
    writing.lead(true).await;
    sleep(HOUR).await;
    assert!(
        writing.api.writes().is_empty(),
        "nothing was said since it leads"
    );
    writing.say("web", "two");
    sleep(HOUR).await;
    assert_eq!(writing.message("web").as_deref(), Some("two"));
    writing.lead(false).await;
    writing.say("web", "three");
    sleep(HOUR).await;
    assert_eq!(writing.api.writes().len(), 1);
}

/// Much is said of a service, and something of another, before the API server is back.
async fn only_the_newest_is_written_after(network: Network) {
    let writing = Writing::start(&["web", "other"]);
    writing.lead(true).await;
    writing.api.becomes(network);
    for count in 0..100 {
        writing.say("web", &count.to_string());
        sleep(Duration::from_secs(1)).await;
    }
    writing.say("other", "told");
    assert!(writing.api.writes().is_empty());
    writing.api.becomes(Network::Works);
    sleep(2 * TIMEOUT).await;
    assert_eq!(writing.message("web").as_deref(), Some("99"));
    assert_eq!(writing.message("other").as_deref(), Some("told"));
    assert_eq!(writing.api.writes().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_is_written_when_the_api_server_no_longer_hangs() {
    only_the_newest_is_written_after(Network::Hangs).await;
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_is_written_when_the_api_server_no_longer_refuses() {
    only_the_newest_is_written_after(Network::Refuses).await;
}

#[tokio::test(start_paused = true)]
async fn what_hangs_is_left_when_leadership_is_lost() {
    let writing = Writing::start(&["web"]);
    writing.lead(true).await;
    writing.api.becomes(Network::Hangs);
    writing.say("web", "old");
    writing.lead(false).await;
    writing.api.becomes(Network::Works);
    sleep(HOUR).await;
    assert!(writing.api.writes().is_empty());
}
