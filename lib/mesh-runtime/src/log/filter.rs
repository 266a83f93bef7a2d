//! Which events are logged: a level for everything and levels for targets.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::Error;

/// More directives than anybody writes by hand, few enough that matching a new call site stays cheap.
pub(super) const MAX_DIRECTIVES: usize = 64;

/// The filter that `directives` describe, over `info` for everything.
pub(super) fn parse(directives: &str) -> Result<Targets, Error> {
    extend(Targets::new().with_default(LevelFilter::INFO), directives)
}

/// `filter` with `directives` on top. Empty ones are skipped, so that a trailing comma does no harm.
pub(super) fn extend(mut filter: Targets, directives: &str) -> Result<Targets, Error> {
    let parts = directives.split(',').map(str::trim);
    for directive in parts.filter(|part| !part.is_empty()) {
        filter = add(filter, directive)?;
        if filter.iter().count() > MAX_DIRECTIVES {
            return Err(Error::TooMany);
        }
    }
    Ok(filter)
}

fn add(filter: Targets, directive: &str) -> Result<Targets, Error> {
    let refused = || Error::Directive(directive.chars().take(64).collect());
    if let Some(level) = level(directive) {
        return Ok(filter.with_default(level));
    }
    // `target:level` is what Istio's command line tool has people type.
    let split = directive
        .rsplit_once('=')
        .or_else(|| directive.rsplit_once(':'));
    let (target, name) = split.ok_or_else(refused)?;
    let level = level(name).ok_or_else(refused)?;
    if !is_target(target) {
        return Err(refused());
    }
    Ok(filter.with_target(target, level))
}

fn level(name: &str) -> Option<LevelFilter> {
    // The crate's own parser takes numbers and the empty text as well, which here would hide a typo.
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic());
    named.then(|| name.parse().ok()).flatten()
}

fn is_target(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '-' | '/');
    !text.is_empty() && !text.ends_with(':') && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn nothing_said_means_info() {
        let filter = parse("").unwrap();
        assert!(filter.would_enable("anything", &Level::INFO));
        assert!(!filter.would_enable("anything", &Level::DEBUG));
    }

    #[test]
    fn later_directives_and_longer_targets_win() {
        let filter = parse("debug,mesh_xds=trace,mesh_xds::client=warn,ERROR,").unwrap();
        assert!(filter.would_enable("other", &Level::ERROR));
        assert!(!filter.would_enable("other", &Level::WARN));
        assert!(filter.would_enable("mesh_xds::server", &Level::TRACE));
        assert!(!filter.would_enable("mesh_xds::client", &Level::INFO));
    }

    #[test]
    fn a_colon_separates_as_well() {
        let filter = parse("mesh_xds::client:debug").unwrap();
        assert!(filter.would_enable("mesh_xds::client", &Level::DEBUG));
        assert!(!filter.would_enable("mesh_xds::server", &Level::DEBUG));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in [
            "loud",
            "access=loud",
            "=debug",
            "access=",
            "3",
            "a b=info",
            "[span]=info",
            "x::info",
        ] {
            let refused = parse(&format!("info,{text}")).unwrap_err();
            assert!(matches!(refused, Error::Directive(named) if named == text));
        }
    }

    #[test]
    fn the_number_of_directives_is_bounded() {
        let many: Vec<_> = (0..=MAX_DIRECTIVES).map(|n| format!("t{n}=info")).collect();
        assert!(matches!(parse(&many.join(",")), Err(Error::TooMany)));
    }
}
