//! Generated protobuf and gRPC: delta xDS, workload, authorization, CA, ZDS. No logic.
