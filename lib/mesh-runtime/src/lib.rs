//! Process scaffold: logs, metrics registry, admin and readiness servers, signals, drain, tracked tasks.
