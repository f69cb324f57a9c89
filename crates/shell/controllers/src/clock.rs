//! Tells when somebody sets the machine's clock: what waits for a time of day has to look again at once.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::fd::{AsRawFd, FromRawFd};

use tokio::io::unix::AsyncFd;

/// Seconds since the epoch that no clock reaches: the timer is there only to be cancelled.
const NEVER: libc::time_t = 1 << 40;

/// A kernel timer that is cancelled, and so becomes readable, when the clock is set.
pub(crate) struct ClockChanges(AsyncFd<File>);

impl ClockChanges {
    pub fn new() -> Result<Self> {
        // SAFETY: no pointers are passed; the answer is checked before it is used.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if timer < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: the descriptor is new, open, and nobody else's.
        let timer = unsafe { File::from_raw_fd(timer) };
        arm(&timer)?;
        // SAFETY: the descriptor belongs to the file, which lives and is closed with the registration.
        Ok(Self(unsafe { AsyncFd::register(timer) }?))
    }

    /// Waits until the clock is set.
    pub async fn next(&self) -> Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut expirations = [0_u8; 8];
            match self.0.get_ref().read(&mut expirations) {
                Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                    arm(self.0.get_ref())?;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err(error),
                Ok(_) => arm(self.0.get_ref())?,
            }
        }
    }
}

fn arm(timer: &File) -> Result<()> {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let when = libc::itimerspec { it_interval: zero, it_value: libc::timespec { tv_sec: NEVER, tv_nsec: 0 } };
    let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
    // SAFETY: `when` lives over the call; the old value is not asked for.
    let answer = unsafe { libc::timerfd_settime(timer.as_raw_fd(), flags, &raw const when, std::ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_clock_that_nobody_sets_is_quiet() {
        let changes = ClockChanges::new().unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), changes.next()).await.is_err());
    }
}
