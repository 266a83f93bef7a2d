//! The plugin's last line: it answers whatever happens, and in time.

use std::{
    any::Any,
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use mesh_cni::spec::{Code, Failure, Version};

use crate::plugin::{Answer, Plugin};

/// How long things are waited for.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For the agent's answer to ADD and CHECK, repetitions included. The agent itself gives up after 20 s, and
    /// kubelet after two minutes.
    pub call: Duration,
    /// For an agent that cannot be reached, from the first failure on: as long as a new one takes to replace
    /// an old one.
    pub absence: Duration,
    /// Between two attempts to reach it.
    pub pause: Duration,
    /// For the agent's answer to everything else, which is not worth waiting for.
    pub brief: Duration,
    /// For the agent to take log lines.
    pub log: Duration,
    /// For everything; what is not done then never will be.
    pub total: Duration,
}

// === impl Patience ===

impl Default for Patience {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(25),
            absence: Duration::from_secs(5),
            pause: Duration::from_millis(50),
            brief: Duration::from_secs(5),
            log: Duration::from_secs(1),
            total: Duration::from_secs(28),
        }
    }
}

/// Does the work on a thread of its own, and answers for it if it panics or takes too long.
pub fn supervise(
    patience: &Patience,
    work: impl FnOnce(&mut Plugin) -> Answer + Send + 'static,
) -> Answer {
    let version = Arc::new(OnceLock::new());
    let mut plugin = Plugin {
        patience: patience.clone(),
        version: Arc::clone(&version),
        started: Instant::now(),
    };
    let (tell, told) = mpsc::channel();
    let worker = thread::Builder::new().spawn(move || {
        // Nobody listens any more if it took too long.
        let _late = tell.send(work(&mut plugin));
    });
    let failure = match worker {
        Err(error) => Failure {
            code: Code::TryAgain,
            message: "start a thread of istio-cni".to_owned(),
            details: error.to_string(),
        },
        Ok(worker) => match told.recv_timeout(patience.total) {
            Ok(answer) => return answer,
            Err(mpsc::RecvTimeoutError::Timeout) => Failure::new(
                Code::TryAgain,
                format!("istio-cni has not finished within {:?}", patience.total),
            ),
            Err(mpsc::RecvTimeoutError::Disconnected) => Failure {
                code: Code::Defect,
                message: "istio-cni has a defect and panicked".to_owned(),
                details: worker.join().err().map(said).unwrap_or_default(),
            },
        },
    };
    let version = version.get().copied().unwrap_or(Version::LATEST);
    Answer::failure(&failure, version)
}

/// What a panic said.
fn said(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast::<String>().map(|text| *text);
    text.or_else(|payload| payload.downcast::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_becomes_an_error_object() {
        let answer = supervise(&Patience::default(), |plugin| {
            plugin.version.set(Version::V0_4_0).unwrap();
            panic!("index {} of nothing", 1)
        });
        assert_eq!(answer.status, 1);
        assert_eq!(
            answer.text,
            r#"{"cniVersion":"0.4.0","code":999,"details":"index 1 of nothing","msg":"istio-cni has a defect and panicked"}"#
        );
    }

    #[test]
    fn what_takes_too_long_becomes_an_error_object() {
        let patience = Patience {
            total: Duration::from_millis(20),
            ..Patience::default()
        };
        let (never, wait) = mpsc::channel::<()>();
        let answer = supervise(&patience, move |_| {
            let _ended = wait.recv();
            Answer::nothing()
        });
        drop(never);
        assert!(answer.text.contains(r#""code":11"#), "{}", answer.text);
    }
}
