//! Delta xDS as a pure state machine, client and server, with thin gRPC drivers; protobuf to core conversion.
