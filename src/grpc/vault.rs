//! `VaultService`. Changes run to their end in a task of their own.

use tonic::{Request, Response};

use super::{Agent, Answer, convert};
use crate::broker::{Admitted, BrokerError};
use crate::limit::Class;
use crate::pb;
use crate::pb::vault_service_server::VaultService;
use crate::secret::Secret;
use crate::types::{PasswordName, SecretKey, Username};
use crate::vault::Change;

/// A value that Ravi and one request message both hold.
const MAX_VALUE_BYTES: usize = 48 * 1024;

#[tonic::async_trait]
impl VaultService for Agent {
    async fn list_passwords(
        &self,
        request: Request<pb::ListPasswordsRequest>,
    ) -> Answer<pb::ListPasswordsResponse> {
        let (admitted, message) = self.admit(request, Class::Read, Ok)?;
        let names = self.broker.list_passwords(&admitted).await?;
        let (names, next_page_token) = convert::page(names, message.page_size, &message.page_token)?;
        let passwords = names.into_iter().map(convert::password_name).collect();
        Ok(Response::new(pb::ListPasswordsResponse { passwords, next_page_token }))
    }

    async fn list_secrets(
        &self,
        request: Request<pb::ListSecretsRequest>,
    ) -> Answer<pb::ListSecretsResponse> {
        let (admitted, message) = self.admit(request, Class::Read, Ok)?;
        let names = self.broker.list_secrets(&admitted).await?;
        let (names, next_page_token) = convert::page(names, message.page_size, &message.page_token)?;
        let secrets = names.into_iter().map(convert::secret_name).collect();
        Ok(Response::new(pb::ListSecretsResponse { secrets, next_page_token }))
    }

    async fn create_password(
        &self,
        request: Request<pb::CreatePasswordRequest>,
    ) -> Answer<pb::CreatePasswordResponse> {
        let (admitted, (name, length, reason)) = self.admit(request, Class::Send, |message| {
            let domain = convert::name("domain", &message.domain)?;
            let name = PasswordName { domain, username: username(&message.username)? };
            Ok((name, convert::password_length(message.length)?, convert::reason(&message.reason)?))
        })?;
        let broker = self.broker.clone();
        let create =
            |admitted: Admitted| async move { broker.create_password(&admitted, name, length, reason).await };
        let password = Some(convert::password_name(Self::to_the_end(admitted, create).await?));
        Ok(Response::new(pb::CreatePasswordResponse { password }))
    }

    async fn update_password(
        &self,
        request: Request<pb::UpdatePasswordRequest>,
    ) -> Answer<pb::UpdatePasswordResponse> {
        let (admitted, (name, change, reason)) = self.admit(request, Class::Send, |message| {
            let (name, reason) = (convert::password(&message.resource)?, convert::reason(&message.reason)?);
            let change = match message.password {
                password if password.is_empty() => {
                    Change::Generated(convert::password_length(message.length)?)
                }
                password => Change::To(value("password", password)?),
            };
            Ok((name, change, reason))
        })?;
        let broker = self.broker.clone();
        let update =
            |admitted: Admitted| async move { broker.update_password(&admitted, name, change, reason).await };
        let password = Some(convert::password_name(Self::to_the_end(admitted, update).await?));
        Ok(Response::new(pb::UpdatePasswordResponse { password }))
    }

    async fn delete_password(
        &self,
        request: Request<pb::DeletePasswordRequest>,
    ) -> Answer<pb::DeletePasswordResponse> {
        let (admitted, (name, reason)) = self.admit(request, Class::Send, |message| {
            Ok((convert::password(&message.resource)?, convert::reason(&message.reason)?))
        })?;
        let broker = self.broker.clone();
        Self::to_the_end(admitted, |admitted: Admitted| async move {
            broker.delete_password(&admitted, name, reason).await
        })
        .await?;
        Ok(Response::new(pb::DeletePasswordResponse {}))
    }

    async fn set_secret(&self, request: Request<pb::SetSecretRequest>) -> Answer<pb::SetSecretResponse> {
        let (admitted, (key, value, reason)) = self.admit(request, Class::Send, |message| {
            let key: SecretKey = convert::name("key", &message.key)?;
            Ok((key, value("value", message.value)?, convert::reason(&message.reason)?))
        })?;
        let (broker, name) = (self.broker.clone(), key.clone());
        let set = |admitted: Admitted| async move { broker.set_secret(&admitted, name, value, reason).await };
        let created = Self::to_the_end(admitted, set).await?;
        Ok(Response::new(pb::SetSecretResponse { secret: Some(convert::secret_name(key)), created }))
    }

    async fn delete_secret(
        &self,
        request: Request<pb::DeleteSecretRequest>,
    ) -> Answer<pb::DeleteSecretResponse> {
        let (admitted, (key, reason)) = self.admit(request, Class::Send, |message| {
            Ok((convert::name("key", &message.key)?, convert::reason(&message.reason)?))
        })?;
        let broker = self.broker.clone();
        Self::to_the_end(admitted, |admitted: Admitted| async move {
            broker.delete_secret(&admitted, key, reason).await
        })
        .await?;
        Ok(Response::new(pb::DeleteSecretResponse {}))
    }
}

fn username(text: &str) -> Result<Option<Username>, BrokerError> {
    if text.is_empty() { Ok(None) } else { convert::name("username", text).map(Some) }
}

fn value(field: &'static str, text: String) -> Result<Secret, BrokerError> {
    let value = Secret::new(text);
    match value.len() {
        0 => Err(BrokerError::Argument { field, problem: "must not be empty" }),
        length if length > MAX_VALUE_BYTES => {
            Err(BrokerError::Argument { field, problem: "larger than 48 KiB" })
        }
        _ if value.expose().starts_with("e2e::") => Err(BrokerError::Argument {
            field,
            problem: "must not begin with e2e::, which marks a retired form",
        }),
        _ => Ok(value),
    }
}
