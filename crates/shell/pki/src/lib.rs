//! The certificate authority, certificates, service account tokens and kubeconfigs.
