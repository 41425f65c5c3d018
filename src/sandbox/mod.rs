//! A stand-in for Ravi's API over real TLS.
