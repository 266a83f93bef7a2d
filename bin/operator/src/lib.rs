//! The operator: custom resources in, every object of the mesh out.
