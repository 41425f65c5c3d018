//! How far the memory for secrets is protected on this host, in the words of the configuration and of
//! `status`.

use crate::config::MemoryTier;
use crate::sys::Protection;
use crate::sys::locked::Shortfall;

/// What was reached of what was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub(super) wanted: MemoryTier,
    /// What the weakest of the regions lacks.
    pub(super) unlocked: Option<Shortfall>,
    /// Why the sealing key is not in memfd_secret, where it was wanted.
    pub(super) not_secret: Option<Shortfall>,
}

impl Reached {
    /// The tier. `None`: not even `locked`.
    pub fn tier(&self) -> Option<MemoryTier> {
        match (self.unlocked, self.not_secret) {
            (Some(_), _) => None,
            (None, Some(_)) => Some(MemoryTier::Locked),
            (None, None) => Some(self.wanted),
        }
    }

    /// What keeps it below the tier that was wanted.
    pub fn shortfall(&self) -> Option<Shortfall> {
        self.unlocked.or(self.not_secret)
    }

    /// For `status`.
    pub fn protection(&self) -> Protection {
        let tier = match self.shortfall() {
            None if self.wanted == MemoryTier::Secret => {
                "sealed; key in memfd_secret, slots in locked memory"
            }
            None => "sealed, in locked memory",
            Some(Shortfall::MemlockLimit) => "sealed, NOT locked: RLIMIT_MEMLOCK is too low",
            Some(Shortfall::LockRefused) => "sealed, NOT locked: the kernel refuses to lock memory",
            Some(Shortfall::Dumped) => "sealed, NOT kept out of core dumps",
            Some(Shortfall::Inherited) => "sealed, NOT kept from child processes",
            Some(Shortfall::NoSecretMemory) => "sealed, in locked memory; the kernel offers no memfd_secret",
            Some(Shortfall::SecretMemoryRefused) => {
                "sealed, in locked memory; the kernel refuses memfd_secret"
            }
        };
        Protection { name: "secrets at rest", tier, full: self.shortfall().is_none() }
    }
}
