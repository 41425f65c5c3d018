//! The daemon's process: composition, sockets, life cycle.
