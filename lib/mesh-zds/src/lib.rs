//! The CNI agent to ztunnel protocol (ZDS), both ends: codec, snapshot and acknowledgement machines, descriptor passing.
