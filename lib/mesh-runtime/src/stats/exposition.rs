//! From OpenMetrics to the text form of Prometheus 0.0.4, which names counters and infos differently.
//! Pure.

/// Rewrites a complete OpenMetrics exposition. Samples are the same in both forms, as long as they have
/// no exemplars.
pub(super) fn to_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // The name of a family depends on its type, which follows the help.
    let mut help = None;
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.extend([line, "\n"]);
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("HELP"), Some(_), words) => help = Some(words.unwrap_or_default()),
            (Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                if let Some(help) = help.take() {
                    text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
                }
                text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
            }
            // UNIT and EOF do not exist there.
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_get_the_names_that_their_samples_have() {
        let open_metrics = concat!(
            "# HELP requests Requests # seen.\n# TYPE requests counter\n",
            "requests_total{code=\"200\"} 3\n",
            "# HELP build_info Build.\n# TYPE build_info gauge\nbuild_info 1\n",
            "# HELP os System.\n# TYPE os info\nos_info{name=\"linux\"} 1\n",
            "# HELP wait_seconds Wait.\n# TYPE wait_seconds histogram\n# UNIT wait_seconds seconds\n",
            "wait_seconds_sum 0.5\nwait_seconds_count 1\nwait_seconds_bucket{le=\"+Inf\"} 1\n",
            "# HELP odd Odd.\n# TYPE odd unknown\nodd 7\n",
            "# EOF\n",
        );
        let text = concat!(
            "# HELP requests_total Requests # seen.\n# TYPE requests_total counter\n",
            "requests_total{code=\"200\"} 3\n",
            "# HELP build_info Build.\n# TYPE build_info gauge\nbuild_info 1\n",
            "# HELP os_info System.\n# TYPE os_info gauge\nos_info{name=\"linux\"} 1\n",
            "# HELP wait_seconds Wait.\n# TYPE wait_seconds histogram\n",
            "wait_seconds_sum 0.5\nwait_seconds_count 1\nwait_seconds_bucket{le=\"+Inf\"} 1\n",
            "# HELP odd Odd.\n# TYPE odd untyped\nodd 7\n",
        );
        assert_eq!(to_text(open_metrics), text);
    }
}
