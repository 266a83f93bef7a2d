//! The values that have an effect, by their paths in Istio's Helm charts.
//!
//! All fields are optional: a layer of values (defaults, profile, platform, user) names what it sets. Layers
//! are merged as JSON and decoded once into these types.
