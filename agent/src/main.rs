//! PID 1 of a Herkos pod VM. See README.md for its stages and limits.

// The standard library would abort before `main` when the kernel could open no console.
#![cfg_attr(not(test), no_main)]

mod boot;
mod console;
mod container;
mod cpu;
mod device;
mod erofs;
mod fault;
mod guest;
mod identity;
mod net;
mod output;
mod pod;
mod port;
mod reaper;
mod server;
mod sync;
mod sys;
mod uevent;

use sys::Sys;

#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(_argc: i32, _argv: *const *const std::ffi::c_char) -> i32 {
    start()
}

#[cfg_attr(test, allow(dead_code))]
fn start() -> i32 {
    if std::env::args().nth(1).as_deref() == Some(container::pidns::ROLE) {
        return container::pidns::run();
    }
    if let Some(code) = boot::modprobe::run_if_asked(&sys::Linux, std::env::args()) {
        return code;
    }
    if std::process::id() != 1 {
        boot::fill_standard_descriptors();
        console::say(format_args!(
            "version {}; I only run as the first process of a guest",
            env!("CARGO_PKG_VERSION")
        ));
        return 2;
    }
    // A closed pipe is an error to handle, not a reason for PID 1 to end.
    // SAFETY: no other thread exists yet and SIG_IGN runs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let linux = sys::Linux;
    let root_stage = std::env::args().any(|argument| argument == boot::ROOT_STAGE);
    let ended = std::panic::catch_unwind(|| {
        if root_stage { boot::root::run() } else { boot::initramfs::run(&sys::Linux) }
    });
    match ended {
        Ok(fault) => console::say(format_args!("{}", fault.message)),
        Err(_) => console::say(format_args!("stopped by a fault of its own")),
    }
    // Without its agent a guest is of no use: the host sees at once that the VM has ended.
    linux.sync();
    console::say(format_args!("power off: {}", linux.power_off()));
    1
}
