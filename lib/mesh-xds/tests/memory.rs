//! What streams cost in memory, counted to the byte: no sockets, no time, one thread. A binary of its own,
//! since it counts everything that the process allocates.

#[cfg(test)]
#[path = "memory/streams.rs"]
mod streams;
