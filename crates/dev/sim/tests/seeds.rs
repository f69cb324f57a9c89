//! Histories of a whole cluster, by their seeds.

use std::sync::Mutex;

use jiff::SignedDuration;

/// Seeds of every test run.
const SEEDS: u64 = 300;

/// One seed when `TUG_SIM_SEED` names it.
#[test]
fn laws_hold_in_random_histories() {
    let seeds = match std::env::var("TUG_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    };
    let failures = Mutex::new(Vec::new());
    sim::run_all(seeds, |result| failures.lock().unwrap().extend(result.err()));
    if let Some(failure) = failures.into_inner().unwrap().first() {
        panic!("{failure}");
    }
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in 0..4 {
        let story = || sim::run(seed).map_err(|failure| failure.to_string());
        assert_eq!(story(), story(), "seed {seed}");
    }
}

/// Nothing is written, and only those look again who watch the time itself.
#[test]
fn controllers_at_rest_do_nothing() {
    for seed in 0..4 {
        let rested = sim::rest(seed, SignedDuration::from_hours(3));
        assert_eq!(rested, Ok(()), "seed {seed}");
    }
}

/// The cost of one pod's death grows with the set, and not faster.
#[test]
fn one_death_among_ten_thousand_costs_no_more_for_each() {
    let (small, large) = (sim::death_of_one(1_000), sim::death_of_one(10_000));
    assert!(large < small * 60, "{small:?} of 1,000 pods, {large:?} of 10,000");
}
