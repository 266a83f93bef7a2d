//! All that is rendered, held to golden files and to the schemas of the API server.

#[path = "render/cases.rs"]
mod cases;
#[path = "render/golden.rs"]
mod golden;
#[path = "render/istiod.rs"]
mod istiod;
