//! Which descriptors the program inherits beside its standard streams, and under which numbers.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;

use super::inject::{Injected, Place};
use crate::cli::args::MAX_DESCRIPTOR;

/// First number for files that the program finds by a path: above those that scripts use by number, and that
/// service managers hand over.
const FIRST: RawFd = 40;

/// The descriptors, and the variables that name them.
pub(super) struct Files {
    pub(super) descriptors: Vec<(OwnedFd, RawFd)>,
    pub(super) variables: Vec<(OsString, OsString)>,
}

/// Gives each value and the link a number.
pub(super) fn place(values: &[Injected], link: Option<OwnedFd>) -> io::Result<Files> {
    let mut files = Files { descriptors: Vec::new(), variables: Vec::new() };
    let mut taken: BTreeSet<RawFd> = values.iter().filter_map(|value| number(&value.place)).collect();
    for value in values {
        let number = match &value.place {
            Place::Environment(_) => continue,
            Place::File(name) => {
                let number = free(&mut taken)?;
                // `self` is whoever opens it: the program, or what it started that kept the descriptor.
                files.variables.push((name.clone(), format!("/proc/self/fd/{number}").into()));
                number
            }
            Place::Descriptor(number) => *number,
            Place::Stdin => 0,
        };
        files.descriptors.push((value.sealed.open()?, number));
    }
    if let Some(link) = link {
        let number = free(&mut taken)?;
        files.variables.push((crate::client::link::VARIABLE.into(), number.to_string().into()));
        files.descriptors.push((link, number));
    }
    Ok(files)
}

fn number(place: &Place) -> Option<RawFd> {
    match place {
        Place::Descriptor(number) => Some(*number),
        _ => None,
    }
}

/// A number that is neither taken nor open, since the caller may have handed it on.
fn free(taken: &mut BTreeSet<RawFd>) -> io::Result<RawFd> {
    let open = |number: &RawFd| Path::new(&format!("/proc/self/fd/{number}")).symlink_metadata().is_ok();
    let number = (FIRST..=MAX_DESCRIPTOR).find(|number| !taken.contains(number) && !open(number));
    let number = number.ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?;
    taken.insert(number);
    Ok(number)
}
