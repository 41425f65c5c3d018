//! What of a process can be read: its mappings, as `/proc/PID/maps` lists them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;

/// A mapping, by address.
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    readable: bool,
    writable: bool,
    /// File, `[heap]`, `stack of NAME`, or `anon`.
    pub(crate) name: String,
    /// Stack pointer of the thread whose stack this is: what lies below it is of calls that have returned.
    pub(crate) stack_pointer: Option<u64>,
    /// `VmFlags` of `/proc/PID/smaps`.
    pub(crate) flags: Vec<String>,
}

impl Mapping {
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|has| has == flag)
    }

    /// What a program file had before it ran: nothing was ever written there.
    pub(crate) fn is_constant(&self) -> bool {
        !self.writable && self.name.starts_with('/')
    }

    /// Where in the mapping, in words.
    pub(crate) fn place(&self, offset: u64) -> String {
        let part = match self.stack_pointer {
            Some(pointer) if self.start + offset < pointer => {
                format!(", {} below its pointer", pointer - self.start - offset)
            }
            Some(pointer) => format!(", {} above its pointer", self.start + offset - pointer),
            None => String::new(),
        };
        format!("{}{part}", self.name)
    }
}

/// The mappings of a stopped process.
pub(crate) fn mappings(pid: i32) -> Vec<Mapping> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("its memory may be looked at");
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags: ") {
            let last = mappings.last_mut().expect("a mapping begins with its range");
            last.flags = flags.split_whitespace().map(str::to_owned).collect();
        } else if let Some(mapping) = head(line) {
            mappings.push(mapping);
        }
    }
    for (name, pointer) in stack_pointers(pid) {
        let stack = mappings.iter_mut().find(|mapping| (mapping.start..mapping.end).contains(&pointer));
        if let Some(stack) = stack {
            (stack.name, stack.stack_pointer) = (format!("stack of {name}"), Some(pointer));
        }
    }
    mappings
}

/// `START-END PERMISSIONS OFFSET DEVICE INODE NAME`.
fn head(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).ok());
    let permissions = words.next()?;
    let (readable, writable) = (permissions.starts_with('r'), permissions.contains('w'));
    let name = words.nth(3).unwrap_or("anon").to_owned();
    Some(Mapping {
        start: start?,
        end: end?,
        readable,
        writable,
        name,
        stack_pointer: None,
        flags: Vec::new(),
    })
}

/// Name and stack pointer of each thread. `/proc/PID/task/TID/syscall` ends with the stack pointer and the
/// program counter.
fn stack_pointers(pid: i32) -> Vec<(String, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let pointer = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("syscall")).ok()?;
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let pointer = text.split_whitespace().rev().nth(1)?.strip_prefix("0x")?.to_owned();
        Some((name.trim().to_owned(), u64::from_str_radix(&pointer, 16).ok()?))
    };
    tasks.filter_map(|task| pointer(task.ok()?.path())).collect()
}

/// Hands over every readable mapping with its content. Returns how many bytes that were, and the names of
/// those that the kernel does not hand out.
pub(crate) fn read_all(pid: i32, mut each: impl FnMut(&Mapping, &[u8])) -> (u64, Vec<String>) {
    let memory = File::open(format!("/proc/{pid}/mem")).expect("its memory may be read");
    let (mut bytes, mut refused, mut buffer) = (0, Vec::new(), Vec::new());
    for mapping in mappings(pid).into_iter().filter(|mapping| mapping.readable) {
        buffer.resize(usize::try_from(mapping.end - mapping.start).unwrap(), 0);
        match memory.read_exact_at(&mut buffer, mapping.start) {
            Ok(()) => each(&mapping, &buffer),
            Err(_) => refused.push(mapping.name.clone()),
        }
        bytes += mapping.end - mapping.start;
    }
    (bytes, refused)
}

/// Whether this process may read the memory of others that are not dumpable; if not, says so.
pub(crate) fn may_look() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("only root may read the memory of a process that is not dumpable");
    }
    root
}

/// Says what is not tested on this host. `.ci/run` counts these lines.
pub(crate) fn skip(why: &str) {
    // Not `eprintln!`, which the test harness would keep to itself.
    let _ = std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes());
}
