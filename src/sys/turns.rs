//! How long a turn on the processor this process asks for.

use std::io;

use nix::errno::Errno;

/// The shortest that the scheduler grants (`sched_setattr(2)`, Linux 6.12).
const SHORTEST_NANOS: u64 = 100_000;

/// Asks for short turns for this thread and all that it starts. They come sooner in return: among a thousand
/// processes that are ready to run because they have just been killed, the one that has to act on it would
/// come last. It takes no privilege, gives no larger share and leaves the priority as it is. Older kernels
/// ignore the length.
pub fn ask_for_short_ones() -> io::Result<()> {
    let mut attributes = attributes()?;
    if attributes.sched_policy == libc::SCHED_OTHER.cast_unsigned() {
        attributes.sched_runtime = SHORTEST_NANOS;
        // SAFETY: the kernel reads one struct of the size that stands in it, which outlives the call.
        let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
        Errno::result(set)?;
    }
    Ok(())
}

/// Those of this thread.
fn attributes() -> io::Result<libc::sched_attr> {
    let mut attributes = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let size = size_of::<libc::sched_attr>();
    // SAFETY: the kernel writes at most `size` bytes to a struct of that size.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    Errno::result(read)?;
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_started_afterwards_have_short_turns_and_the_same_priority() {
        let asking = std::thread::spawn(|| {
            let before = attributes().unwrap();
            ask_for_short_ones().unwrap();
            (before, std::thread::spawn(|| attributes().unwrap()).join().unwrap())
        });
        let (before, after) = asking.join().unwrap();
        assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
        // A kernel that knows no lengths tells none.
        assert!(after.sched_runtime == SHORTEST_NANOS || after.sched_runtime == before.sched_runtime);
    }
}
