//! Histories of a whole cluster, by their seeds.

/// Seeds of every test run.
const SEEDS: u64 = 24;
/// Seeds of the long run.
const LONG_SEEDS: u64 = 10_000;

fn check(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        if let Err(failure) = sim::run(seed) {
            panic!("{failure}");
        }
    }
}

/// One seed when `TUG_SIM_SEED` names it.
#[test]
fn laws_hold_in_random_histories() {
    match std::env::var("TUG_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => check(std::iter::once(seed)),
        None => check(0..SEEDS),
    }
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in 0..2 {
        let story = || sim::run(seed).map_err(|failure| failure.to_string());
        assert_eq!(story(), story(), "seed {seed}");
    }
}

#[test]
#[ignore = "long: run it optimized, as CONTRIBUTING.md says"]
fn laws_hold_in_many_random_histories() {
    check(0..LONG_SEEDS);
}
