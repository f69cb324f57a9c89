//! The pause program: holds a pod's namespaces, reaps its orphans and ends when told to.
//!
//! It runs in every pod, so it is as small as a program can be: no standard library, no allocation, three system calls
//! in a loop. Signals are blocked and waited for, which also works for process 1 of a PID namespace, where the kernel
//! drops unblocked signals that have no handler.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

const SYS_RT_SIGPROCMASK: usize = 14;
const SYS_EXIT: usize = 60;
const SYS_WAIT4: usize = 61;
const SYS_RT_SIGTIMEDWAIT: usize = 128;

const SIGINT: isize = 2;
const SIGTERM: isize = 15;
const SIGCHLD: isize = 17;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
const SIGSET_BYTES: usize = 8;

// The kernel enters with an unaligned stack pointer by the C ABI's rules; align it, then call into Rust.
global_asm!(".globl _start", "_start:", "and rsp, -16", "call {main}", main = sym main);

/// # Safety
/// The arguments must be what the system call expects; pointers must be valid for its reads and writes.
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             lateout("rcx") _, lateout("r11") _);
    }
    result
}

extern "C" fn main() -> ! {
    let waited: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
    let set = &raw const waited as usize;
    // SAFETY: `set` points at eight bytes that outlive the loop; null pointers are allowed where they are passed.
    unsafe {
        syscall(SYS_RT_SIGPROCMASK, SIG_BLOCK, set, 0, SIGSET_BYTES);
        loop {
            match syscall(SYS_RT_SIGTIMEDWAIT, set, 0, 0, SIGSET_BYTES) {
                SIGINT | SIGTERM => {
                    syscall(SYS_EXIT, 0, 0, 0, 0);
                }
                SIGCHLD => while syscall(SYS_WAIT4, usize::MAX, 0, WNOHANG, 0) > 0 {},
                _ => {}
            }
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
