//! In-memory and remote API clients, shared informers, the keyed work queue and leader leases.
