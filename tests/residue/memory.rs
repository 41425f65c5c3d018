//! What of a process can be read: its mappings, as `/proc/PID/maps` lists them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

/// A mapping, by address.
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    readable: bool,
    /// Its pages are the file's until this process may write to them.
    is_private: bool,
    writable: bool,
    /// Where in the file it begins.
    offset: u64,
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

    /// Whether these bytes, so far into the mapping, stand like this in the program or library that is mapped: nothing
    /// that the process has handled.
    pub(crate) fn is_constant(&self, pid: i32, offset: usize, bytes: &[u8]) -> bool {
        if self.writable || !self.is_private {
            return false;
        }
        // The file itself, whatever has its name by now.
        let mapped = format!("/proc/{pid}/map_files/{:x}-{:x}", self.start, self.end);
        File::open(mapped).is_ok_and(|file| is_object_with(&file, self.offset + offset as u64, bytes))
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

/// Whether an ELF file on a disk has these bytes in this place.
fn is_object_with(file: &File, place: u64, bytes: &[u8]) -> bool {
    let has = |place: u64, wanted: &[u8]| {
        let mut there = vec![0; wanted.len()];
        file.read_exact_at(&mut there, place).is_ok() && there == wanted
    };
    let on_a_disk = file.metadata().is_ok_and(|file| file.nlink() > 0);
    on_a_disk && has(0, b"\x7fELF") && has(place, bytes)
}

/// `START-END PERMISSIONS OFFSET DEVICE INODE NAME`.
fn head(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    let [start, end, offset] = [start, end, words.next()?].map(|text| u64::from_str_radix(text, 16).ok());
    Some(Mapping {
        start: start?,
        end: end?,
        readable: permissions.starts_with('r'),
        is_private: permissions.ends_with('p'),
        writable: permissions.contains('w'),
        offset: offset?,
        name: words.nth(2).unwrap_or("anon").to_owned(),
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

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    /// Looks like a token, and stands in the file of this test.
    static WORDS: &str = "rbt_WordsThatStandSideBySide2InAProgram";

    /// The mapping with this text, and where in it.
    fn of(text: &str) -> (Mapping, usize) {
        let address = text.as_ptr() as u64;
        let mut all = mappings(own()).into_iter();
        let mapping = all.find(|mapping| (mapping.start..mapping.end).contains(&address)).unwrap();
        let offset = usize::try_from(address - mapping.start).unwrap();
        (mapping, offset)
    }

    fn own() -> i32 {
        nix::unistd::getpid().as_raw()
    }

    #[test]
    fn only_what_the_mapped_file_holds_in_that_very_place_is_constant() {
        if !may_look() {
            return;
        }
        let (mapping, offset) = of(WORDS);
        assert!(mapping.is_constant(own(), offset, WORDS.as_bytes()));
        assert!(!mapping.is_constant(own(), offset + 1, WORDS.as_bytes()), "in another place");
        let other = WORDS.replace('2', "3");
        assert!(!mapping.is_constant(own(), offset, other.as_bytes()), "other bytes than the file's");
        let (heap, offset) = of(&other);
        assert!(!heap.is_constant(own(), offset, other.as_bytes()), "memory of the process");
    }

    #[test]
    fn what_is_no_program_on_a_disk_holds_nothing_constant() {
        let program = [b"\x7fELF".as_slice(), WORDS.as_bytes()].concat();
        let directory = tempfile::tempdir().unwrap();
        let file = |content: &[u8]| {
            let path = directory.path().join("file");
            fs::write(&path, content).unwrap();
            File::open(path).unwrap()
        };
        assert!(is_object_with(&file(&program), 4, WORDS.as_bytes()));
        assert!(
            !is_object_with(&file(&program[1..]), 3, WORDS.as_bytes()),
            "a file that may be the process's"
        );
        let mut memory = File::from(memfd_create("words", MFdFlags::empty()).unwrap());
        memory.write_all(&program).unwrap();
        assert!(!is_object_with(&memory, 4, WORDS.as_bytes()), "memory with a descriptor");
    }
}
