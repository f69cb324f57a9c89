//! The Kubernetes API: one request path of small layers over one generic engine.
