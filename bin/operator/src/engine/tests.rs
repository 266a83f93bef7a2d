//! Plans, with toy worlds.
