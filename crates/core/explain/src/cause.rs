//! What stands in the way, what shows it, and what would help.

use std::fmt;

use serde::Serialize;

/// One thing that stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// In plain words.
    pub cause: String,
    /// Events, conditions and states that show it, as the cluster words them.
    pub evidence: Vec<String>,
    /// The nearest change that would help.
    pub help: String,
    /// The command that makes the change or shows more, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Cause {
    pub fn new(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self { cause: cause.into(), help: help.into(), ..Self::default() }
    }

    /// Adds what shows it; empty and repeated lines are left out.
    #[must_use]
    pub fn seen(mut self, line: impl Into<String>) -> Self {
        let line = line.into();
        if !line.is_empty() && !self.evidence.contains(&line) {
            self.evidence.push(line);
        }
        self
    }

    #[must_use]
    pub fn seen_all(self, lines: impl IntoIterator<Item = String>) -> Self {
        lines.into_iter().fold(self, Self::seen)
    }

    #[must_use]
    pub fn run(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// The same cause, told of the part it was found in.
    #[must_use]
    pub fn of(mut self, part: &str) -> Self {
        self.cause = format!("{part}: {}", self.cause);
        self
    }
}

/// The answer about one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    /// How it is, in a few words.
    pub state: String,
    /// The true cause first; empty when nothing stands in the way.
    pub causes: Vec<Cause>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.namespace.is_empty() { String::new() } else { format!(" in {}", self.namespace) };
        writeln!(f, "{} {}{place}: {}", self.kind, self.name, self.state)?;
        if self.causes.is_empty() {
            return writeln!(f, "  nothing stands in the way");
        }
        for (index, cause) in self.causes.iter().enumerate() {
            writeln!(f, "{:>3}. {}", index + 1, cause.cause)?;
            for line in &cause.evidence {
                writeln!(f, "     seen: {line}")?;
            }
            writeln!(f, "     help: {}", cause.help)?;
            if let Some(command) = &cause.command {
                writeln!(f, "           {command}")?;
            }
        }
        Ok(())
    }
}
