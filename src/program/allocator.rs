//! The allocator of all four programs (invariant I1). Imports nothing of this crate.
//!
//! A program that serves, asks or passes on a value cannot reach the buffers of the libraries below it. What
//! they free is wiped here. That covers a block that grows as well: `ZeroAlloc` leaves `realloc` to
//! `GlobalAlloc`, whose own form makes a new block, copies, and frees the old one. What is still allocated is
//! not covered: whoever keeps a buffer wipes or frees it.
//!
//! A library cannot choose for those who link it, so each file under `src/bin/` has these two lines:
//!
//! ```text
//! #[global_allocator]
//! static ALLOCATOR: WipingAllocator = WIPING;
//! ```

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

/// The system's allocator, with every block overwritten before it is given back.
pub type WipingAllocator = ZeroAlloc<System>;

/// The one of each program.
pub const WIPING: WipingAllocator = ZeroAlloc(System);
