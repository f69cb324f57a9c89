//! One file per controller: view, key and now in, a plan out.
