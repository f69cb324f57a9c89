//! How a process ended, in words.

/// What an exit code says, as a continuation of "it ended with exit code N".
pub fn exit_code(code: i64) -> &'static str {
    match code {
        0 => "success",
        1 => "a general error of the program",
        2 => "wrong usage, or an error of the program",
        126 => "the command was found and cannot be executed",
        127 => "the shell did not find the command",
        128 => "the command could not be started",
        129 => "ended by SIGHUP",
        130 => "ended by SIGINT",
        131 => "ended by SIGQUIT",
        132 => "ended by SIGILL: an instruction that this processor does not have",
        134 => "ended by SIGABRT: the program gave up on itself",
        135 => "ended by SIGBUS",
        136 => "ended by SIGFPE: an arithmetic error such as a division by zero",
        137 => "killed by SIGKILL, from outside: out of memory, or slower to end than its grace period",
        139 => "ended by SIGSEGV: it touched memory that is not its own",
        141 => "ended by SIGPIPE",
        143 => "ended by SIGTERM: it was asked to end",
        _ if code > 128 && code < 160 => "ended by a signal",
        _ => "an error of the program",
    }
}

/// What would help against an exit code whose reason is not known better.
pub fn exit_help(code: i64) -> &'static str {
    match code {
        126 => "make the file executable in the image, or name an interpreter in the container's command",
        127 => "correct the container's command, or use an image that holds it",
        132 => "use an image for this machine's processor",
        137 => "see whether its memory limit is too small, or a liveness probe ended it",
        139 => "the program has to be mended, or the image is for another system library or processor",
        143 => "see who asked it to end: a liveness probe, or a change of the pod",
        _ => "read what the container wrote, and mend its command, arguments or configuration",
    }
}
