//! The dead part of the stack, where a cipher written in C leaves its working state.

use zeroize::Zeroize;

/// Overwrites this many words of what the call before has left below the caller's own frame. That call must
/// not have been inlined into the caller.
#[inline(never)]
pub fn scrub_stack<const WORDS: usize>() {
    let mut dead = [0_u64; WORDS];
    dead.zeroize();
}
