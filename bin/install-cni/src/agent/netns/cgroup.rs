//! Which pod a process belongs to, by its control groups.
//!
//! Kubelets, container runtimes and versions of the kernel write the same thing in many ways: a segment
//! with `pod` and the pod's UID, joined by `-`, by `_` (systemd) or by nothing (static pods), and after it
//! the container's.

/// What `/proc/<pid>/cgroup` says of a process of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The pod's UID as the kubelet has it: lower case, joined by `-`; of a static pod 32 digits.
    pub pod: String,
    /// The container, as the runtime names it.
    pub container: String,
}

/// Why a file is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel writes no such line; the file is not what it should be.
    #[error("read control groups: line {0} does not have three fields")]
    Malformed(usize),
    /// The hierarchies put the process into two pods or containers at once. Somebody moved it, and where it
    /// belongs cannot be said.
    #[error("read control groups: the process is in {0} and in {1}")]
    Conflict(String, String),
    /// Longer than any kernel's.
    #[error("read control groups: more than {MAX_LEN} bytes")]
    TooLong,
}

/// Longest file that is read, in bytes: some 15 hierarchies with paths of up to 4096 bytes.
pub const MAX_LEN: usize = 64 << 10;

/// Digits of a UID, and how many stand between two of its joints.
const DIGITS: usize = 32;
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// The pod and the container of a process; none if it is of no pod. `node` is what is read of the node's first
/// process: where that is in a pod itself, as the node of a cluster in a cluster is, that pod is not one of ours.
pub fn membership(text: &str, node: &str) -> Result<Option<Membership>, Error> {
    if text.len() > MAX_LEN {
        return Err(Error::TooLong);
    }
    let mut found: Option<Membership> = None;
    for (index, line) in text.lines().enumerate() {
        let path = line
            .splitn(3, ':')
            .nth(2)
            .ok_or(Error::Malformed(index + 1))?;
        let hierarchy = line.strip_suffix(path).unwrap_or(line);
        let first = node.lines().find_map(|line| line.strip_prefix(hierarchy));
        let Some(here) = in_path(path, first.unwrap_or_default()) else {
            continue;
        };
        match &found {
            Some(before) if *before != here => {
                let name = |of: &Membership| format!("pod {} container {}", of.pod, of.container);
                return Err(Error::Conflict(name(before), name(&here)));
            }
            _ => found = Some(here),
        }
    }
    Ok(found)
}

/// The outermost pod of a path, below what it shares with the node's. Below its own control group a container may
/// be free to make others, by whatever names: also by that of another pod.
fn in_path(path: &str, node: &str) -> Option<Membership> {
    let segments: Vec<&str> = segments(path).collect();
    let shared = segments.iter().zip(self::segments(node));
    let shared = shared.take_while(|(one, other)| *one == other).count();
    let mut pods = segments.iter().enumerate().skip(shared);
    let (index, (pod, rest)) = pods.find_map(|(index, segment)| Some((index, pod_in(segment)?)))?;
    // `…-pod<uid>.slice:cri-containerd:<id>`, or the container has the next segment to itself.
    let named = match rest.strip_prefix(".slice").unwrap_or(rest) {
        "" => segments.get(index + 1).copied()?,
        joined => joined.strip_prefix(':')?,
    };
    let named = named.strip_suffix(".scope").unwrap_or(named);
    let container = named
        .rsplit(['-', ':'])
        .next()
        .filter(|id| is_container(id))?;
    let container = container.to_owned();
    Some(Membership { pod, container })
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn is_container(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The UID in a segment, and what follows it.
fn pod_in(segment: &str) -> Option<(String, &str)> {
    let marks = segment.match_indices("pod");
    marks
        .filter(|(at, _)| {
            // `kubepods` is not a mark.
            let before = segment
                .get(..*at)
                .and_then(|before| before.chars().next_back());
            before.is_none_or(|before| !before.is_alphanumeric())
        })
        .find_map(|(at, mark)| uid(segment.get(at + mark.len()..)?))
}

/// A UID at the beginning of a text, and the rest of it.
fn uid(text: &str) -> Option<(String, &str)> {
    let digits = |text: &str, count: usize| {
        let group = text.get(..count)?;
        let all = group.bytes().all(|byte| byte.is_ascii_hexdigit());
        all.then(|| group.to_ascii_lowercase())
    };
    if let Some(plain) = digits(text, DIGITS) {
        return Some((plain, text.get(DIGITS..)?));
    }
    let mut joined = String::with_capacity(DIGITS + GROUPS.len() - 1);
    let mut rest = text;
    for (index, count) in GROUPS.into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(['-', '_'])?;
            joined.push('-');
        }
        joined.push_str(&digits(rest, count)?);
        rest = rest.get(count..)?;
    }
    Some((joined, rest))
}

/// The body of the fuzz target, which a plain test feeds the saved corpus too: whatever the file holds,
/// nothing panics, and a UID that is read has the form of one.
///
/// # Panics
/// When one of these does not hold.
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(Some(found)) = membership(&text, "") {
        let plain: String = found.pod.chars().filter(|digit| *digit != '-').collect();
        assert_eq!(plain.len(), DIGITS);
        assert_eq!(uid(&found.pod), Some((found.pod.clone(), "")));
        assert!(is_container(&found.container));
    }
}

#[cfg(test)]
mod tests;
