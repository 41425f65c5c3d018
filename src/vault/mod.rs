//! Values and keys at rest, and the read-through cache in front of upstream.
