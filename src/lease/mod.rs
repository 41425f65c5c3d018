//! Leases: time-bounded access of one session to one credential.
