//! Components that do one thing wrong: a law that no mutant breaks proves nothing.

/// What one component of the simulated cluster does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// ReplicaSets are planned without waiting for the caches to show what was written.
    ForgetsItsWrites,
    /// DaemonSets are.
    ForgetsItsDaemons,
    /// Deployments believe that every pod is available.
    BelievesAllAvailable,
    /// The API server evicts also when the budget says no.
    EvictsAnyway,
    /// The budget's controller knows nothing of the evictions that were promised.
    ForgetsPromises,
    /// Each end of a Job's pod that is counted counts for one more.
    CountsTwice,
    /// Jobs' pods are freed before they are recorded.
    FreesBeforeCounting,
    /// Jobs are not counted at all.
    CountsNothing,
    /// Indexes that failed often enough are tried again.
    RetriesFailedIndexes,
    /// Pods of silent nodes and of StatefulSets are deleted by force.
    DeletesByForce,
    /// The API server binds a pod that has a node, and the scheduler tries again what succeeded.
    BindsTwice,
    /// The scheduler takes a binding that was refused for one that happened.
    BelievesInBindings,
    /// The scheduler takes nodes for ten times as large as they are.
    Overcommits,
    /// Victims are taken whatever their priority.
    PreemptsAnybody,
    /// Nobody collects garbage.
    LeavesOrphans,
    /// A Deployment is written at each reconcile.
    WritesAlways,
    /// A ReplicaSet is not woken by its pods.
    HearsNoPods,
    /// A reconcile asks to be called again although nothing is left to do.
    NeverRests,
    /// A CronJob starts a Job for each time that was missed, whatever is running.
    StartsAnyway,
    /// The API server answers with an error to every other binding that it stored, and the scheduler believes it.
    LosesBindings,
    /// The scheduler knows of its bindings only what its cache shows.
    ForgetsItsBindings,
    /// The API server charges quotas for no CPU.
    ChargesNoCpu,
    /// The quota's controller overlooks a pod.
    CountsFewer,
    /// The quota's controller counts in caches that do not show yet what was charged.
    CountsStale,
    /// The namespace's controller knows nothing of disruption budgets.
    ForgetsAKind,
    /// The namespace's controller does not wait for what is on its way.
    FinalizesAtOnce,
    /// The autoscaler knows no most replicas.
    IgnoresMax,
    /// The autoscaler remembers none of its steps.
    ForgetsItsSteps,
}
