//! Errors as the daemon's log shows them: what was tried, and what the kernel said.

use std::fmt;
use std::io;

#[derive(Debug)]
pub struct Trouble(String);

pub type Outcome<T> = Result<T, Trouble>;

impl Trouble {
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Says what was tried when it failed.
pub trait Told<T> {
    fn told(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Into<io::Error>> Told<T> for Result<T, E> {
    fn told(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Trouble(format!("cannot {}: {}", what(), error.into())))
    }
}
