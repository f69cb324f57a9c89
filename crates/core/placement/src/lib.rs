//! Scheduling as a function: a snapshot and a pod in, a node or the reasons out.
