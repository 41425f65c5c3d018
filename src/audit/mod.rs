//! The audit trail: one hash-chained record per decision, written before a value leaves.
