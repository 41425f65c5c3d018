//! The request path: one function per verb.
