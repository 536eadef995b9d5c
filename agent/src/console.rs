//! Lines for the operator on the guest's console. Few: nothing that a container does may fill it.

use std::fmt::Arguments;
use std::io::Write;

pub fn say(line: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "herkos-agent: {line}");
}
