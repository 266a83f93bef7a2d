//! What several looks at one namespace say together.

use mesh_redirect::{Difference, Verdict, compare::Item};

/// Findings so far. Nothing wanted and nothing there is no finding.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Something of ours is there, wanted or not.
    any: bool,
    differences: Vec<Difference>,
}

// === impl Findings ===

impl Findings {
    /// Something is there that should be.
    pub(super) fn present(&mut self) {
        self.any = true;
    }

    /// Something is not there that should be.
    pub(super) fn missing(&mut self, place: &str, what: &str) {
        self.differences
            .push(Difference::Missing(item(place, what)));
    }

    /// Something is there that should not be.
    pub(super) fn foreign(&mut self, place: &str, what: &str) {
        self.any = true;
        self.differences
            .push(Difference::Foreign(item(place, what)));
    }

    /// What was found of the rules.
    pub(super) fn rules(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Same => self.present(),
            Verdict::Absent => self.missing("the namespace", "all rules"),
            Verdict::Differs(differences) => {
                self.any = true;
                self.differences.extend(differences);
            }
        }
    }

    /// All together.
    pub(super) fn verdict(self) -> Verdict {
        match (self.differences.is_empty(), self.any) {
            (true, _) => Verdict::Same,
            (false, false) => Verdict::Absent,
            (false, true) => Verdict::Differs(self.differences),
        }
    }
}

fn item(place: &str, what: &str) -> Item {
    Item {
        place: place.to_owned(),
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_only_what_is_absent_everywhere() {
        let mut findings = Findings::default();
        findings.rules(Verdict::Absent);
        findings.missing("ip -4 rule", "fwmark");
        assert_eq!(findings.verdict(), Verdict::Absent);

        let mut findings = Findings::default();
        findings.rules(Verdict::Absent);
        findings.present();
        let Verdict::Differs(differences) = findings.verdict() else {
            panic!("a route without rules was taken for nothing");
        };
        assert_eq!(
            differences[0].to_string(),
            "missing from the namespace: all rules"
        );
    }

    #[test]
    fn a_leftover_is_a_difference_where_nothing_else_is() {
        let mut findings = Findings::default();
        findings.rules(Verdict::Same);
        findings.foreign("iptables-legacy", "rules");
        assert!(matches!(findings.verdict(), Verdict::Differs(_)));
    }
}
