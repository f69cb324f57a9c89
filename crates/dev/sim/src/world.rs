//! One history: who acts next is chosen by the dice, and the laws are checked after each step.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use crate::api::Api;
use crate::binder::Binder;
use crate::dice::Dice;
use crate::faults::Faults;
use crate::garbage::Garbage;
use crate::laws::Laws;
use crate::manager::{KINDS, Manager, ROLES};
use crate::nodes::{Luck, Machine};
use crate::scenario::{self, Bounds};

/// Steps with faults, between two times of rest.
const STEPS: usize = 500;
const TOLD_MAX: usize = 60;
const NODES: usize = 4;

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
    pub machines: Vec<Machine>,
    pub laws: Laws,
    /// Nothing but Tug takes pods away: then its own bounds hold at every step.
    pub calm: bool,
    pub bounds: Bounds,
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
    let mut world = World::new(seed);
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

impl World {
    fn new(seed: u64) -> Self {
        let (mut api, mut dice) = (Api::default(), Dice::new(seed));
        let faults = Faults { dice: Dice::new(seed ^ 0xFA17), enabled: false };
        let mut machines = Vec::new();
        for index in 0..NODES {
            machines.push(Machine::new(&format!("n{index}"), "3", &mut api));
        }
        let bounds = scenario::populate(&mut api, &mut dice);
        let (manager, binder) = (Manager::start(&api), Binder::start(&api, seed));
        let calm = seed.is_multiple_of(2);
        Self {
            api,
            dice,
            faults,
            manager,
            garbage: Garbage::default(),
            binder,
            machines,
            laws: Laws::default(),
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
        for step in 0..STEPS {
            let said = if step == STEPS * 3 / 4 { Some(self.delete_doomed()) } else { self.step() };
            self.tell(said)?;
        }
        self.faults.enabled = false;
        self.recover();
        self.settle()?;
        self.laws.all_counted()?;
        self.at_rest()
    }

    /// Takes what happened into the story, and judges it.
    pub fn tell(&mut self, said: Option<String>) -> Result<(), String> {
        self.steps += 1;
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
        let luck = self.luck();
        match self.dice.below(100) {
            0..=39 => self.control(),
            40..=49 => {
                for _ in 0..self.dice.below(6) {
                    self.binder.observe(&self.api);
                }
                self.binder.step(&mut self.api, &mut self.faults)
            }
            50..=54 => {
                for _ in 0..self.dice.below(8) {
                    self.garbage.observe(&self.api);
                }
                self.garbage.step(&mut self.api, &mut self.faults)
            }
            55..=69 => {
                let kind = self.dice.pick(&KINDS).copied().unwrap_or_default();
                for _ in 0..self.dice.below(6) {
                    self.manager.caches.advance(kind, &self.api);
                }
                None
            }
            70..=89 => {
                let index = self.dice.below(self.machines.len());
                self.machines[index].step(&mut self.api, &mut self.dice, luck)
            }
            90 | 91 => {
                let node = format!("n{}", self.dice.below(NODES));
                Some(scenario::act(&mut self.api, &mut self.dice, self.calm, &node))
            }
            92 => Some(scenario::evict(&mut self.api, &mut self.dice)),
            93 => self.restart(),
            94 if !self.calm => self.strike(),
            _ => {
                self.tick(1);
                None
            }
        }
    }

    pub fn tick(&mut self, seconds: i64) {
        self.api.tick(seconds);
        for machine in self.machines.iter_mut().filter(|machine| machine.alive) {
            machine.report(&mut self.api);
        }
        for machine in &self.machines {
            self.manager.signs.insert(machine.name.clone(), machine.sign);
        }
    }

    /// A controller begins a reconcile or makes the next write of the one under way.
    fn control(&mut self) -> Option<String> {
        let role = *self.dice.pick(&ROLES)?;
        if self.manager.is_busy(role) {
            return self.manager.step(role, &mut self.api, &mut self.faults);
        }
        let keys = self.manager.keys(role);
        let key = self.dice.pick(&keys)?;
        self.manager.begin(role, key, &self.api);
        None
    }

    /// A component of the control plane restarts, wherever it was.
    fn restart(&mut self) -> Option<String> {
        let name = match self.dice.below(3) {
            0 => {
                let signs = std::mem::take(&mut self.manager.signs);
                self.manager = Manager::start(&self.api);
                self.manager.signs = signs;
                "the controllers"
            }
            1 => {
                self.binder = Binder::start(&self.api, self.dice.below(1000) as u64);
                "the scheduler"
            }
            _ => {
                self.garbage = Garbage::default();
                "the garbage collector"
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
        self.tick(seconds);
        Some(said)
    }

    fn delete_doomed(&mut self) -> String {
        let propagation = if self.dice.once_in(2) { "Foreground" } else { "Background" };
        let result = self.api.delete("Deployment", "doomed", (None, None), None, propagation);
        format!("User deletes the doomed Deployment, {propagation}: {result:?}")
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
        let object = self.api.get(kind, name);
        object.and_then(|object| object.value.pointer(path)).and_then(Value::as_u64).unwrap_or(0)
    }
}
