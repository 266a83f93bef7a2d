//! An agent that is killed between two steps, with the real kernel: the next one brings the pod where it
//! belongs, and nobody helps it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use install_cni::{
    agent::{Phase, Step},
    kernel::{self, Kernel},
    parts::{Attach as _, PodUid, Probes, Rules},
};
use mesh_net::netns::NetNs;
use mesh_redirect::{Families, Options, Verdict, options::ProbeAddresses};
use serde_json::json;
use testkit_net::Namespace;
use tokio::sync::watch;

use crate::{
    fake_ztunnel::Ztunnel,
    node::{DEADLINE, Node},
    pod_net::Net,
};

/// Where an agent stops, and stays until it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Nowhere,
    /// The namespace has been found, and nothing has been done.
    BeforeRules,
    /// The rules are in, and ztunnel knows nothing.
    AfterRules,
    /// ztunnel has the pod, and the probe set has not.
    BeforeProbe,
    /// The probe set has it, and the annotation does not say so.
    AfterProbe,
    /// On the way out: nothing has been undone.
    BeforeProbeGoes,
    /// The probe set has let it go, and the rules are there.
    AfterProbeWent,
    /// As before, and about to remove them.
    BeforeRulesGo,
    /// They are gone, and ztunnel still serves the pod.
    AfterRulesWent,
}

/// The kernel, with agents that stop in front of it or behind.
#[derive(Clone)]
struct Stopping {
    kernel: Kernel,
    at: Arc<watch::Sender<Stop>>,
    reached: Arc<watch::Sender<bool>>,
}

impl Stopping {
    fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            at: Arc::new(watch::Sender::new(Stop::Nowhere)),
            reached: Arc::default(),
        }
    }

    fn set(&self, at: Stop) {
        self.reached.send_replace(false);
        self.at.send_replace(at);
    }

    /// Ends here if this is where.
    async fn pass(&self, here: Stop) {
        if *self.at.borrow() == here {
            self.reached.send_replace(true);
            std::future::pending::<()>().await;
        }
    }

    async fn is_reached(&self) {
        let mut reached = self.reached.subscribe();
        let waited = tokio::time::timeout(DEADLINE, reached.wait_for(|reached| *reached)).await;
        drop(waited.expect("the agent comes so far").unwrap());
    }
}

impl Rules for Stopping {
    type Error = kernel::Error;

    async fn verify(&self, netns: &Arc<NetNs>, wanted: &Options) -> Result<Verdict, kernel::Error> {
        self.kernel.verify(netns, wanted).await
    }

    async fn apply(&self, netns: &Arc<NetNs>, wanted: &Options) -> Result<(), kernel::Error> {
        self.pass(Stop::BeforeRules).await;
        self.kernel.apply(netns, wanted).await?;
        self.pass(Stop::AfterRules).await;
        Ok(())
    }

    async fn remove(&self, netns: &Arc<NetNs>) -> Result<(), kernel::Error> {
        self.pass(Stop::BeforeRulesGo).await;
        Rules::remove(&self.kernel, netns).await?;
        self.pass(Stop::AfterRulesWent).await;
        Ok(())
    }
}

impl Probes for Stopping {
    type Error = kernel::Error;

    async fn ensure(&self) -> Result<(), kernel::Error> {
        self.kernel.ensure().await
    }

    async fn list(&self) -> Result<BTreeMap<IpAddr, PodUid>, kernel::Error> {
        self.kernel.list().await
    }

    async fn insert(&self, address: IpAddr, pod: &PodUid) -> Result<(), kernel::Error> {
        self.pass(Stop::BeforeProbe).await;
        self.kernel.insert(address, pod).await?;
        self.pass(Stop::AfterProbe).await;
        Ok(())
    }

    async fn remove(&self, address: IpAddr, pod: &PodUid) -> Result<(), kernel::Error> {
        self.pass(Stop::BeforeProbeGoes).await;
        Probes::remove(&self.kernel, address, pod).await?;
        self.pass(Stop::AfterProbeWent).await;
        Ok(())
    }

    async fn clear(&self) -> Result<(), kernel::Error> {
        self.kernel.clear().await
    }
}

/// A node whose namespace `demo` is in the mesh, with a pod that has not been added yet.
struct World {
    node: Node<Stopping>,
    ztunnel: Ztunnel,
    uid: PodUid,
    net: Net,
    _host: Namespace,
}

impl World {
    async fn new() -> Self {
        let host = Namespace::new("host").unwrap();
        let config = kernel::Config {
            host: host.handle().clone(),
            native_nftables: Some(true),
            iptables: None,
            families: Families::Dual,
            probes: ProbeAddresses::default(),
            branch_interfaces: false,
            parallel: 4,
        };
        let kernel = Kernel::detect(&config).await.unwrap();
        let mut node = Node::with(Stopping::new(kernel)).await;
        node.run().await;
        let ztunnel = node.ztunnel();
        ztunnel.synced().await;
        node.label("demo", Some("ambient")).await;
        let (uid, net) = (node.pod("web", json!({})).await, Net::new("10.1.0.1"));
        node.status("web", "Running", "10.1.0.1").await;
        node.until(&uid, "the label", |view| view.outside.is_none())
            .await;
        Self {
            node,
            ztunnel,
            uid,
            net,
            _host: host,
        }
    }

    /// The plugin's call, by a runtime that gives up when the agent is killed.
    fn begin(&self) -> tokio::task::JoinHandle<()> {
        let (handle, attachment) = (
            self.node.handle.clone(),
            self.net.attachment("web", &self.uid),
        );
        tokio::spawn(async move {
            drop(handle.add(attachment).await);
        })
    }

    /// Another agent, which nothing stops.
    async fn next_agent(&mut self) {
        self.node.kill().await;
        self.node.kernel.set(Stop::Nowhere);
        self.node.run().await;
    }

    async fn is_in(&mut self) {
        self.node.is_enrolled(&self.uid, &self.net).await;
        self.ztunnel.serves(&self.uid, Some(&self.net)).await;
        self.node.shows("web", Some("enabled")).await;
        let (kernel, netns) = (&self.node.kernel, self.net.namespace.handle());
        let verdict = kernel.verify(netns, &Options::default()).await.unwrap();
        assert_eq!(verdict, Verdict::Same);
        let probes = kernel.list().await.unwrap();
        assert_eq!(probes, [(self.net.address, self.uid.clone())].into());
    }

    async fn is_out(&mut self) {
        self.node.reaches(&self.uid, Phase::Outside).await;
        self.ztunnel.serves(&self.uid, None).await;
        self.node.shows("web", None).await;
        let (kernel, netns) = (&self.node.kernel, self.net.namespace.handle());
        let verdict = kernel.verify(netns, &Options::default()).await.unwrap();
        assert_eq!(verdict, Verdict::Absent);
        assert!(kernel.list().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_agent_that_is_killed_on_a_pod_s_way_in_is_followed_by_one_that_brings_it_in() {
    for stop in [
        Stop::BeforeRules,
        Stop::AfterRules,
        Stop::BeforeProbe,
        Stop::AfterProbe,
    ] {
        let mut world = World::new().await;
        world.node.kernel.set(stop);
        let adding = world.begin();
        world.node.kernel.is_reached().await;
        world.next_agent().await;
        world.is_in().await;
        adding.abort();
    }
}

#[tokio::test]
async fn an_agent_that_is_killed_while_ztunnel_does_not_answer_is_followed_by_one_that_asks_again()
{
    let mut world = World::new().await;
    world.ztunnel.answer(false);
    let adding = world.begin();
    let sent = Phase::Entering(Step::Ztunnel);
    world.node.reaches(&world.uid, sent).await;
    world.ztunnel.is_asked().await;
    world.node.kill().await;
    world.ztunnel.answer(true);
    world.next_agent().await;
    world.is_in().await;
    adding.abort();
}

#[tokio::test]
async fn an_agent_that_is_killed_before_the_annotation_is_written_is_followed_by_one_that_writes_it()
 {
    let mut world = World::new().await;
    world.node.server.refuse_requests(true);
    world.begin().await.unwrap();
    let (uid, net) = (world.uid.clone(), &world.net);
    world.node.is_enrolled(&uid, net).await;
    world.node.kill().await;
    world.node.server.refuse_requests(false);
    world.node.shows("web", None).await;
    world.next_agent().await;
    world.is_in().await;
}

#[tokio::test]
async fn an_agent_that_is_killed_on_a_pod_s_way_out_is_followed_by_one_that_takes_it_out() {
    for stop in [
        Stop::BeforeProbeGoes,
        Stop::AfterProbeWent,
        Stop::BeforeRulesGo,
        Stop::AfterRulesWent,
    ] {
        let mut world = World::new().await;
        world.begin().await.unwrap();
        world.is_in().await;
        world.node.kernel.set(stop);
        world.node.label("demo", None).await;
        world.node.kernel.is_reached().await;
        world.next_agent().await;
        world.is_out().await;
        // And nothing keeps it from coming in again.
        world.node.label("demo", Some("ambient")).await;
        world.is_in().await;
    }
}
