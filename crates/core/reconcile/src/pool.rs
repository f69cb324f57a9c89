//! Equal values kept once, for as long as somebody uses them.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Values below which nobody looks for unused ones.
const SWEEP_MIN: usize = 64;

/// What is shared; unused values stay until the next sweep, so that at most half of it, and a few, are unused.
pub(crate) struct Pool<T> {
    values: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), sweep_at: SWEEP_MIN }
    }
}

impl<T: Eq + Hash> Pool<T> {
    /// The one copy of this value.
    pub(crate) fn share(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.values.get(&value) {
            return known.clone();
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = SWEEP_MIN.max(2 * self.values.len());
        }
        let value = Arc::new(value);
        self.values.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_go() {
        let mut pool = Pool::default();
        let kept = pool.share("kept".to_owned());
        assert!(Arc::ptr_eq(&kept, &pool.share("kept".to_owned())));
        for number in 0..10 * SWEEP_MIN {
            pool.share(number.to_string());
        }
        assert!(pool.values.len() <= SWEEP_MIN + 1);
        assert!(Arc::ptr_eq(&kept, &pool.share("kept".to_owned())));
    }
}
