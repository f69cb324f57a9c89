//! Watch, queue, plan, apply: the shells around core/reconcile.
