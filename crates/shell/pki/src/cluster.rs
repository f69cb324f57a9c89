//! Everything the control plane of one cluster keeps under its `pki` directory.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::issue::{CertificateRequest, Credential};
use crate::{Authority, PkiResult, TokenSigner};

/// Where the control plane is reached: what its serving certificate must name.
#[derive(Clone, Debug)]
pub struct Names {
    /// The first address of the service range: the `kubernetes` service.
    pub service_ip: IpAddr,
    /// `cluster.local` unless configured.
    pub cluster_domain: String,
    pub ips: Vec<IpAddr>,
    pub dns_names: Vec<String>,
}

/// The authorities, keys and the API server's own credentials.
#[derive(Debug)]
pub struct ClusterPki {
    folder: PathBuf,
    pub ca: Authority,
    pub front_proxy_ca: Authority,
    pub tokens: TokenSigner,
    pub serving: Credential,
    pub kubelet_client: Credential,
    pub front_proxy_client: Credential,
}

impl ClusterPki {
    /// Loads what is there, makes what is missing, renews what is due. Idempotent.
    pub fn load_or_create(folder: &Path, names: &Names, now: i64) -> PkiResult<Self> {
        let ca = Authority::load_or_create(folder, "ca", "kubernetes", now)?;
        let front_proxy_ca = Authority::load_or_create(folder, "front-proxy-ca", "front-proxy-ca", now)?;
        let issuer = format!("https://kubernetes.default.svc.{}", names.cluster_domain);
        let tokens = TokenSigner::load_or_create(folder, &issuer)?;
        let serving =
            CertificateRequest::apiserver(names.service_ip, &names.cluster_domain, &names.ips, &names.dns_names);
        let kubelet_client = CertificateRequest::apiserver_kubelet_client();
        Ok(Self {
            serving: ca.load_or_issue(folder, "apiserver", &serving, now)?,
            kubelet_client: ca.load_or_issue(folder, "apiserver-kubelet-client", &kubelet_client, now)?,
            front_proxy_client: front_proxy_ca.load_or_issue(
                folder,
                "front-proxy-client",
                &CertificateRequest::front_proxy_client(),
                now,
            )?,
            folder: folder.to_owned(),
            ca,
            front_proxy_ca,
            tokens,
        })
    }

    /// A client credential kept as `NAME.crt` and `NAME.key`.
    pub fn client(&self, name: &str, request: &CertificateRequest, now: i64) -> PkiResult<Credential> {
        self.ca.load_or_issue(&self.folder, name, request, now)
    }

    /// The administrator's credential.
    pub fn admin(&self, now: i64) -> PkiResult<Credential> {
        self.client("admin", &CertificateRequest::admin(), now)
    }
}
