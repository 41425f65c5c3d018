//! Values for the program: which go where, fetched before it starts, kept in sealed files alone.
//!
//! A value is a `Secret` for no longer than it takes to seal it. It is read back for the environment (which
//! is wiped after the start) and for the mask (after the start, so that no forked process has it).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::RawFd;

use super::say::Say;
use super::session::LauncherSession;
use crate::cli::args::{Named, Numbered, Run};
use crate::cli::context::text;
use crate::cli::error::CliError;
use crate::cli::mask::Mask;
use crate::client::Delivery;
use crate::secret::Secret;
use crate::sys::memfd::{LockedPages, SealedFile};
use crate::types::{Field, Reference};

/// Most values of one run.
const MAX_VALUES: usize = 64;

/// Where a value goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Into a file that this variable names.
    File(OsString),
    /// Into the descriptor of this number.
    Descriptor(RawFd),
    /// Into standard input.
    Stdin,
    /// Into this variable.
    Environment(OsString),
}

/// One value that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    place: Place,
    reference: Reference,
}

/// One value that is there.
pub(super) struct Injected {
    pub(super) place: Place,
    pub(super) sealed: SealedFile,
    field: Field,
}

/// All that the command line asks for.
pub(super) fn wanted(args: &Run) -> Result<Vec<Wanted>, CliError> {
    let file = |Named { name, reference }: Named| Wanted { place: Place::File(name), reference };
    let fd =
        |Numbered { number, reference }: Numbered| Wanted { place: Place::Descriptor(number), reference };
    let env = |Named { name, reference }: Named| Wanted { place: Place::Environment(name), reference };
    let stdin = args.stdin.clone().map(|reference| Wanted { place: Place::Stdin, reference });
    let all = args.file.iter().cloned().map(file);
    let all = all.chain(args.fd.iter().cloned().map(fd)).chain(stdin);
    let all: Vec<Wanted> = all.chain(args.env.iter().cloned().map(env)).collect();
    let refuse = |what: &str, hint: &str| Err(CliError::Usage(what.into(), hint.into()));
    if all.len() > MAX_VALUES {
        return refuse("more than 64 values are asked for", "give the program fewer, or start it in parts");
    }
    let mut places = BTreeSet::new();
    let unique = all.iter().all(|wanted| match &wanted.place {
        Place::File(name) | Place::Environment(name) => places.insert(name.clone()),
        Place::Descriptor(number) => places.insert(number.to_string().into()),
        Place::Stdin => true,
    });
    if !unique {
        return refuse("two values go to one place", "give each a variable or descriptor of its own");
    }
    Ok(all)
}

/// Leases and seals each value.
pub(super) async fn acquire(
    session: &LauncherSession,
    wanted: &[Wanted],
    args: &Run,
) -> Result<Vec<Injected>, CliError> {
    let reason = text(args.purpose.reason.as_ref());
    let mut values = Vec::with_capacity(wanted.len());
    for Wanted { place, reference } in wanted {
        let resource = reference.resource.to_string();
        let delivery = match place {
            Place::File(_) => Delivery::File,
            Place::Descriptor(_) => Delivery::Descriptor,
            Place::Stdin => Delivery::Stdin,
            Place::Environment(_) => Delivery::Environment,
        };
        let (_, credential) = session.client().acquire_for(&resource, None, &reason, delivery).await?;
        let value = match reference.field {
            Field::Value => credential.value,
            Field::Username => Secret::new(credential.username.ok_or(CliError::NoUsernameOf)?),
        };
        if matches!(place, Place::Environment(_)) && value.expose().contains('\0') {
            return Err(CliError::ZeroByte);
        }
        let sealed = SealedFile::of(value.expose().as_bytes()).map_err(CliError::Start)?;
        values.push(Injected { place: place.clone(), sealed, field: reference.field });
    }
    Ok(values)
}

/// The mask for what the program prints, if there is to be one.
pub(super) fn mask(values: &[Injected], masked: bool, say: &Say) -> Result<Option<Mask>, CliError> {
    if !masked {
        return Ok(None);
    }
    let values = values.iter().filter(|value| value.is_secret()).map(Injected::read);
    let values = values.collect::<io::Result<Vec<Secret>>>().map_err(CliError::Start)?;
    let mask = Mask::new(values.iter()).map_err(|_| CliError::TooMuchToMask)?;
    if !mask.too_short().is_empty() {
        say.note("a value of less than four characters is not masked in the output");
    }
    Ok(Some(mask))
}

impl Injected {
    /// False for an account name.
    pub(super) fn is_secret(&self) -> bool {
        self.field == Field::Value
    }

    /// True if it is kept from swap.
    pub(super) fn is_locked(&self) -> bool {
        self.sealed.is_locked()
    }

    /// The value.
    pub(super) fn read(&self) -> io::Result<Secret> {
        let mut file = File::from(self.sealed.open()?);
        let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
        let mut text = String::with_capacity(length);
        file.read_to_string(&mut text)?;
        Ok(Secret::new(text))
    }

    /// Keeps the pages from swap and nothing else. A value of the environment is not in this file any more.
    pub(super) fn into_locked(self) -> Option<LockedPages> {
        match self.place {
            Place::Environment(_) => None,
            _ => self.sealed.into_locked(),
        }
    }
}
