//! Values for a program, by reference: each credential is leased once, however many references name it.
//!
//! Nothing is given to anybody before all of them are there. Imports `client`, `secret`, `types`.

use jiff::Timestamp;

use super::error::CliError;
use crate::client::{AgentClient, Credential, Delivery, Lease};
use crate::types::{Field, Reference, Resource};

/// Credentials that were leased together. Has no `Debug` (invariant I6).
pub(super) struct Leased(Vec<(Resource, Lease, Credential)>);

impl Leased {
    /// Leases what the references name.
    pub(super) async fn acquire(
        client: &AgentClient,
        references: impl IntoIterator<Item = &Reference>,
        reason: &str,
        delivery: Delivery,
    ) -> Result<Self, CliError> {
        let mut leased = Self(Vec::new());
        for Reference { resource, .. } in references {
            if leased.find(resource).is_none() {
                let name = resource.to_string();
                let (lease, credential) = client.acquire_for(&name, None, reason, delivery).await?;
                leased.0.push((resource.clone(), lease, credential));
            }
        }
        Ok(leased)
    }

    /// The value that a reference names.
    pub(super) fn value(&self, reference: &Reference) -> Result<&str, CliError> {
        let credential = self.find(&reference.resource).ok_or(CliError::NoUsernameOf)?;
        match reference.field {
            Field::Value => Ok(credential.value.expose()),
            Field::Username => credential.username.as_deref().ok_or(CliError::NoUsernameOf),
        }
    }

    /// The account name of the one credential that was asked for.
    pub(super) fn username(&self) -> Option<&str> {
        self.0.first()?.2.username.as_deref()
    }

    /// When the first of the leases ends.
    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        self.0.iter().map(|(_, lease, _)| lease.expires_at).min()
    }

    /// Gives back older leases of the same values and the same way, so that a program that asks again and
    /// again has one of each. One that is not given back ends by its time.
    pub(super) async fn replace_older(&self, client: &AgentClient) {
        let Ok(live) = client.list_leases().await else { return };
        let is_older = |old: &&Lease| {
            let same = |new: &Lease| new.resource == old.resource && new.delivery == old.delivery;
            self.0.iter().any(|(_, new, _)| same(new) && new.lease_id != old.lease_id)
        };
        for older in live.iter().filter(is_older) {
            let _ = client.release(older.lease_id).await;
        }
    }

    fn find(&self, resource: &Resource) -> Option<&Credential> {
        self.0.iter().find(|(named, ..)| named == resource).map(|(_, _, credential)| credential)
    }
}
