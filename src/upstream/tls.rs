//! TLS to Ravi: rustls with its provider passed by hand, never a process-wide one.
//!
//! TLS 1.2 at least. Trusted are the built-in roots, or the given certificates and nothing else.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// Why the upstream client could not be built. Never quotes the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// Not PEM, or a certificate in it is malformed.
    #[error("ca_file is not a file of PEM certificates; give CERTIFICATE blocks only")]
    CaMalformed,
    /// No certificate at all.
    #[error("ca_file holds no certificate; give at least one, or leave ca_file out")]
    CaEmpty,
    /// The cryptographic provider does not offer TLS 1.2 and 1.3.
    #[error("TLS 1.2 and 1.3 are not available in this build")]
    Tls,
}

/// The client's side of TLS. `ca_pem` replaces the built-in roots.
pub(super) fn client_config(ca_pem: Option<&[u8]>) -> Result<ClientConfig, SettingsError> {
    let roots = match ca_pem {
        Some(pem) => given_roots(pem)?,
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
    };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|_| SettingsError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// What the public internet is trusted by, for callbacks on other machines.
pub fn public_tls() -> Result<ClientConfig, SettingsError> {
    client_config(None)
}

/// What a collector of metrics is trusted by: the given certificates, or what the public internet is.
#[cfg(feature = "otlp")]
pub fn collector_tls(ca_pem: Option<&[u8]>) -> Result<ClientConfig, SettingsError> {
    client_config(ca_pem)
}

fn given_roots(pem: &[u8]) -> Result<RootCertStore, SettingsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| SettingsError::CaMalformed)?;
        roots.add(certificate).map_err(|_| SettingsError::CaMalformed)?;
    }
    if roots.is_empty() { Err(SettingsError::CaEmpty) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_roots_are_used_unless_others_are_given() {
        assert!(client_config(None).is_ok());
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        assert_eq!(client_config(Some(b"")).err(), Some(SettingsError::CaEmpty));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(client_config(Some(broken)).err(), Some(SettingsError::CaMalformed));
        let open = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert_eq!(client_config(Some(open)).err(), Some(SettingsError::CaMalformed));
    }
}
