//! Who leads, as a pure machine: it is told what was read and written, and says what to write.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use tokio::time::Instant;

use super::Config;

#[derive(Debug)]
pub(super) struct Machine {
    config: Config,
    observed: Option<Observed>,
    /// Until when we lead, if we do.
    leads_until: Option<Instant>,
}

/// The record as it was last seen.
#[derive(Debug)]
struct Observed {
    lease: Lease,
    /// When, by our clock, it was first seen in this form.
    since: Instant,
}

/// What an attempt does next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Read the record and ask again.
    Read,
    /// Write the record as a new object.
    Create(Box<Lease>),
    /// Write the record over the version it names.
    Replace(Box<Lease>),
    /// Somebody else leads; nothing to do before the next attempt.
    Wait,
}

// === impl Machine ===

impl Machine {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            observed: None,
            leads_until: None,
        }
    }

    /// Until when we lead, if we lead now.
    pub(super) fn leads(&self, now: Instant) -> Option<Instant> {
        self.leads_until.filter(|until| now < *until)
    }

    /// The first step of an attempt: a leader renews what it wrote last without reading it again.
    pub(super) fn begin(&self, now: Instant, clock: Timestamp) -> Step {
        match &self.observed {
            Some(observed) if self.leads(now).is_some() => {
                Step::Replace(Box::new(self.record(Some(&observed.lease), clock)))
            }
            _ => Step::Read,
        }
    }

    /// The record was read, or there is none.
    pub(super) fn read(&mut self, lease: Option<Lease>, now: Instant, clock: Timestamp) -> Step {
        let Some(lease) = lease else {
            self.observed = None;
            return Step::Create(Box::new(self.record(None, clock)));
        };
        self.observe(lease, now);
        if self.holder() != Some(self.config.identity.as_str()) {
            // Somebody overrode the election by hand.
            self.leads_until = None;
        }
        match &self.observed {
            Some(observed) if self.may_take(observed, now) => {
                Step::Replace(Box::new(self.record(Some(&observed.lease), clock)))
            }
            _ => Step::Wait,
        }
    }

    /// Our record, sent at `sent`, is now the object's.
    pub(super) fn wrote(&mut self, lease: Lease, sent: Instant) {
        self.leads_until = Some(sent + self.config.renew_deadline);
        self.observed = Some(Observed { lease, since: sent });
    }

    /// We no longer lead: the deadline has passed.
    pub(super) fn resign(&mut self) {
        self.leads_until = None;
    }

    /// We lead no more, by our own will. The record that says so to the others, if we led.
    pub(super) fn release(&mut self, now: Instant, clock: Timestamp) -> Option<Lease> {
        self.leads(now)?;
        self.leads_until = None;
        self.given_back(self.observed.as_ref()?.lease.clone(), clock)
    }

    /// `lease` without a holder, if it is ours.
    pub(super) fn given_back(&self, mut lease: Lease, clock: Timestamp) -> Option<Lease> {
        let spec = lease.spec.as_mut()?;
        if spec.holder_identity.as_deref() != Some(self.config.identity.as_str()) {
            return None;
        }
        spec.holder_identity = Some(String::new());
        // The shortest that a record can hold, for candidates that look at it nevertheless.
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(clock));
        spec.acquire_time = Some(MicroTime(clock));
        lease.metadata.managed_fields = None;
        Some(lease)
    }

    /// Who holds the lease, as far as we have seen.
    pub(super) fn holder(&self) -> Option<&str> {
        let spec = self.observed.as_ref()?.lease.spec.as_ref()?;
        let holder = spec.holder_identity.as_deref();
        holder.filter(|holder| !holder.is_empty())
    }

    fn observe(&mut self, lease: Lease, now: Instant) {
        let known = self.observed.as_ref();
        if known.is_some_and(|known| known.lease.spec == lease.spec) {
            // Not renewed. Its metadata may have changed, and with it the version to write over.
            if let Some(known) = &mut self.observed {
                known.lease = lease;
            }
            return;
        }
        self.observed = Some(Observed { lease, since: now });
    }

    fn may_take(&self, observed: &Observed, now: Instant) -> bool {
        let Some(spec) = &observed.lease.spec else {
            return true;
        };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.config.identity {
            return true;
        }
        // The holder counts on the duration that it wrote. A record without one, or with nonsense in
        // it, is given ours.
        let written = spec
            .lease_duration_seconds
            .and_then(|s| u64::try_from(s).ok());
        let written = written
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs);
        now >= observed.since + written.unwrap_or(self.config.duration)
    }

    /// The record that makes us the holder, or keeps us so.
    fn record(&self, over: Option<&Lease>, clock: Timestamp) -> Lease {
        let old = over.and_then(|lease| lease.spec.clone());
        let was_ours = old.as_ref().and_then(|old| old.holder_identity.as_deref())
            == Some(self.config.identity.as_str());
        let transitions = old.as_ref().and_then(|old| old.lease_transitions);
        let (acquired, transitions) = match &old {
            Some(old) if was_ours => (old.acquire_time.clone(), transitions),
            Some(_) => (None, Some(transitions.unwrap_or(0).saturating_add(1))),
            None => (None, Some(0)),
        };
        let seconds = i32::try_from(self.config.duration.as_secs()).unwrap_or(i32::MAX);
        let spec = LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: acquired.or(Some(MicroTime(clock))),
            renew_time: Some(MicroTime(clock)),
            lease_transitions: transitions,
            // What others have written beside stays.
            ..old.unwrap_or_default()
        };
        let mut metadata = over.map_or_else(|| self.metadata(), |lease| lease.metadata.clone());
        metadata.managed_fields = None;
        Lease {
            metadata,
            spec: Some(spec),
        }
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            namespace: Some(self.config.namespace.clone()),
            name: Some(self.config.name.clone()),
            ..ObjectMeta::default()
        }
    }
}
