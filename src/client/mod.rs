//! Typed client of the daemon's sockets; the only way that cli and mcp reach it.
