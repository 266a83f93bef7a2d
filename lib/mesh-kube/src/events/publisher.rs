//! Writes what the recorders have noted.

use std::{future::Future, pin::pin, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    Note, Reporter, SERIES,
    ledger::{Ledger, Write},
};
use crate::error::{Explained, Fault};

/// Writes the notes of its recorders.
pub struct Publisher {
    client: Client,
    notes: mpsc::Receiver<Note>,
    ledger: Ledger,
}

/// Longest time for one request; a slow API server must not make old notes out of new ones.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest time to write what is left in the end.
const LAST: Duration = Duration::from_secs(3);

// === impl Publisher ===

impl Publisher {
    pub(super) fn new(client: Client, reporter: Reporter, notes: mpsc::Receiver<Note>) -> Self {
        Self {
            client,
            notes,
            ledger: Ledger::new(reporter),
        }
    }

    /// Writes notes until `stop` completes, then what is left, for three seconds at most.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut due = interval(SERIES / 4);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let writes = tokio::select! {
                biased;
                () = &mut stop => break,
                note = self.notes.recv() => match note {
                    Some(note) => Vec::from_iter(self.note(note)),
                    None => break,
                },
                _ = due.tick() => self.ledger.due(Instant::now()),
            };
            for write in writes {
                tokio::select! {
                    biased;
                    () = &mut stop => break,
                    () = self.write(write) => {}
                }
            }
        }
        if timeout(LAST, self.rest()).await.is_err() {
            tracing::debug!("not all events could be written in the end");
        }
    }

    fn note(&mut self, note: Note) -> Option<Write> {
        self.ledger.note(note, Instant::now(), Timestamp::now())
    }

    async fn rest(&mut self) {
        while let Ok(note) = self.notes.try_recv() {
            if let Some(write) = self.note(note) {
                self.write(write).await;
            }
        }
        for write in self.ledger.rest() {
            self.write(write).await;
        }
    }

    /// Writes one event. A failure is told and is not repeated: the next note is worth more.
    async fn write(&self, write: Write) {
        let written = timeout(ANSWER, self.send(&write)).await;
        let reason = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => Explained(&error).to_string(),
            Err(_) => "the API server did not answer in time".to_owned(),
        };
        let (Write::Create(event) | Write::Update(event)) = write;
        let note = event.message.as_deref().unwrap_or_default();
        tracing::warn!(reason, note, "cannot write an event");
    }

    async fn send(&self, write: &Write) -> Result<(), kube::Error> {
        let (Write::Create(event) | Write::Update(event)) = write;
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        if let Write::Update(event) = write {
            match update(&api, event).await {
                // Events live for an hour; this one is over.
                Err(error) if Fault::of(&error) == Fault::Missing => {}
                answer => return answer,
            }
        }
        api.create(&PostParams::default(), event).await.map(drop)
    }
}

async fn update(api: &Api<Event>, event: &Event) -> Result<(), kube::Error> {
    let name = event.metadata.name.as_deref().unwrap_or_default();
    let patch = Patch::Merge(json!({
        "count": event.count,
        "lastTimestamp": event.last_timestamp,
    }));
    let params = PatchParams::default();
    api.patch(name, &params, &patch).await.map(drop)
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}
