//! What is on the wire, as tcpdump sees it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use crate::{
    Namespace,
    process::{self, Process},
    wait::{TimedOut, eventually},
};

/// Where the mark that ends a capture is sent: the discard port of loopback.
const END: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// How long tcpdump may take to begin and to write. It is idle otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// A capture under way, on all interfaces of a namespace.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: NamedTempFile,
    end: UdpSocket,
    token: String,
}

/// The packets of a finished capture, in the order they passed. A forwarded packet is there once for each
/// interface.
#[derive(Clone, Debug)]
pub struct Captured {
    pcap: Vec<u8>,
    packets: Vec<std::ops::Range<usize>>,
}

/// Why nothing was captured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// tcpdump; it says why.
    #[error("capture packets with tcpdump")]
    Tcpdump(#[from] process::Error),
    /// Files or sockets. The machine is at fault.
    #[error("capture packets: {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// tcpdump did not write what it has seen. The machine may be too busy.
    #[error("finish a capture")]
    Unfinished(#[from] TimedOut),
    /// The kernel saw packets that tcpdump was too slow for, so that nothing can be said about what was
    /// not there. Use a filter that selects less. The number is missing if tcpdump did not tell.
    #[error("finish a capture: packets were lost ({0:?})")]
    Dropped(Option<u64>),
    /// tcpdump wrote something else than a capture file of its own byte order.
    #[error("read the capture: it is no capture file, or cut off at byte {0}")]
    Malformed(usize),
}

// === impl Capture ===

impl Capture {
    /// Starts a capture of what the filter selects, in the notation of tcpdump; empty for everything.
    /// When this returns, the kernel is capturing.
    pub async fn start(namespace: &Namespace, filter: &str) -> Result<Self, Error> {
        let failed = |what| move |source| Error::Io { what, source };
        let file = NamedTempFile::new().map_err(failed("create a file"))?;
        let end = namespace
            .handle()
            .run(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
            .map_err(io::Error::from)
            .flatten()
            .map_err(failed("open a socket"))?;
        let mut tcpdump = Command::new("tcpdump");
        // Unbuffered and immediate: a packet is in the file as soon as it was seen. In this mode each
        // slot of the kernel's ring is as long as the longest packet, so both are said: 512 slots.
        // `-Z root`: tcpdump would otherwise give up the right to write to a file of ours.
        tcpdump.args(["-i", "any", "-n", "-U", "--immediate-mode", "-Z", "root"]);
        tcpdump.args(["-s", "65535", "-B", "32768", "-w"]);
        tcpdump.arg(file.path());
        if !filter.is_empty() {
            tcpdump.arg(format!(
                "({filter}) or (udp and dst host {} and dst port 9)",
                END.ip()
            ));
        }
        let mut tcpdump = namespace.spawn(tcpdump)?;
        tcpdump.wait_for("listening on", PATIENCE).await?;
        let token = format!("end of capture {:016x}", fastrand::u64(..));
        Ok(Self {
            tcpdump,
            file,
            end,
            token,
        })
    }

    /// Ends the capture. Everything that passed before this call is in the result: a datagram is sent
    /// last, and waited for. It is sent again and again, because the kernel may leave tcpdump asleep with
    /// packets waiting; the next packet wakes it.
    pub async fn finish(mut self) -> Result<Captured, Error> {
        let failed = |what| move |source| Error::Io { what, source };
        let path = self.file.path();
        let mut sent = Ok(0);
        let written = || {
            sent = self.end.send_to(self.token.as_bytes(), END);
            sent.is_err()
                || std::fs::read(path).is_ok_and(|d| find(&d, self.token.as_bytes()).is_some())
        };
        eventually("the last packet in the capture file", PATIENCE, written).await?;
        sent.map_err(failed("send the last packet"))?;
        self.tcpdump.signal(Signal::SIGINT)?;
        self.tcpdump.wait(PATIENCE).await?;
        match dropped(&self.tcpdump.stderr()) {
            Some(0) => {}
            dropped => return Err(Error::Dropped(dropped)),
        }
        let pcap = std::fs::read(self.file.path()).map_err(failed("read the file"))?;
        Captured::parse(pcap, &self.token)
    }
}

// === impl Captured ===

impl Captured {
    /// Each packet, from its link header on.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.packets.iter().map(|range| &self.pcap[range.clone()])
    }

    /// Whether some packet contains these bytes. Text that was split between packets is not found; use
    /// something shorter than a segment.
    pub fn contains(&self, needle: impl AsRef<[u8]>) -> bool {
        self.packets()
            .any(|packet| find(packet, needle.as_ref()).is_some())
    }

    /// The capture file, for other programs to read.
    pub fn pcap(&self) -> &[u8] {
        &self.pcap
    }

    fn parse(pcap: Vec<u8>, token: &str) -> Result<Self, Error> {
        const MAGIC: usize = 4;
        const HEADER: usize = 24;
        const RECORD: usize = 16;
        if pcap.len() < HEADER || pcap[..MAGIC] != 0xa1b2_c3d4_u32.to_ne_bytes() {
            return Err(Error::Malformed(0));
        }
        let (mut packets, mut at) = (Vec::new(), HEADER);
        while at < pcap.len() {
            let start = at + RECORD;
            let length = pcap.get(at + 8..at + 12).and_then(|b| b.try_into().ok());
            let length = length.map(u32::from_ne_bytes).ok_or(Error::Malformed(at))?;
            let end = usize::try_from(length).map_or(usize::MAX, |l| start.saturating_add(l));
            let packet = pcap.get(start..end).ok_or(Error::Malformed(at))?;
            if find(packet, token.as_bytes()).is_none() {
                packets.push(start..end);
            }
            at = end;
        }
        Ok(Self { pcap, packets })
    }
}

/// From tcpdump's last words: `0 packets dropped by kernel`.
fn dropped(summary: &str) -> Option<u64> {
    let line = summary
        .lines()
        .find(|line| line.ends_with("dropped by kernel"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len().max(1))
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::{Behaviour, Server, exchange};

    #[tokio::test]
    async fn what_passed_is_captured_to_the_last_packet() {
        let namespace = Namespace::new("capture").unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(&namespace, address, Behaviour::Echo).unwrap();
        for round in 0..20 {
            let capture = Capture::start(&namespace, "tcp").await.unwrap();
            let said = format!("said in round {round}");
            exchange(&namespace, server.address(), said.as_bytes())
                .await
                .unwrap();
            let captured = capture.finish().await.unwrap();
            assert!(captured.contains(&said), "{round}");
            assert!(captured.packets().len() >= 6, "{round}");
        }
    }

    #[tokio::test]
    async fn filter_leaves_out_what_it_does_not_select() {
        let namespace = Namespace::new("filter").unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(&namespace, address, Behaviour::Echo).unwrap();
        let capture = Capture::start(&namespace, "tcp port 1").await.unwrap();
        exchange(&namespace, server.address(), b"unseen")
            .await
            .unwrap();
        assert_eq!(capture.finish().await.unwrap().packets().len(), 0);
    }

    #[tokio::test]
    async fn mistaken_filter_is_told_in_the_words_of_tcpdump() {
        let namespace = Namespace::new("mistake").unwrap();
        let error = Capture::start(&namespace, "port of call")
            .await
            .unwrap_err();
        let Error::Tcpdump(cause) = error else {
            panic!("{error}")
        };
        assert!(cause.to_string().contains("unknown port 'of'"), "{cause}");
    }

    #[test]
    fn losses_are_read_from_the_summary() {
        let summary =
            "12 packets captured\n15 packets received by filter\n3 packets dropped by kernel";
        assert_eq!(dropped(summary), Some(3));
        assert_eq!(dropped("tcpdump: terminated"), None);
    }

    #[test]
    fn file_cut_off_is_refused() {
        let mut pcap = vec![0; 24];
        pcap[..4].copy_from_slice(&0xa1b2_c3d4_u32.to_ne_bytes());
        assert_eq!(
            Captured::parse(pcap.clone(), "x").unwrap().packets().len(),
            0
        );
        pcap.extend([0; 10]);
        assert!(matches!(
            Captured::parse(pcap, "x"),
            Err(Error::Malformed(24))
        ));
        assert!(matches!(
            Captured::parse(vec![1; 30], "x"),
            Err(Error::Malformed(0))
        ));
    }
}
