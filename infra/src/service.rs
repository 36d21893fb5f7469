//! What every service that is a process of its own shares: it is started on ports that others may take first, stopped, killed,
//! frozen, and started again.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    error::ServiceError,
    process::{Process, tail, wait_until},
};

/// A service's process, which may be stopped at the time.
#[derive(Debug)]
pub(crate) struct Service {
    /// What errors call it.
    program: &'static str,
    output: PathBuf,
    /// For starting and for stopping.
    deadline: Duration,
    process: Option<Process>,
}

/// What became of one attempt to start.
pub(crate) enum Attempt {
    Answers(Process),
    PortTaken(ServiceError),
}

impl Attempt {
    /// Attempts to start until ports are not taken: whoever took one in the meantime (a client's connection, mostly) may let go of it.
    pub(crate) fn repeat(
        attempts_max: usize,
        mut attempt: impl FnMut() -> Result<Self, ServiceError>,
    ) -> Result<Process, ServiceError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match attempt()? {
                Self::Answers(process) => return Ok(process),
                Self::PortTaken(error) if attempts == attempts_max => return Err(error),
                Self::PortTaken(_) => {}
            }
        }
    }
}

impl Service {
    /// A service that has not been started.
    pub(crate) fn new(program: &'static str, output: PathBuf, deadline: Duration) -> Self {
        Self { program, output, deadline, process: None }
    }

    /// The file that its whole output goes to.
    pub(crate) fn output(&self) -> &Path {
        &self.output
    }

    /// It runs from now on as this process; the one that it ran as is killed.
    pub(crate) fn runs_as(&mut self, process: Process) {
        self.process = Some(process);
    }

    /// Starts a command, and waits until the process with the id that `answers` is given answers, or has ended.
    pub(crate) fn attempt(&self, command: Command, mut answers: impl FnMut(u32) -> bool) -> Result<Attempt, ServiceError> {
        let mut process = Process::start(command, &self.output)?;
        let answer = wait_until(self.deadline, || match process.ended()? {
            Some(_) => Ok(Some(false)),
            None => Ok(answers(process.id()).then_some(true)),
        })?;
        match answer {
            Some(true) => Ok(Attempt::Answers(process)),
            Some(false) => {
                let output = tail(&self.output);
                let taken = output.contains("in use");
                let error = ServiceError::Ended { program: self.program.to_owned(), output };
                if taken { Ok(Attempt::PortTaken(error)) } else { Err(error) }
            }
            None => Err(self.late("answer")),
        }
    }

    /// Ends it in an orderly way (SIGTERM).
    pub(crate) fn stop(&mut self) -> Result<(), ServiceError> {
        let mut process = self.process.take().ok_or_else(|| self.not_running())?;
        process.signal("TERM")?;
        wait_until(self.deadline, || process.ended())?.ok_or_else(|| self.late("end")).map(drop)
    }

    /// Ends it at once (SIGKILL).
    pub(crate) fn kill(&mut self) -> Result<(), ServiceError> {
        self.process.take().ok_or_else(|| self.not_running())?.kill()
    }

    /// Freezes it (SIGSTOP), and waits until the kernel has.
    pub(crate) fn pause(&mut self) -> Result<(), ServiceError> {
        let process = self.process.as_ref().ok_or_else(|| self.not_running())?;
        process.signal("STOP")?;
        wait_until(self.deadline, || Ok(process.is_stopped().then_some(())))?.ok_or_else(|| self.late("stop"))
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn resume(&mut self) -> Result<(), ServiceError> {
        self.process.as_ref().ok_or_else(|| self.not_running())?.signal("CONT")
    }

    /// Ends it at once if it runs.
    pub(crate) fn make_way(&mut self) {
        self.process = None;
    }

    /// Whether it runs and is not frozen.
    pub(crate) fn goes_on(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.is_stopped())
    }

    fn late(&self, what: &str) -> ServiceError {
        let output = tail(&self.output);
        ServiceError::Deadline { program: self.program.to_owned(), what: what.to_owned(), waited: self.deadline, output }
    }

    fn not_running(&self) -> ServiceError {
        ServiceError::NotRunning { program: self.program.to_owned() }
    }
}
