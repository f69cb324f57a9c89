//! What goes wrong between a component and the API server.

use crate::api::{Api, Fault};
use crate::dice::Dice;

/// One write in so many is refused without a cause of its own.
const REFUSED_IN: usize = 24;
/// One write in so many happens, and its answer is lost.
const LOST_IN: usize = 24;

/// In one write in so many the API server stops after it charged a quota.
const STOPPED_IN: usize = 48;

pub struct Faults {
    pub dice: Dice,
    pub enabled: bool,
}

impl Faults {
    pub fn send(&mut self, api: &mut Api, write: impl FnOnce(&mut Api) -> Result<(), Fault>) -> Result<(), Fault> {
        if self.enabled && self.dice.once_in(REFUSED_IN) {
            return Err(Fault::Conflict);
        }
        api.stops = self.enabled && self.dice.once_in(STOPPED_IN);
        let result = write(api);
        api.stops = false;
        if self.enabled && self.dice.once_in(LOST_IN) {
            return Err(Fault::Lost);
        }
        result
    }
}
