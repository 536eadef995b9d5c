//! What the daemon asks the host's kernel for and Node cannot: a jail for a hypervisor, a network namespace
//! with a tap, memory that nobody can write any more, programs without a copy of its page tables. Only the daemon
//! calls it; arguments are its own, yet checked.

mod holes;
mod jail;
mod memory;
mod netns;
mod options;
mod rights;
mod starter;
mod trouble;

use std::io::{self, Write};
use std::process::ExitCode;

use options::Command;
use trouble::Outcome;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            // Nobody may be listening any more.
            let _ = writeln!(io::stderr(), "herkos-host: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    match Command::read(std::env::args_os().skip(1).collect())? {
        Command::Jail(jail) => match jail.enter()? {},
        Command::Memory(memory) => memory.hold(),
        Command::Netns(netns) => netns.make(),
        Command::Starter { lock } => starter::serve(lock),
    }
}
