//! Policy: who may do what. Default deny.
