//! Signals by name, as `lifecycle.stopSignal` gives them.

use k8s_openapi::api::core::v1::Container;

/// The first real-time signal that programs may use; the C library keeps the two below.
const REAL_TIME_FIRST: u32 = 34;
const REAL_TIME_LAST: u32 = 64;

/// Names and numbers on x86 and ARM.
const SIGNALS: [(&str, u32); 34] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGIOT", 6),
    ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGSTKFLT", 16),
    ("SIGCHLD", 17),
    ("SIGCLD", 17),
    ("SIGCONT", 18),
    ("SIGSTOP", 19),
    ("SIGTSTP", 20),
    ("SIGTTIN", 21),
    ("SIGTTOU", 22),
    ("SIGURG", 23),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGVTALRM", 26),
    ("SIGPROF", 27),
    ("SIGWINCH", 28),
    ("SIGIO", 29),
    ("SIGPOLL", 29),
    ("SIGPWR", 30),
    ("SIGSYS", 31),
];

/// Number of the signal that a container asks to be told to end with; none where its image decides.
pub fn stop_signal(container: &Container) -> Option<u32> {
    number(container.lifecycle.as_ref()?.stop_signal.as_deref()?)
}

fn number(name: &str) -> Option<u32> {
    if let Some(rest) = name.strip_prefix("SIGRTMIN") {
        return offset(rest, '+').map(|n| REAL_TIME_FIRST + n);
    }
    if let Some(rest) = name.strip_prefix("SIGRTMAX") {
        return offset(rest, '-').map(|n| REAL_TIME_LAST - n);
    }
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The distance in `SIGRTMIN+3`, at most half of the real-time signals.
fn offset(rest: &str, sign: char) -> Option<u32> {
    if rest.is_empty() {
        return Some(0);
    }
    rest.strip_prefix(sign)?.parse().ok().filter(|n| (1..=15).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        let table = [
            ("SIGTERM", Some(15)),
            ("SIGUSR1", Some(10)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+15", Some(49)),
            ("SIGRTMAX-14", Some(50)),
            ("SIGRTMAX", Some(64)),
            ("SIGRTMIN+", None),
            ("SIGRTMIN+99", None),
            ("TERM", None),
        ];
        for (name, expected) in table {
            assert_eq!(number(name), expected, "{name}");
        }
    }
}
