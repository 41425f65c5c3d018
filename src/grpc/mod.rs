//! The wire: one file per service.
