//! Certificates by purpose: who they name, what they may be used for, how long they live.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};

use crate::{PkiError, PkiResult};

pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// Leaf certificates live one year, as kubeadm's do; they are renewed at four fifths of it.
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates start a little in the past, so that machines with clocks slightly behind accept them.
pub const CLOCK_SKEW_MAX_SECONDS: i64 = 300;

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
    /// Kubelets serve and call with one certificate where a single one is enough.
    ClientAndServer,
}

/// A certificate to be issued for a fresh key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The user's name, for client certificates.
    pub common_name: String,
    /// The user's group, for client certificates. One at most: the encoder writes no repeated attributes.
    pub organization: Option<String>,
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub usage: Usage,
    pub life: Duration,
}

impl CertificateRequest {
    /// A client certificate: the common name is the user, the organization the group.
    pub fn client(user: &str, group: Option<&str>) -> Self {
        Self {
            common_name: user.to_owned(),
            organization: group.map(str::to_owned),
            dns_names: Vec::new(),
            ips: Vec::new(),
            usage: Usage::Client,
            life: LEAF_LIFE,
        }
    }

    /// The cluster's administrator; `system:masters` passes every authorization check.
    pub fn admin() -> Self {
        Self::client("kubernetes-admin", Some("system:masters"))
    }

    pub fn controller_manager() -> Self {
        Self::client("system:kube-controller-manager", None)
    }

    pub fn scheduler() -> Self {
        Self::client("system:kube-scheduler", None)
    }

    pub fn kubelet(node: &str) -> Self {
        Self::client(&format!("system:node:{node}"), Some("system:nodes"))
    }

    pub fn kube_proxy() -> Self {
        Self::client("system:kube-proxy", None)
    }

    /// What the API server shows to kubelets.
    pub fn apiserver_kubelet_client() -> Self {
        Self::client("kube-apiserver-kubelet-client", Some("system:masters"))
    }

    /// What the API server shows to aggregated API servers; signed by the front-proxy CA.
    pub fn front_proxy_client() -> Self {
        Self::client("front-proxy-client", None)
    }

    /// A serving certificate for the given names and addresses.
    pub fn serving(common_name: &str, dns_names: Vec<String>, ips: Vec<IpAddr>) -> Self {
        let mut request = Self::client(common_name, None);
        (request.dns_names, request.ips, request.usage) = (dns_names, ips, Usage::Server);
        request
    }

    /// The API server's serving certificate: the names pods use, localhost, the first service address, and `more`.
    pub fn apiserver(service_ip: IpAddr, cluster_domain: &str, ips: &[IpAddr], dns_names: &[String]) -> Self {
        let mut names: Vec<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(str::to_owned).into();
        names.push(format!("kubernetes.default.svc.{cluster_domain}"));
        names.extend(dns_names.iter().cloned());
        let mut all: Vec<IpAddr> =
            vec![service_ip, IpAddr::from([127, 0, 0, 1]), IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1])];
        all.extend(ips);
        names.sort();
        names.dedup();
        all.sort();
        all.dedup();
        Self::serving("kube-apiserver", names, all)
    }

    /// A kubelet's serving certificate: what the API server dials for logs and exec.
    pub fn kubelet_serving(node: &str, ips: Vec<IpAddr>) -> Self {
        let mut request = Self::serving(&format!("system:node:{node}"), vec![node.to_owned()], ips);
        request.organization = Some("system:nodes".to_owned());
        request
    }

    /// The encoder's parameters, valid from just before `now` (seconds since the epoch).
    pub(crate) fn params(&self, now: i64) -> PkiResult<CertificateParams> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&self.common_name, self.organization.as_deref());
        params.is_ca = IsCa::ExplicitNoCa;
        for name in &self.dns_names {
            let name = name.as_str().try_into().map_err(|e| PkiError::crypto(&format!("use the name {name:?}"), e))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(self.ips.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match self.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::ClientAndServer => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        set_validity(&mut params, now, self.life);
        Ok(params)
    }
}

pub(crate) fn distinguished_name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// Sets the validity and a random serial number, and asks for the authority's key identifier.
pub(crate) fn set_validity(params: &mut CertificateParams, now: i64, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let seconds = |at: i64| Duration::from_secs(u64::try_from(at).unwrap_or_default());
    params.not_before = epoch + seconds(now.saturating_sub(CLOCK_SKEW_MAX_SECONDS));
    params.not_after = epoch + seconds(now) + life;
    // The top bit stays clear: serial numbers are positive (RFC 5280, 4.1.2.2).
    params.serial_number = Some(SerialNumber::from(rand::random::<u64>() >> 1 | 1));
    params.use_authority_key_identifier_extension = true;
}

/// A certificate (with its issuer behind it where peers need the chain) and its private key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// A fresh ECDSA P-256 key.
pub(crate) fn new_key() -> PkiResult<KeyPair> {
    KeyPair::generate().map_err(|e| PkiError::crypto("generate a key", e))
}
