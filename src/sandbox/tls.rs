//! A certificate authority and a leaf, made at the start and kept in memory. The authority's key is
//! dropped once it has signed the leaf, and its certificate names loopback alone (RFC 5280 name
//! constraints): to trust it is to trust this one process on this one machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

const LIFE_DAYS: i64 = 30;

/// Certificates could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the certificates could not be made")]
pub struct NoCertificates;

impl From<rcgen::Error> for NoCertificates {
    fn from(_: rcgen::Error) -> Self {
        Self
    }
}

impl From<rustls::Error> for NoCertificates {
    fn from(_: rustls::Error) -> Self {
        Self
    }
}

/// What the server needs, and what its clients need.
pub(super) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    /// The authority's certificate, to be trusted by clients.
    pub(super) ca_pem: String,
}

/// Makes both certificates, good from the day before `now`.
pub(super) fn make(now: Timestamp) -> Result<Tls, NoCertificates> {
    let ca_key = KeyPair::generate()?;
    let ca_params = ca_params(now)?;
    let ca = ca_params.self_signed(&ca_key)?;
    let leaf_key = KeyPair::generate()?;
    let leaf = leaf_params(now)?.signed_by(&leaf_key, &Issuer::from_params(&ca_params, &ca_key))?;
    let config = server_config(leaf.into(), &leaf_key)?;
    Ok(Tls { config: Arc::new(config), ca_pem: ca.pem() })
}

fn ca_params(now: Timestamp) -> Result<CertificateParams, NoCertificates> {
    let mut params = dated(now)?;
    params.distinguished_name.push(DnType::CommonName, "ravi-sandbox development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let v4 = CidrSubnet::from_addr_prefix(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
    let v6 = CidrSubnet::from_addr_prefix(IpAddr::V6(Ipv6Addr::LOCALHOST), 128);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(v4),
            GeneralSubtree::IpAddress(v6),
        ],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

fn leaf_params(now: Timestamp) -> Result<CertificateParams, NoCertificates> {
    let mut params = dated(now)?;
    params.distinguished_name.push(DnType::CommonName, "ravi-sandbox");
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn dated(now: Timestamp) -> Result<CertificateParams, NoCertificates> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let today = now.to_zoned(TimeZone::UTC).date();
    let from = today.checked_sub(1.days()).map_err(|_| NoCertificates)?;
    let until = today.checked_add(LIFE_DAYS.days()).map_err(|_| NoCertificates)?;
    let midnight = |date: Date| {
        date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = midnight(from);
    params.not_after = midnight(until);
    Ok(params)
}

fn server_config(leaf: CertificateDer<'static>, leaf_key: &KeyPair) -> Result<ServerConfig, NoCertificates> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
