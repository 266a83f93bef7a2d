//! The loop behind [`run`](super::run): asks, decodes, tells.

use std::{convert::Infallible, future::Future, io, time::Duration};

use futures::{Stream, StreamExt};
use kube::{
    Api, Client, Resource,
    api::{ListParams, Request, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::{
    codec::{FramedRead, LinesCodec, LinesCodecError},
    compat::FuturesAsyncReadCompatExt,
};

use super::{
    BATCH, Error, Event, Index, Kind, Lists, Malformed, Metrics, Options, SILENCE, State,
    is_absent,
    known::Known,
    metrics::Counts,
    wire::{self, Line, Told},
};
use crate::{backoff::Backoff, error::Fault};

pub(super) struct Driver<K, I> {
    client: Client,
    request: Request,
    kind: Kind,
    options: Options,
    metrics: Metrics,
    state: watch::Sender<State>,
    index: I,
    known: Known,
    backoff: Backoff,
    started: Instant,
    _objects: std::marker::PhantomData<fn() -> K>,
}

/// The collection that is asked for.
pub(super) struct Target {
    client: Client,
    request: Request,
    kind: Kind,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// List everything.
    List(Listing),
    /// Watch what happens after this version.
    Watch { version: String },
    /// The API server did not know the kind; list after a while.
    Absent,
}

/// How everything is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// By the API server's store, in pages of this size.
    Stored { page: u32 },
    /// By its memory, if that is not older than this version.
    Cached { since: String },
}

/// A version that nothing is older than.
const ANY: &str = "0";

/// Largest line of a watch: an object may have a few MiB, in JSON and with its metadata.
const LINE: usize = 32 << 20;

/// Longest time for one page of a list, and for the beginning of a watch.
const ANSWER: Duration = Duration::from_secs(60);

/// A watch that has lasted this long has worked.
const WORKED: Duration = Duration::from_secs(5);

/// Pages do not grow beyond this: some 100 MiB of ordinary pods.
const LARGEST_PAGE: u32 = 10_000;

// === impl Target ===

impl Target {
    pub(super) fn new<K: Resource>(api: Api<K>, kind: Kind) -> Self {
        Self {
            request: Request::new(api.resource_url()),
            client: api.into_client(),
            kind,
        }
    }
}

// === impl Driver ===

impl<K, I> Driver<K, I>
where
    K: Resource + DeserializeOwned + Send,
    I: Index<K>,
{
    pub(super) fn new(
        target: Target,
        options: Options,
        metrics: Metrics,
        state: watch::Sender<State>,
        index: I,
    ) -> Self {
        let Target {
            client,
            request,
            kind,
        } = target;
        Self {
            client,
            request,
            kind,
            backoff: options.backoff.clone(),
            options,
            metrics,
            state,
            index,
            known: Known::default(),
            started: Instant::now(),
            _objects: std::marker::PhantomData,
        }
    }

    pub(super) async fn run(mut self) -> Infallible {
        let mut phase = Phase::List(self.options.listing(ANY));
        loop {
            let answer = match &mut phase {
                Phase::List(listing) => self
                    .list(listing)
                    .await
                    .map(|version| Phase::Watch { version }),
                Phase::Watch { version } => self.follow(version).await.map(|()| phase.clone()),
                Phase::Absent => {
                    tokio::time::sleep(self.options.absent).await;
                    let listed = self.list(&self.options.listing(ANY)).await;
                    listed.map(|version| Phase::Watch { version })
                }
            };
            phase = match answer {
                Ok(next) => next,
                Err(error) => self.failed(&phase, &error).await,
            };
        }
    }

    /// Lists everything and tells the index. Returns the version to watch from.
    async fn list(&mut self, listing: &Listing) -> Result<String, Error> {
        self.known.begin();
        // With a limit the API server asks its store.
        let (limit, resource_version) = match listing {
            Listing::Stored { page } => (Some(*page), None),
            Listing::Cached { since } => (None, Some(since.clone())),
        };
        let mut params = ListParams {
            label_selector: self.options.labels.clone(),
            field_selector: self.options.fields.clone(),
            limit,
            resource_version,
            ..ListParams::default()
        };
        let version = loop {
            let page = self.page(&params).await?;
            self.tell(page.events);
            match page.next {
                Some(next) => params.continue_token = Some(next),
                None => break page.version,
            }
        };
        self.forget_missing();
        self.metrics.listed(&self.kind);
        self.is_synced(false);
        Ok(version)
    }

    async fn page(&self, params: &ListParams) -> Result<wire::Page<K>, Error> {
        let failed = |error| Error::List(self.kind.clone(), error);
        let request = if K::metadata_api() {
            self.request.list_metadata(params)
        } else {
            self.request.list(params)
        };
        let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
        let text = self.in_time(self.client.request_text(request)).await?;
        wire::page(&text.map_err(failed)?).map_err(|error| self.malformed(error))
    }

    /// Watches from `version` on, which moves along, until the server ends the watch as it should.
    async fn follow(&mut self, version: &mut String) -> Result<(), Error> {
        let mut lines = std::pin::pin!(self.open(version).await?);
        self.settled();
        let opened = Instant::now();
        let mut heard = false;
        loop {
            let Ok(batch) = timeout(SILENCE, lines.next()).await else {
                tracing::debug!(kind = %self.kind, "the watch is silent; asking again");
                return Ok(());
            };
            let Some(batch) = batch else {
                return if heard || opened.elapsed() >= WORKED {
                    Ok(())
                } else {
                    Err(Error::Short(self.kind.clone()))
                };
            };
            heard = true;
            self.backoff.succeeded();
            if !self.lines(batch, version)? {
                return Ok(());
            }
        }
    }

    /// Opens a watch: batches of the lines that are there at once.
    async fn open(
        &self,
        version: &str,
    ) -> Result<impl Stream<Item = Vec<Result<String, LinesCodecError>>> + Send + use<K, I>, Error>
    {
        let failed = |error| Error::Watch(self.kind.clone(), error);
        let params = WatchParams {
            label_selector: self.options.labels.clone(),
            field_selector: self.options.fields.clone(),
            // Spread, so that the watches of many programs do not end together.
            timeout: Some(fastrand::u32(240..290)),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = if K::metadata_api() {
            self.request.watch_metadata(&params, version)
        } else {
            self.request.watch(&params, version)
        };
        let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
        let stream = self.in_time(self.client.request_stream(request)).await?;
        let stream = stream.map_err(failed)?.compat();
        let lines = FramedRead::new(stream, LinesCodec::new_with_max_length(LINE));
        Ok(lines.ready_chunks(BATCH))
    }

    /// Tells what a batch of lines says. False if the last one was cut off.
    fn lines(
        &mut self,
        batch: Vec<Result<String, LinesCodecError>>,
        version: &mut String,
    ) -> Result<bool, Error> {
        let mut told = Vec::with_capacity(batch.len());
        let mut end = Ok(true);
        for text in batch {
            match self.line(text) {
                Ok(Some(Line::Object {
                    told: one,
                    version: at,
                })) => {
                    told.push(one);
                    *version = at;
                }
                Ok(Some(Line::Bookmark { version: at })) => *version = at,
                Ok(Some(Line::Error(status))) => {
                    end = Err(Error::Refused(self.kind.clone(), status));
                }
                Ok(None) => end = Ok(false),
                Err(error) => end = Err(error),
            }
            if !matches!(end, Ok(true)) {
                break;
            }
        }
        // What came before the end happened.
        self.tell(told);
        end
    }

    fn line(&self, text: Result<String, LinesCodecError>) -> Result<Option<Line<K>>, Error> {
        match text {
            Ok(text) => wire::line(&text).map_err(|error| self.malformed(error)),
            Err(LinesCodecError::MaxLineLengthExceeded) => {
                Err(self.malformed(Malformed::Long(LINE)))
            }
            // How a connection ends that the server closes without saying so.
            Err(LinesCodecError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(None)
            }
            Err(LinesCodecError::Io(error)) => Err(Error::Broken(self.kind.clone(), error)),
        }
    }

    fn tell(&mut self, told: Vec<Told<K>>) {
        if told.is_empty() {
            return;
        }
        let mut counts = Counts::default();
        for Told { key, event } in &told {
            match event {
                Event::Apply(_) => counts.applied += 1,
                Event::Delete(_) => counts.deleted += 1,
                Event::Invalid(invalid) => {
                    counts.invalid += 1;
                    let reason = &invalid.reason;
                    tracing::debug!(kind = %self.kind, object = %key, reason, "cannot read an object");
                }
            }
            match event {
                Event::Delete(_) => self.known.remove(key),
                Event::Apply(_) | Event::Invalid(_) => self.known.insert(key),
            }
        }
        self.metrics.told(&self.kind, counts);
        let events = told.into_iter().map(|told| told.event);
        self.index.update(events.collect());
    }

    fn forget_missing(&mut self) {
        let missing = self.known.take_missing();
        for keys in missing.chunks(BATCH) {
            let deleted = keys.iter().cloned().map(Event::Delete);
            self.index.update(deleted.collect());
        }
        let counts = Counts {
            deleted: u64::try_from(missing.len()).unwrap_or(u64::MAX),
            ..Counts::default()
        };
        self.metrics.told(&self.kind, counts);
    }

    fn is_synced(&self, absent: bool) {
        self.metrics.absent(&self.kind, absent);
        self.state.send_if_modified(|state| {
            let new = State {
                synced: true,
                absent,
                trouble: None,
            };
            if !state.synced {
                let after = self.started.elapsed();
                self.metrics.synced(&self.kind, after);
                tracing::info!(kind = %self.kind, ?after, absent, "the first list is complete");
            }
            std::mem::replace(state, new.clone()) != new
        });
    }

    /// It works again.
    fn settled(&self) {
        self.state.send_if_modified(|state| {
            let was = state.trouble.take();
            if was.is_some() {
                tracing::info!(kind = %self.kind, "the watch works again");
            }
            was.is_some()
        });
    }

    /// Decides what to do after a failure, and waits for as long as it takes.
    async fn failed(&mut self, phase: &Phase, error: &Error) -> Phase {
        let fault = error.fault();
        if fault == Fault::Missing && self.confirm_absent(phase).await {
            return Phase::Absent;
        }
        let next = phase.after(error, &self.options);
        self.metrics.failed(&self.kind, fault.reason());
        let wait = self.backoff.failed();
        if fault == Fault::Expired {
            tracing::info!(kind = %self.kind, ?wait, "the watch has a gap; listing again");
        } else {
            self.trouble(&error.in_words(), wait);
        }
        tokio::time::sleep(wait).await;
        next
    }

    fn trouble(&self, text: &str, wait: Duration) {
        let kind = &self.kind;
        let new = self.state.send_if_modified(|state| {
            let new = state.trouble.as_deref() != Some(text);
            state.trouble = Some(text.into());
            new
        });
        if new {
            tracing::warn!(%kind, reason = text, ?wait, "the watch is interrupted");
        } else {
            tracing::debug!(%kind, reason = text, ?wait, "the watch is still interrupted");
        }
    }

    /// After a 404: whether the kind is really not there. Then the index is told so.
    async fn confirm_absent(&mut self, phase: &Phase) -> bool {
        if *phase != Phase::Absent {
            let asked = self.in_time(is_absent(&self.client, &self.kind)).await;
            if !matches!(asked, Ok(Ok(true))) {
                return false;
            }
            self.known.begin();
            self.forget_missing();
        }
        self.backoff.succeeded();
        self.is_synced(true);
        true
    }

    fn malformed(&self, error: Malformed) -> Error {
        Error::Malformed(self.kind.clone(), error)
    }

    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, Error> {
        let answered = timeout(ANSWER, answer).await;
        answered.map_err(|_elapsed| Error::Silent(self.kind.clone(), ANSWER))
    }
}

// === impl Phase ===

impl Phase {
    /// What to do after a failure, the case of a missing kind aside.
    pub(super) fn after(&self, error: &Error, options: &Options) -> Self {
        let stored = Self::List(Listing::Stored { page: options.page });
        match (self, error.fault()) {
            // The list took longer than its version is kept: fewer and larger pages are faster.
            (Self::List(Listing::Stored { page }), Fault::Expired) => {
                let page = page.saturating_mul(4).min(LARGEST_PAGE);
                Self::List(Listing::Stored { page })
            }
            (Self::List(Listing::Cached { .. }), _) if error.is_too_new() => stored,
            // The version is too old.
            (Self::Watch { version }, Fault::Expired) => Self::List(options.listing(version)),
            // We do not understand where we are; what was known of it is of no use.
            (Self::List(Listing::Cached { .. }), Fault::Expired)
            | (
                Self::List(Listing::Cached { .. }) | Self::Watch { .. },
                Fault::Protocol | Fault::Invalid | Fault::Missing,
            ) => stored,
            (Self::Absent, _) => Self::List(options.listing(ANY)),
            (same, _) => same.clone(),
        }
    }
}

// === impl Options ===

impl Options {
    /// How to list everything when this version is known.
    fn listing(&self, since: &str) -> Listing {
        match self.lists {
            Lists::Stored => Listing::Stored { page: self.page },
            Lists::Cached => Listing::Cached {
                since: since.to_owned(),
            },
        }
    }
}
