//! How a command ends when it does not end well.

/// Why, and with it the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon refused.
    #[error("Error response from daemon: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The daemon's words.
        message: String,
    },
    /// Nobody answers.
    #[error("Cannot connect to the Sluice daemon at {address}. Is sluiced running? ({why})")]
    Unreachable {
        /// Where.
        address: String,
        /// The system's words.
        why: String,
    },
    /// The conversation broke off.
    #[error("error during connect: {0}")]
    Broken(String),
    /// Asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// All is said; end with this code.
    #[error("exit code {0}")]
    Code(i32),
    /// A failure of `run` and its kin before the container's own code counts.
    #[error("{0}")]
    BeforeStart(Box<Failure>),
}

impl Failure {
    /// Docker's exit codes: 125 the daemon, 126 a command that cannot be invoked, 127 one that is not there; 1 for all else.
    pub fn code(&self) -> i32 {
        match self {
            Self::Code(code) => *code,
            Self::BeforeStart(why) => match &**why {
                Self::Code(code) => *code,
                Self::Refused { message, .. } => code_of_start(message),
                _ => 125,
            },
            _ => 1,
        }
    }

    /// No such container, image…
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// What the words of a failed start mean, as the docker client reads them.
fn code_of_start(message: &str) -> i32 {
    let message = message.to_lowercase();
    let is_about_the_command = message.contains("exec") || message.contains("starting container process");
    if message.contains("executable file not found")
        || message.contains("no such file or directory") && is_about_the_command
    {
        127
    } else if is_about_the_command && (message.contains("permission denied") || message.contains("is a directory")) {
        126
    } else {
        125
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(message: &str) -> i32 {
        Failure::BeforeStart(Box::new(Failure::Refused {
            status: 400,
            message: message.into(),
        }))
        .code()
    }

    #[test]
    fn codes_are_those_of_docker() {
        assert_eq!(code("exec: \"nope\": executable file not found in $PATH"), 127);
        assert_eq!(code("exec: \"/nope\": stat /nope: no such file or directory"), 127);
        assert_eq!(code("exec: \"/etc/passwd\": permission denied"), 126);
        assert_eq!(code("port is already allocated"), 125);
        assert_eq!(code("cannot mount /x: permission denied"), 125);
        assert_eq!(Failure::Code(7).code(), 7);
        assert_eq!(Failure::Usage("x".into()).code(), 1);
    }
}
