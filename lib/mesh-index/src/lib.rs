//! Kubernetes and Istio objects to workloads, services and policies: pure indexes.
