//! The versions that can be asked for, from `versions.yaml`.
