//! The certificate authority, certificates, service account tokens, kubeconfigs and the joining of nodes.

pub mod authority;
pub mod bootstrap;
pub mod cluster;
pub mod csr;
pub mod error;
pub mod files;
pub mod inspect;
pub mod issue;
pub mod join;
pub mod jwks;
pub mod kubeconfig;
pub mod tls;
pub mod token;
pub mod tokens;

pub use authority::Authority;
pub use bootstrap::{BootstrapToken, JoinToken};
pub use cluster::ClusterPki;
pub use csr::{CsrView, new_csr};
pub use error::{PkiError, PkiResult};
pub use inspect::{CertificateView, needs_renewal, spki_hash};
pub use issue::{CertificateRequest, Credential, Usage};
pub use kubeconfig::Kubeconfig;
pub use token::{BoundObject, ServiceAccountClaims, TokenError, TokenSigner};
