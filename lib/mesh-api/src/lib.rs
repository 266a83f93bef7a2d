//! The Istio and Gateway API types we read, their CRDs, and the vocabulary of labels, annotations and conditions.
