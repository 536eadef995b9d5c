//! What the daemon asks the host's kernel for and Node cannot: a jail for a hypervisor, a network namespace
//! with a tap, memory that nobody can write any more. Each call is one short process, or becomes the program
//! that it starts. Only the daemon calls it; arguments are its own, yet checked.

mod jail;
mod memory;
mod netns;
mod options;
mod trouble;

use std::process::ExitCode;

use options::Command;
use trouble::Outcome;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("herkos-host: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    match Command::read(lexopt::Parser::from_env())? {
        Command::Jail(jail) => match jail.enter()? {},
        Command::Memory(memory) => memory.hold(),
        Command::Netns(netns) => netns.make(),
    }
}
