//! The loop around the machine: requests, timers and the answer to "do we lead?".

use std::{future::Future, pin::pin};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Config,
    machine::{Machine, Step},
};
use crate::error::{Explained, Fault};

pub(super) struct Driver {
    api: Api<Lease>,
    config: Config,
    machine: Machine,
    leader: watch::Sender<bool>,
    holder: Option<String>,
    failing: bool,
}

/// Most steps of one attempt: renew, read after a conflict, write.
const STEPS: usize = 4;

/// How much longer than the retry period a candidate waits at most, as a multiple of it. Candidates
/// that start together do not stay together.
const JITTER: f64 = 1.2;

// === impl Driver ===

impl Driver {
    pub(super) fn new(api: Api<Lease>, config: Config, leader: watch::Sender<bool>) -> Self {
        leader.send_replace(false);
        Self {
            api,
            machine: Machine::new(config.clone()),
            config,
            leader,
            holder: None,
            failing: false,
        }
    }

    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            let stopped = tokio::select! {
                biased;
                () = &mut stop => true,
                () = self.turn() => false,
            };
            if stopped {
                break;
            }
        }
        self.release().await;
    }

    /// One attempt and the wait until the next.
    async fn turn(&mut self) {
        match self.machine.leads(Instant::now()) {
            Some(deadline) => {
                // Whatever the attempt is waiting for: at the deadline we do not lead any more.
                let attempted = tokio::select! {
                    biased;
                    () = sleep_until(deadline) => None,
                    answer = self.attempt() => Some(answer),
                };
                if attempted.is_none() {
                    self.machine.resign();
                }
            }
            None => self.attempt().await,
        }
        self.publish();
        let now = Instant::now();
        let next = if let Some(deadline) = self.machine.leads(now) {
            deadline.min(now + self.config.retry)
        } else {
            now + self.config.retry.mul_f64(1.0 + fastrand::f64() * JITTER)
        };
        sleep_until(next).await;
        self.publish();
    }

    async fn attempt(&mut self) {
        let mut step = self.machine.begin(Instant::now(), Timestamp::now());
        for _ in 0..STEPS {
            match self.step(step).await {
                Ok(Some(next)) => step = next,
                Ok(None) => {
                    self.failing = false;
                    return;
                }
                Err(reason) => {
                    self.failed(&reason);
                    return;
                }
            }
        }
    }

    /// Does one step. `None` ends the attempt.
    async fn step(&mut self, step: Step) -> Result<Option<Step>, String> {
        let params = PostParams::default();
        let sent = Instant::now();
        let answer = match step {
            Step::Wait => return Ok(None),
            Step::Read => {
                let lease = self.in_time(self.api.get_opt(&self.config.name)).await?;
                let lease = lease.map_err(|error| Explained(&error).to_string())?;
                let next = self.machine.read(lease, Instant::now(), Timestamp::now());
                return Ok(Some(next));
            }
            Step::Create(lease) => self.in_time(self.api.create(&params, &lease)).await?,
            Step::Replace(lease) => {
                let name = &self.config.name;
                self.in_time(self.api.replace(name, &params, &lease))
                    .await?
            }
        };
        match answer {
            Ok(lease) => {
                self.machine.wrote(lease, sent);
                Ok(None)
            }
            Err(error) => match Fault::of(&error) {
                // Another candidate was faster, or somebody annotated or deleted the object.
                Fault::Conflict | Fault::Exists | Fault::Missing => Ok(Some(Step::Read)),
                _ => Err(Explained(&error).to_string()),
            },
        }
    }

    /// Gives up a request after half the renew deadline, so that a leader has a second try.
    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, String> {
        let limit = self.config.renew_deadline / 2;
        let answered = timeout(limit, answer).await;
        answered.map_err(|_elapsed| format!("the API server did not answer within {limit:?}"))
    }

    fn publish(&mut self) {
        let leads = self.machine.leads(Instant::now()).is_some();
        let changed = self
            .leader
            .send_if_modified(|leader| std::mem::replace(leader, leads) != leads);
        let Config {
            namespace, name, ..
        } = &self.config;
        if changed && leads {
            tracing::info!(namespace, name, "leading");
        } else if changed {
            tracing::warn!(namespace, name, "no longer leading");
        }
        if self.machine.holder() != self.holder.as_deref() {
            self.holder = self.machine.holder().map(str::to_owned);
            let holder = self.holder.as_deref().unwrap_or("nobody");
            tracing::info!(namespace, name, holder, "the leader is known");
        }
    }

    fn failed(&mut self, reason: &str) {
        let Config {
            namespace, name, ..
        } = &self.config;
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(
                namespace,
                name,
                reason,
                "the lease still cannot be read or renewed"
            );
        } else {
            tracing::warn!(namespace, name, reason, "cannot read or renew the lease");
        }
    }

    /// Stops leading, then says so to the others. They find out by themselves if this fails.
    async fn release(mut self) {
        let record = self.machine.release(Instant::now(), Timestamp::now());
        self.leader.send_replace(false);
        let Some(record) = record else {
            return;
        };
        let name = self.config.name.as_str();
        match timeout(self.config.retry, self.give_back(record)).await {
            Ok(Ok(())) => tracing::info!(name, "released the lease"),
            Ok(Err(error)) => {
                let reason = Explained(&error).to_string();
                tracing::warn!(name, reason, "cannot release the lease");
            }
            Err(_) => tracing::warn!(name, "cannot release the lease in time"),
        }
    }

    async fn give_back(&self, record: Lease) -> Result<(), kube::Error> {
        let mut record = Some(record);
        while let Some(lease) = record.take() {
            let (name, params) = (&self.config.name, PostParams::default());
            match self.api.replace(name, &params, &lease).await {
                // A renewal was under way when we stopped: give that one back.
                Err(error) if Fault::of(&error) == Fault::Conflict => {
                    let current = self.api.get_opt(&self.config.name).await?;
                    record = current.and_then(|it| self.machine.given_back(it, Timestamp::now()));
                }
                answer => return answer.map(drop),
            }
        }
        Ok(())
    }
}
