//! How a command fails: what happened, whose fault it is, what to do, and the exit code.

use std::error::Error;
use std::fmt::Write as _;

use protocol::{ErrorCode, Fault};
use sdk::Explain;
use serde_json::{Value, json};

use crate::profile::ProfileError;

/// Exit codes: stable, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// The command line or the profile is wrong.
    Usage = 1,
    /// A file or a request of the caller's is wrong.
    Caller = 2,
    /// Not granted, or a service was not accepted.
    Denied = 3,
    /// Something out there failed.
    Service = 4,
}

impl Exit {
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Fault> for Exit {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Caller => Self::Caller,
            Fault::Denied => Self::Denied,
            Fault::Service => Self::Service,
        }
    }
}

/// A failed command.
#[derive(Debug, Clone)]
pub struct Failure {
    pub exit: Exit,
    pub code: ErrorCode,
    pub retryable: bool,
    /// The whole chain of causes, `a: b: c`.
    pub message: String,
    pub advice: String,
}

impl<E: Explain> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::describe(&error)
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        Self::usage(&error, error.advice())
    }
}

impl Failure {
    /// What follows from an error of the client.
    pub fn describe(error: &impl Explain) -> Self {
        Self {
            exit: error.fault().into(),
            code: error.code(),
            retryable: error.retryable(),
            message: chain(error),
            advice: error.advice(),
        }
    }

    /// The command line or the profile is wrong.
    pub fn usage(error: &dyn Error, advice: String) -> Self {
        Self {
            exit: Exit::Usage,
            code: ErrorCode::InvalidRequest,
            retryable: false,
            message: chain(error),
            advice,
        }
    }

    fn fault_name(&self) -> &'static str {
        match self.exit {
            Exit::Ok => "nobody",
            Exit::Usage => "usage",
            Exit::Caller => "caller",
            Exit::Denied => "denied",
            Exit::Service => "service",
        }
    }

    /// For people, on stderr.
    #[must_use]
    pub fn text(&self) -> String {
        let fault = match self.exit {
            Exit::Ok => "nobody's fault",
            Exit::Usage => "the command line or the profile is wrong",
            Exit::Caller => "what was sent or named is wrong",
            Exit::Denied => "access was denied, or a service was not accepted",
            Exit::Service if self.retryable => "the service failed; a retry may succeed",
            Exit::Service => "the service failed",
        };
        format!(
            "error: {}\n  why:        {fault} ({}, exit code {})\n  what to do: {}\n",
            self.message,
            self.code,
            self.exit.code(),
            self.advice
        )
    }

    /// For programs, on stderr.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "error": {
            "code": self.code,
            "fault": self.fault_name(),
            "retryable": self.retryable,
            "message": self.message,
            "advice": self.advice,
            "exit": self.exit.code(),
        }})
    }
}

/// The error and its causes, `a: b: c`; a cause that only repeats the line before is left out.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut source = error.source();
    while let Some(cause) = source {
        let line = cause.to_string();
        if line != last && !line.is_empty() {
            let _written = write!(text, ": {}", line.trim_end());
            last = line;
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::InputError;

    #[test]
    fn faults_have_their_exit_codes() {
        for code in ErrorCode::ALL {
            let exit = Exit::from(code.fault());
            assert!(exit != Exit::Ok && exit != Exit::Usage, "{code}");
        }
        let usage = Failure::from(ProfileError::NoIdentity);
        assert_eq!((usage.exit, usage.fault_name()), (Exit::Usage, "usage"));
        let caller = Failure::from(InputError::Twice("x".into()));
        assert_eq!((caller.exit, caller.fault_name()), (Exit::Caller, "caller"));
        assert_eq!(caller.json()["error"]["exit"], 2);
        assert_eq!(caller.json()["error"]["code"], "invalid_tensor");
    }

    #[test]
    fn the_chain_has_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Level(&'static str, #[source] Option<Box<Level>>);
        let inner = Level("broken", Some(Box::new(Level("broken", None))));
        let error = Level("reading", Some(Box::new(inner)));
        assert_eq!(chain(&error), "reading: broken");
    }
}
