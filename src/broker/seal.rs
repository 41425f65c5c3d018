//! What becomes of keys that are held: sealed for the next start, or forgotten.

use std::sync::atomic::Ordering;

use super::Broker;
use super::error::{BrokerError, Result};
use crate::audit::Verb;
use crate::upstream::{KeyId, Keys};

const ROOT: u32 = 0;

impl Broker {
    /// Writes the management key into the pipe of whoever seals it. Root alone may ask: it could read the key from
    /// the credential anyway, and the daemon's own user, which may use the admin socket as well, could not.
    pub fn seal_key(&self, uid: u32) -> Result<()> {
        let wrong = |problem| BrokerError::Argument { field: "sealing", problem };
        if uid != ROOT {
            return Err(wrong("a key is sealed for root alone"));
        }
        self.gate.check()?;
        let key = self.vault.keyring().open(KeyId::Management).ok_or(BrokerError::LoginRequired)?;
        self.record_admin(Verb::AdminSeal, None)?;
        self.keys.hand_over(&key.value).map_err(|error| {
            tracing::error!(%error, "the key was not sealed");
            wrong("there is no private pipe in the state directory that somebody reads from")
        })
    }

    /// Forgets the keys and what was fetched with them. Returns whether a key file is gone. Not while a login is
    /// under way, which would bring a key right after.
    pub fn logout(&self) -> Result<bool> {
        let _alone = self.login.try_lock().map_err(|_| BrokerError::Capacity("logins at once"))?;
        let _switch = self.switch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.record_admin(Verb::AdminLogout, None)?;
        self.logged_out.store(true, Ordering::Relaxed);
        self.vault.keyring().clear();
        self.vault.forget();
        self.keys.remove().map_err(|_| BrokerError::Argument {
            field: "upstream.management_key_file",
            problem: "the keys are forgotten, but the file cannot be removed: check its directory and rights",
        })
    }
}
