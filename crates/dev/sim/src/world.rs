//! One history: who acts next is chosen by the dice, and the laws are checked after each step.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;

use jiff::SignedDuration;

use crate::api::{Api, NAMESPACE};
use crate::autoscaler::Autoscaler;
use crate::binder::Binder;
use crate::dice::Dice;
use crate::faults::Faults;
use crate::features::{Features, create_slowly, some_load};
use crate::garbage::Garbage;
use crate::laws::Laws;
use crate::manager::Manager;
use crate::mutants::Mutant;
use crate::nodes::{Luck, Machine};
use crate::roles::{KINDS, ROLES, Role};
use crate::scale_laws::Pace;
use crate::scenario::{self, Bounds};

/// Steps with faults, between two times of rest.
const STEPS: usize = 500;
const TOLD_MAX: usize = 200;
const NODES: usize = 4;
/// What passes from one step to the next.
const STEP: SignedDuration = SignedDuration::from_millis(20);
/// Some histories have more pods than room.
const CROWDED_IN: u64 = 3;
/// By how much a clock goes back at most.
const CLOCK_BACK_MAX: SignedDuration = SignedDuration::from_mins(10);

/// A history that broke a law.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    pub why: String,
    /// The last things that happened, oldest first.
    pub told: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.told.join("\n"))?;
        writeln!(out, "seed {}: {}", self.seed, self.why)?;
        write!(out, "replay it: TUG_SIM_SEED={} cargo test -p sim", self.seed)
    }
}

/// What a history came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub steps: usize,
    pub writes: usize,
    /// Of all that happened: equal histories have equal digests.
    pub digest: u64,
}

pub(crate) struct World {
    pub api: Api,
    pub dice: Dice,
    pub faults: Faults,
    pub manager: Manager,
    pub garbage: Garbage,
    pub binder: Binder,
    pub autoscaler: Autoscaler,
    pub machines: Vec<Machine>,
    pub laws: Laws,
    pace: Pace,
    features: Features,
    /// Nothing but Tug takes pods away: then its own bounds hold at every step.
    pub calm: bool,
    pub bounds: Bounds,
    /// How far ahead the clocks ever were.
    clock_max: SignedDuration,
    /// Whether the bounds hold by now.
    pub rested: bool,
    told: VecDeque<String>,
    digest: u64,
    steps: usize,
}

/// Lives through the history of a seed.
///
/// # Errors
/// The first law that was broken, with what led to it.
pub fn run(seed: u64) -> Result<Summary, Box<Failure>> {
    run_with(seed, None)
}

/// As [`run`], with one component that does something wrong.
///
/// # Errors
/// The first law that was broken: what a mutant is for.
pub fn run_with(seed: u64, mutant: Option<Mutant>) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(seed, mutant);
    let result = catch_unwind(AssertUnwindSafe(|| world.live()));
    let why = match result {
        Ok(Ok(())) => {
            let (steps, writes, digest) = (world.steps, world.api.revision(), world.digest);
            return Ok(Summary { steps, writes, digest });
        }
        Ok(Err(why)) => why,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    Err(Box::new(Failure { seed, why, told: world.told.into() }))
}

/// Lives through the histories of many seeds, as many at a time as the machine has processors; tells of each as it ends.
pub fn run_all(seeds: Range<u64>, told: impl Fn(Result<Summary, Box<Failure>>) + Sync) {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            told(run(seed));
        }
    };
    let threads = available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
}

/// Settles the cluster of a seed without faults, then lets time pass.
///
/// # Errors
/// What broke a law, or what was written or worked on at rest.
pub fn rest(seed: u64, time: SignedDuration) -> Result<(), String> {
    let mut world = World::new(seed, None);
    world.settle()?;
    scenario::begin_work(&mut world.api);
    world.cron_jobs_go_on()?;
    scenario::suspend_cron_jobs(&mut world.api, true);
    world.settle()?;
    world.at_rest()?;
    world.rest(time)
}

impl World {
    pub fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let (mut api, mut dice) = (Api::default(), Dice::new(seed));
        api.mutant = mutant;
        crate::namespace::create(&mut api);
        let faults = Faults { dice: Dice::new(seed ^ 0xFA17), enabled: false };
        let mut machines = Vec::new();
        for index in 0..NODES {
            machines.push(Machine::new(&format!("n{index}"), "3", &mut api));
        }
        let features = Features::of(seed, STEPS);
        features.populate(&mut api, &mut dice);
        let bounds = scenario::populate(&mut api, &mut dice);
        let calm = seed.is_multiple_of(2);
        if seed.is_multiple_of(CROWDED_IN) {
            scenario::crowd(&mut api, !calm);
        }
        let (manager, binder) = (Manager::start(&api), Binder::start(&api, seed));
        let autoscaler = Autoscaler::start(&api, some_load(&mut dice));
        Self {
            api,
            dice,
            faults,
            manager,
            garbage: Garbage::default(),
            clock_max: SignedDuration::ZERO,
            binder,
            autoscaler,
            machines,
            laws: Laws::default(),
            pace: Pace::default(),
            features,
            calm,
            bounds,
            rested: false,
            told: VecDeque::new(),
            digest: 0xCBF2_9CE4_8422_2325,
            steps: 0,
        }
    }

    fn live(&mut self) -> Result<(), String> {
        self.settle()?;
        self.rested = true;
        self.faults.enabled = true;
        scenario::begin_work(&mut self.api);
        for step in 0..STEPS {
            let said = match step {
                _ if self.features.namespace_ends == Some(step) => Some(self.delete_namespace()),
                _ if step == STEPS * 3 / 4 => Some(self.delete_doomed()),
                _ => self.step(),
            };
            self.tell(said)?;
        }
        self.faults.enabled = false;
        self.recover();
        if self.features.namespace_ends.is_none() {
            self.cron_jobs_go_on()?;
            scenario::suspend_cron_jobs(&mut self.api, true);
        }
        self.settle()?;
        self.laws.all_counted()?;
        if self.features.namespace_ends.is_none() {
            return self.at_rest();
        }
        self.is_empty()?;
        self.end_namespace_again()
    }

    /// Takes what happened into the story, and judges it.
    pub fn tell(&mut self, said: Option<String>) -> Result<(), String> {
        self.steps += 1;
        if let Some(made) = self.autoscaler.take_move() {
            self.pace.judge(made, &self.api)?;
        }
        if let Some(said) = said {
            let line = format!("{} {} {said}", self.api.now.as_second() - 1_000_000, self.api.revision());
            for byte in line.bytes() {
                self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
            }
            self.told.push_back(line);
            if self.told.len() > TOLD_MAX {
                self.told.pop_front();
            }
        }
        let bounds = (self.calm && self.rested).then_some(&self.bounds);
        self.laws.check(&self.api, &self.machines, bounds)
    }

    pub fn luck(&self) -> Luck {
        Luck {
            failures: if self.faults.enabled { 4 } else { usize::MAX },
            accidents: self.faults.enabled && !self.calm,
        }
    }

    fn step(&mut self) -> Option<String> {
        self.api.pass(STEP);
        self.manager.tick(self.api.now);
        let luck = self.luck();
        match self.dice.below(100) {
            0..=39 => self.control(),
            40..=48 => {
                for _ in 0..self.dice.below(6) {
                    self.binder.observe(&self.api);
                }
                self.binder.step(&mut self.api, &mut self.faults)
            }
            49..=53 => {
                for _ in 0..self.dice.below(8) {
                    self.garbage.observe(&self.api);
                }
                self.garbage.step(&mut self.api, &mut self.faults)
            }
            54..=67 => {
                let kind = self.dice.pick(&KINDS).copied().unwrap_or_default();
                for _ in 0..self.dice.below(6) {
                    self.manager.see(kind, &self.api);
                }
                None
            }
            68..=86 => {
                let index = self.dice.below(self.machines.len());
                self.machines[index].step(&mut self.api, &mut self.dice, luck)
            }
            87 | 88 => {
                let node = format!("n{}", self.dice.below(NODES));
                Some(scenario::act(&mut self.api, &mut self.dice, self.calm, &node))
            }
            89..=91 => Some(scenario::evict(&mut self.api, &mut self.dice)),
            92 => self.restart(),
            93 | 94 if !self.calm => self.strike(),
            95 if self.dice.once_in(2) => Some(self.set_clock()),
            96 | 97 if self.features.any() => {
                Some(self.features.act(&mut self.api, &mut self.dice, &mut self.autoscaler.load))
            }
            98 if self.features.autoscaler => {
                if self.dice.once_in(2) {
                    self.autoscaler.see(&self.api);
                }
                self.autoscaler.step(&mut self.api, &mut self.faults)
            }
            _ => {
                self.pass(SignedDuration::from_secs(1));
                None
            }
        }
    }

    /// Time passes; nodes that are alive say so.
    pub fn pass(&mut self, time: SignedDuration) {
        self.api.pass(time);
        for machine in self.machines.iter_mut().filter(|machine| machine.alive) {
            machine.report(&mut self.api);
            self.manager.hear(&machine.name, self.api.now);
        }
        self.manager.tick(self.api.now);
    }

    /// Somebody sets the clocks: forward by up to days, back by minutes.
    fn set_clock(&mut self) -> String {
        let minutes = [-4, 3, 75, 26 * 60][self.dice.below(4)];
        let skew = self.api.skew + SignedDuration::from_mins(minutes);
        // Budgets wait for promised disruptions by the clock: in calm histories it goes evenly.
        let ends = self.api.get("Namespace", NAMESPACE).is_none_or(|namespace| namespace.is_deleting());
        if !ends && !self.calm && (minutes > 0 || skew > self.clock_max - CLOCK_BACK_MAX) {
            self.api.skew = skew;
            self.clock_max = skew.max(self.clock_max);
            self.manager.clock_was_set();
            self.pace.forget();
        }
        format!("The clocks are set by {minutes} minutes")
    }

    /// A controller begins a reconcile or makes the next write of the one under way.
    fn control(&mut self) -> Option<String> {
        let may = |role: &Role| self.manager.is_busy(*role) || self.manager.due(*role) > 0;
        let able: Vec<Role> = ROLES.into_iter().filter(may).collect();
        let role = *self.dice.pick(&able)?;
        if self.manager.is_busy(role) {
            return self.manager.step(role, &mut self.api, &mut self.faults);
        }
        let choice = self.dice.below(self.manager.due(role));
        self.manager.begin(role, choice, &self.api);
        None
    }

    /// A component of the control plane restarts, wherever it was.
    fn restart(&mut self) -> Option<String> {
        let name = match self.dice.below(3 + usize::from(self.features.autoscaler)) {
            0 => {
                self.manager = Manager::start(&self.api);
                "the controllers"
            }
            1 => {
                self.binder = Binder::start(&self.api, self.dice.below(1000) as u64);
                "the scheduler"
            }
            2 => {
                self.garbage = Garbage::start(&self.api);
                "the garbage collector"
            }
            _ => {
                self.autoscaler = Autoscaler::start(&self.api, self.autoscaler.load);
                self.pace.forget();
                "the autoscaler"
            }
        };
        Some(format!("Restart of {name}"))
    }

    /// Something happens to a node: it goes silent, its object is deleted, or it returns; time passes meanwhile.
    fn strike(&mut self) -> Option<String> {
        let index = self.dice.below(self.machines.len());
        let lost = self.dice.once_in(2);
        let machine = &mut self.machines[index];
        let name = machine.name.clone();
        let said = if machine.alive {
            machine.alive = false;
            if lost {
                machine.running.clear();
            }
            format!("{name} goes silent, its containers {}", if lost { "end" } else { "run on" })
        } else if self.dice.once_in(3) {
            // Who deletes the object says that nothing runs there any more.
            machine.running.clear();
            format!("{name} is deleted: {:?}", self.api.delete("Node", &name, (None, None), None, ""))
        } else {
            machine.restart(lost, &mut self.api);
            format!("{name} returns")
        };
        let seconds = [1, 10, 45, 80][self.dice.below(4)];
        self.pass(SignedDuration::from_secs(seconds));
        Some(said)
    }

    fn delete_doomed(&mut self) -> String {
        let propagation = if self.dice.once_in(2) { "Foreground" } else { "Background" };
        let result = self.api.delete("Deployment", "doomed", (None, None), None, propagation);
        format!("User deletes the doomed Deployment, {propagation}: {result:?}")
    }

    /// Surge, availability and budgets hold no longer: everything goes.
    fn delete_namespace(&mut self) -> String {
        self.rested = false;
        let result = self.api.delete("Namespace", NAMESPACE, (None, None), None, "");
        format!("User deletes the namespace: {result:?}")
    }

    /// The namespace comes again, and goes while a request is under way that was admitted before.
    fn end_namespace_again(&mut self) -> Result<(), String> {
        crate::namespace::create(&mut self.api);
        let said = create_slowly(&mut self.api, &mut self.dice);
        self.tell(Some(said))?;
        let said = self.delete_namespace();
        self.tell(Some(said))?;
        self.settle()?;
        self.is_empty()
    }

    /// All that was broken is repaired.
    fn recover(&mut self) {
        for index in 0..self.machines.len() {
            if !self.machines[index].alive {
                self.machines[index].restart(true, &mut self.api);
            }
        }
        let names: Vec<String> = self.machines.iter().map(|machine| machine.name.clone()).collect();
        scenario::calm_down(&mut self.api, &names);
    }

    pub fn number(&self, kind: &'static str, name: &str, path: &str) -> u64 {
        self.api.get(kind, name).map_or(0, |object| object.number(path))
    }
}
