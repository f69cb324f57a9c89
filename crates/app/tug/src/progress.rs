//! What a user sees while work is done: a moving line on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(80);

/// One step at a time; a finished step leaves a line with how long it took.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    step: Option<(String, Instant)>,
}

impl Progress {
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self { bar, started: Instant::now(), step: None }
    }

    /// Begins a step, and ends the one before.
    pub fn step(&mut self, name: &str) {
        self.end_step();
        self.bar.set_message(name.to_owned());
        self.step = Some((name.to_owned(), Instant::now()));
    }

    /// Says more about the current step.
    pub fn detail(&self, text: &str) {
        if let Some((name, _)) = &self.step {
            self.bar.set_message(format!("{name}: {text}"));
        }
    }

    fn end_step(&mut self) {
        if let Some((name, started)) = self.step.take() {
            let line = format!("  {:>6} ms  {name}", started.elapsed().as_millis());
            if self.bar.is_hidden() { eprintln!("{line}") } else { self.bar.println(line) }
        }
    }

    /// Ends the last step; answers how long all took.
    pub fn finish(mut self) -> Duration {
        self.end_step();
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}
