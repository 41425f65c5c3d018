//! The MCP stdio adapter.
