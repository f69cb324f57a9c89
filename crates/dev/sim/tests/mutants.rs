//! Each law can fail: a component that does one thing wrong breaks it within a few histories.

use sim::{Mutant, run_with};

/// Histories that a mutant may survive.
const SEEDS_MAX: u64 = 200;

/// Some history of the mutant ends with a failure of this law.
fn breaks(mutant: Mutant, law: &str, first: u64) {
    let failures = (first..first + SEEDS_MAX).filter_map(|seed| run_with(seed, Some(mutant)).err());
    let mut others = Vec::new();
    for failure in failures {
        if failure.why.contains(law) {
            return;
        }
        others.push(failure.why);
    }
    panic!("{mutant:?} does not break {law:?} in {SEEDS_MAX} histories, but {others:#?}");
}

macro_rules! mutants {
    ($($name:ident: $mutant:ident breaks $law:literal $(from $first:literal)?;)*) => {$(
        #[test]
        fn $name() {
            // What takes a rare meeting of chances begins near one that has it.
            breaks(Mutant::$mutant, $law, 0 $(+ $first)?);
        }
    )*};
}

mutants! {
    a_law_fires_when_sets_forget_their_writes: ForgetsItsWrites breaks "of the Deployment, at most";
    a_law_fires_when_daemon_sets_forget_their_writes: ForgetsItsDaemons breaks "two daemons";
    a_law_fires_when_unready_pods_count: BelievesAllAvailable breaks "are available, at least";
    a_law_fires_when_the_server_evicts_anyway: EvictsAnyway breaks "the budget says";
    a_law_fires_when_promised_evictions_are_forgotten: ForgetsPromises breaks "the budget says";
    a_law_fires_when_a_pod_counts_twice: CountsTwice breaks "were recorded";
    a_law_fires_when_pods_are_freed_too_early: FreesBeforeCounting breaks "freed before it was counted";
    a_law_fires_when_nobody_counts: CountsNothing breaks "was not counted";
    a_law_fires_when_failed_indexes_go_on: RetriesFailedIndexes breaks "retries are meant";
    a_law_fires_when_pods_are_deleted_by_force: DeletesByForce breaks "runs on";
    a_law_fires_when_a_pod_is_bound_twice: BindsTwice breaks "was on";
    a_law_fires_when_a_binding_is_only_believed: BelievesInBindings breaks "at rest";
    a_law_fires_when_nodes_look_larger: Overcommits breaks "overcommitted";
    a_law_fires_when_the_important_are_pushed_out: PreemptsAnybody breaks "of the highest priority";
    a_law_fires_when_garbage_stays: LeavesOrphans breaks "orphan";
    a_law_fires_when_something_is_always_written: WritesAlways breaks "spins";
    a_law_fires_when_a_change_wakes_nobody: HearsNoPods breaks "was not woken";
    a_law_fires_when_a_timer_never_ends: NeverRests breaks "never comes to rest";
    a_law_fires_when_a_cron_job_starts_a_second: StartsAnyway breaks "run at once";
    a_law_fires_when_a_lost_binding_is_not_looked_for: LosesBindings breaks "overcommitted";
    a_law_fires_when_the_scheduler_trusts_a_stale_cache: ForgetsItsBindings breaks "overcommitted";
    a_law_fires_when_a_charge_is_too_small: ChargesNoCpu breaks "above the quota";
    a_law_fires_when_a_quota_overlooks_a_pod: CountsFewer breaks "of pods at rest";
    a_law_fires_when_a_quota_is_counted_in_a_stale_cache: CountsStale breaks "above the quota" from 840;
    a_law_fires_when_a_namespace_forgets_a_kind: ForgetsAKind breaks "left of a deleted namespace";
    a_law_fires_when_a_namespace_goes_too_soon: FinalizesAtOnce breaks "never comes to rest";
    a_law_fires_when_an_autoscaler_knows_no_most: IgnoresMax breaks "are meant";
    a_law_fires_when_an_autoscaler_forgets_its_steps: ForgetsItsSteps breaks "in one period";
}
