//! Whole lines, as the output receives them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::{Level, debug, error, event, info, subscriber::with_default, warn};

use super::{layer::Lines, *};

const DEADLINE: Duration = Duration::from_secs(5);

/// An output that is read back as text.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Memory {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

/// An output that announces each write and takes it only when told to.
struct Blocked {
    entered: Sender<()>,
    gate: Receiver<()>,
    memory: Memory,
}

impl io::Write for Blocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.entered.send(()).map_err(io::Error::other)?;
        // A gate that is gone stands open.
        let _ = self.gate.recv();
        self.memory.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `events` make of the log at a fixed time.
fn mk_log(format: Format, events: impl FnOnce()) -> String {
    let memory = Memory::default();
    let producer = writer::start(memory.clone(), layer::loss_notice(format), 1 << 20).unwrap();
    let clock = || "2025-01-23T05:07:25.8066Z".parse::<Timestamp>().unwrap();
    let lines = Lines::new(format, producer.clone()).with_clock(clock);
    with_default(Registry::default().with(lines), events);
    assert!(producer.flush(DEADLINE));
    memory.text()
}

fn mk_plain(events: impl FnOnce()) -> String {
    let log = mk_log(Format::Plain, events);
    log.replace("2025-01-23T05:07:25.806600Z\t", "")
}

fn mk_json(events: impl FnOnce()) -> serde_json::Value {
    serde_json::from_str(&mk_log(Format::Json, events)).unwrap()
}

fn access_event() {
    let source: SocketAddr = "10.129.0.48:40978".parse().unwrap();
    let gateway: SocketAddr = "10.129.0.43:15008".parse().unwrap();
    let target: SocketAddr = "10.129.0.43:9080".parse().unwrap();
    let absent: Option<&str> = None;
    // The short macros do not take a target together with dotted names.
    event!(
        target: "access",
        Level::INFO,
        src.addr = %source,
        src.workload = "productpage-v1-57ffb6658c-vmb6z",
        src.cluster = absent,
        dst.addr = %gateway,
        dst.hbone_addr = %target,
        direction = "outbound",
        bytes_sent = 283_u64,
        bytes_recv = 358_u64,
        duration = "2ms",
        "connection complete"
    );
}

#[test]
fn an_access_log_line_looks_like_the_one_of_the_contract() {
    let expected = concat!(
        "2025-01-23T05:07:25.806600Z\tinfo\taccess\tconnection complete\t",
        "src.addr=10.129.0.48:40978 src.workload=\"productpage-v1-57ffb6658c-vmb6z\" ",
        "dst.addr=10.129.0.43:15008 dst.hbone_addr=10.129.0.43:9080 direction=\"outbound\" ",
        "bytes_sent=283 bytes_recv=358 duration=\"2ms\"\n",
    );
    assert_eq!(mk_log(Format::Plain, access_event), expected);
}

#[test]
fn a_json_line_holds_the_same_in_the_same_order() {
    let expected = concat!(
        r#"{"level":"info","time":"2025-01-23T05:07:25.806600Z","scope":"access","#,
        r#""message":"connection complete","src.addr":"10.129.0.48:40978","#,
        r#""src.workload":"productpage-v1-57ffb6658c-vmb6z","dst.addr":"10.129.0.43:15008","#,
        r#""dst.hbone_addr":"10.129.0.43:9080","direction":"outbound","bytes_sent":283,"#,
        r#""bytes_recv":358,"duration":"2ms"}"#,
        "\n",
    );
    assert_eq!(mk_log(Format::Json, access_event), expected);
}

#[test]
fn text_from_outside_cannot_forge_a_line_or_a_field() {
    let hostile = "x\n2025\tinfo\taccess \"y\" \\ \u{1b}[31m\u{202e}";
    let expected = concat!(
        r#"warn"#,
        "\tpeer\t",
        r#"refused x\n2025\tinfo\taccess "y" \ \u{1b}[31m\u{202e}"#,
        "\t",
        r#"name="x\n2025\tinfo\taccess \"y\" \\ \u{1b}[31m\u{202e}" "#,
        r#"shown="x\n2025\tinfo\taccess \"y\" \\ \u{1b}[31m\u{202e}" "#,
        r#"injected="1 dst.addr=6.6.6.6:1" empty="""#,
        "\n",
    );
    let event = || {
        warn!(
            target: "peer",
            name = hostile,
            shown = %hostile,
            injected = %"1 dst.addr=6.6.6.6:1",
            empty = %"",
            "refused {hostile}"
        );
    };
    assert_eq!(mk_plain(event), expected);

    let json = mk_json(event);
    assert_eq!(json["shown"], hostile);
    assert_eq!(json["message"], format!("refused {hostile}"));
}

#[test]
fn a_field_cannot_stand_in_for_a_part_of_the_line() {
    let json = mk_json(|| info!(target: "t", level = "error", scope = "other", "m"));
    assert_eq!(json["level"], "info");
    assert_eq!(json["scope"], "t");
    assert_eq!(json["fields.level"], "error");
}

#[test]
fn values_keep_their_kind() {
    let event = || {
        let error = UnknownFormat("xml".into());
        let error: &dyn std::error::Error = &error;
        info!(target: "t", a = -1, b = true, c = 0.5, d = f64::NAN, e = ?Some(3), error);
    };
    let message = "`xml` is not a log format: expected `plain` or `json`";
    assert_eq!(
        mk_plain(event),
        format!("info\tt\t\ta=-1 b=true c=0.5 d=NaN e=Some(3) error=\"{message}\"\n")
    );
    assert_eq!(
        mk_json(event),
        serde_json::json!({
            "level": "info", "time": "2025-01-23T05:07:25.806600Z", "scope": "t", "message": "",
            "a": -1, "b": true, "c": 0.5, "d": "NaN", "e": "Some(3)", "error": message,
        })
    );
}

#[test]
fn a_value_is_cut_at_its_bound() {
    let long = "ä".repeat(3000);
    let line = mk_plain(|| info!(target: "t", long, "m"));
    let cut = "ä".repeat(2048);
    assert_eq!(line, format!("info\tt\tm\tlong=\"{cut}…\"\n"));

    let pieces = vec!["abcdefgh"; 1000];
    let line = mk_plain(|| info!(target: "t", ?pieces, "m"));
    assert!(line.len() < 2 * 4096, "{}", line.len());
}

#[test]
fn spans_stand_beside_their_target() {
    let events = || {
        let outer =
            tracing::info_span!(target: "t", "xds", node = "n1", attempt = tracing::field::Empty);
        outer.record("attempt", 2);
        let _outer = outer.entered();
        let _inner = tracing::info_span!(target: "t", "stream").entered();
        error!(target: "t", code = 14, "closed");
    };
    assert_eq!(
        mk_plain(events),
        "error\tt:xds{node=\"n1\" attempt=2}:stream\tclosed\tcode=14\n"
    );
    assert_eq!(
        mk_json(events)["spans"],
        serde_json::json!([{"name": "xds", "node": "n1", "attempt": 2}, {"name": "stream"}])
    );
}

#[test]
fn a_changed_filter_takes_effect_and_can_be_taken_back() {
    let memory = Memory::default();
    let config = Config {
        filter: "warn,access=info".into(),
        ..Config::default()
    };
    let (subscriber, handle) = build(&config, memory.clone()).unwrap();
    let seen = |events: fn()| {
        assert!(handle.flush(DEADLINE));
        memory.0.lock().clear();
        events();
        assert!(handle.flush(DEADLINE));
        memory.text().lines().count()
    };
    with_default(subscriber, || {
        let events = || {
            debug!(target: "access", "1");
            info!(target: "access", "2");
            info!(target: "other", "3");
            warn!(target: "other", "4");
        };
        assert_eq!(handle.current(), "access=info,warn");
        assert_eq!(seen(events), 2);
        handle.reload("info,access=debug").unwrap();
        assert_eq!(handle.current(), "access=debug,info");
        assert_eq!(seen(events), 4);
        handle.reload("off").unwrap();
        assert_eq!(seen(events), 2);
        assert!(handle.reload("access=loud").is_err());
        assert_eq!(handle.current(), "access=debug,off");
        handle.reset().unwrap();
        assert_eq!(seen(events), 2);
    });
}

#[test]
fn a_blocked_output_never_blocks_the_caller_and_what_is_lost_is_counted() {
    let (entered, started) = channel();
    let (opener, gate) = channel();
    let memory = Memory::default();
    let output = Blocked {
        entered,
        gate,
        memory: memory.clone(),
    };
    let lost = |n: u64, line: &mut String| line.extend(["lost ", &n.to_string(), "\n"]);
    let producer = writer::start(output, Box::new(lost), 20).unwrap();

    producer.push(b"first\n");
    started.recv_timeout(DEADLINE).unwrap();
    // The writer is stuck in its write: 20 bytes find room, the rest is lost, nobody waits.
    for _ in 0..7 {
        producer.push(b"123456789\n");
    }
    assert_eq!(producer.dropped().get(), 5);
    assert!(!producer.flush(Duration::from_millis(1)));

    drop(opener);
    assert!(producer.flush(DEADLINE));
    assert_eq!(memory.text(), "first\n123456789\n123456789\nlost 5\n");
}

#[test]
fn an_output_that_takes_nothing_does_not_keep_the_process_from_ending() {
    let (entered, started) = channel();
    let (_closed, gate) = channel();
    let output = Blocked {
        entered,
        gate,
        memory: Memory::default(),
    };
    let (subscriber, handle) = build(&Config::default(), output).unwrap();
    with_default(subscriber, || info!("never written"));
    started.recv_timeout(DEADLINE).unwrap();
    let (done, ended) = channel();
    std::thread::spawn(move || {
        drop(handle);
        done.send(())
    });
    assert_eq!(ended.recv_timeout(DEADLINE), Ok(()));
}

#[test]
fn what_is_queued_at_the_end_is_written() {
    let (entered, started) = channel();
    let (opener, gate) = channel();
    let memory = Memory::default();
    let output = Blocked {
        entered,
        gate,
        memory: memory.clone(),
    };
    let (subscriber, handle) = build(&Config::default(), output).unwrap();
    let slow = std::thread::spawn(move || {
        let begun = started.recv_timeout(DEADLINE);
        drop::<Sender<()>>(opener);
        // Kept until the end: an output that nobody listens to fails.
        (begun, started)
    });
    with_default(subscriber, || {
        for _ in 0..1000 {
            info!("last words");
        }
        drop(handle);
        assert_eq!(memory.text().lines().count(), 1000);
    });
    assert_eq!(slow.join().unwrap().0, Ok(()));
}

#[test]
fn an_output_that_fails_costs_its_lines_and_nothing_else() {
    struct Broken;
    impl io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let producer = writer::start(Broken, Box::new(|_, _| ()), 1 << 10).unwrap();
    producer.push(b"one\n");
    assert!(producer.flush(DEADLINE));
    producer.push(b"two\n");
    assert!(producer.flush(DEADLINE));
    assert_eq!(producer.dropped().get(), 2);
}

#[test]
fn lines_of_many_threads_arrive_whole() {
    let memory = Memory::default();
    let producer = writer::start(memory.clone(), Box::new(|_, _| ()), 1 << 20).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    producer.push(b"0123456789\n");
                }
            });
        }
    });
    assert!(producer.flush(DEADLINE));
    assert_eq!(memory.text(), "0123456789\n".repeat(4000));
    assert_eq!(producer.dropped().get(), 0);
}

#[test]
fn formats_are_known_by_their_names() {
    assert_eq!("json".parse(), Ok(Format::Json));
    assert_eq!("plain".parse(), Ok(Format::Plain));
    assert_eq!("xml".parse::<Format>(), Err(UnknownFormat("xml".into())));
}

#[test]
fn a_line_of_another_process_keeps_its_time_and_cannot_forge_anything() {
    let time = "2025-01-23T05:07:25.8066Z".parse::<Timestamp>().unwrap();
    let record = Record {
        time: time.into(),
        level: Level::WARN,
        target: "cni-plugin",
        message: "slow\nerror",
        fields: &[("pod", "web 1"), ("a=b\"", "x\"\n"), ("level", "error")],
    };
    let lines = |format, filter: &str| {
        let memory = Memory::default();
        let filter = filter.to_owned();
        let config = Config { format, filter };
        let (subscriber, log) = build(&config, memory.clone()).unwrap();
        log.write(&record);
        assert!(log.flush(DEADLINE));
        drop(subscriber);
        memory.text()
    };
    assert_eq!(
        lines(Format::Plain, "info"),
        "2025-01-23T05:07:25.806600Z\twarn\tcni-plugin\tslow\\nerror\tpod=\"web 1\" a_b_=\"x\\\"\\n\" level=\"error\"\n"
    );
    let json: serde_json::Value = serde_json::from_str(&lines(Format::Json, "info")).unwrap();
    assert_eq!(json["level"], "warn");
    assert_eq!(json["fields.level"], "error");
    assert_eq!(json["message"], "slow\nerror");
    assert_eq!(lines(Format::Plain, "info,cni-plugin=error"), "");
}
