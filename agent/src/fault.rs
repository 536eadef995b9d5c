//! The agent's one error type, and the only place where it becomes a gRPC status.

use std::fmt::Display;

/// Longest message that is sent to the host.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What went wrong, as the host has to treat it. The classes equal gRPC codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Invalid,
    NotFound,
    Exists,
    /// The container is not in a state that allows this.
    State,
    Exhausted,
    OutOfRange,
    Deadline,
    Aborted,
    Internal,
}

#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    pub message: String,
}

pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Fault { kind, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }
}

/// Says what was being done when the kernel refused.
pub trait Doing<T> {
    fn doing(self, what: impl Display) -> Outcome<T>;
}

impl<T, E: Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Display) -> Outcome<T> {
        self.map_err(|error| Fault::internal(format!("{what}: {error}")))
    }
}

/// Shortens to at most `bytes_max` bytes without splitting a character.
pub fn bounded(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

impl From<Fault> for tonic::Status {
    fn from(fault: Fault) -> Self {
        let code = match fault.kind {
            Kind::Invalid => tonic::Code::InvalidArgument,
            Kind::NotFound => tonic::Code::NotFound,
            Kind::Exists => tonic::Code::AlreadyExists,
            Kind::State => tonic::Code::FailedPrecondition,
            Kind::Exhausted => tonic::Code::ResourceExhausted,
            Kind::OutOfRange => tonic::Code::OutOfRange,
            Kind::Deadline => tonic::Code::DeadlineExceeded,
            Kind::Aborted => tonic::Code::Aborted,
            Kind::Internal => tonic::Code::Internal,
        };
        tonic::Status::new(code, bounded(fault.message, MESSAGE_BYTES_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortens_between_characters() {
        assert_eq!(bounded("aé".to_string(), 2), "a");
        assert_eq!(bounded("aé".to_string(), 3), "aé");
        assert_eq!(bounded(String::new(), 0), "");
    }
}
