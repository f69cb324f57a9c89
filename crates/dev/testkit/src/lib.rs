//! What tests share: an in-process API server, clusters and deadlines.
