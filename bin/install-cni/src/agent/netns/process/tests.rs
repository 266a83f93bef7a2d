use super::*;

#[test]
fn the_start_is_read_behind_whatever_name_a_process_has() {
    let fields = (4..=52).map(|field| field.to_string());
    let rest = fields.collect::<Vec<_>>().join(" ");
    for name in ["pause", "a b", ") S 1 (", "((", ")"] {
        let stat = format!("42 ({name}) S {rest}\n");
        assert_eq!(started(&stat), Some(22), "{name}");
    }
    assert_eq!(started("42 (x) S 1 2"), None);
    assert_eq!(started(""), None);
}

#[test]
fn the_oldest_process_is_the_first() {
    let mk = |started, pid, ino| Process {
        started,
        pid,
        netns: NetNsId { dev: 1, ino },
    };
    let mut processes = vec![mk(9, 1, 1), mk(3, 7, 2), mk(3, 5, 3)];
    processes.sort();
    assert_eq!(processes, [mk(3, 5, 3), mk(3, 7, 2), mk(9, 1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn one_look_serves_all_who_asked_before_it_began() {
    let node = tempfile::tempdir().unwrap();
    let proc = node.path().join("proc");
    fs::create_dir_all(proc.join("1/ns")).unwrap();
    std::os::unix::fs::symlink("/proc/self/ns/net", proc.join("1/ns/net")).unwrap();
    let scanner = Scanner::new(Host::new(node.path().to_owned(), proc));
    let asked = Instant::now();
    let first = scanner.look(asked).await.unwrap();
    let same = scanner.look(asked).await.unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    let later = asked + Duration::from_millis(1);
    let other = scanner.look(later).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    assert!(
        Instant::now() >= asked + INTERVAL,
        "looks are not begun without end"
    );
}
