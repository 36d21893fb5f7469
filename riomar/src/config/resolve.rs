//! From defaults, a file, the environment and flags to one typed configuration, with the origin of every value and all errors.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use super::{Config, bounds, environment, file, kafka, keys};

/// Where a value comes from, in rising precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A command-line flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it was set; `None` for a file that cannot be read as a whole.
    pub origin: Option<Origin>,
    /// The key, where there is one.
    pub key: Option<String>,
    /// What is wrong, and what to do instead.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// A configuration that was refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// At least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration was refused:")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// The raw texts of everything that sets configuration values, before any of them is understood.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file's path, as it is shown in errors, and its text.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables; those that do not begin with `RIOMAR_` are passed over.
    pub environment: Vec<(String, String)>,
    /// The key, the flag's name and the value of each flag that was given.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

impl Sources {
    /// The process's environment, a file and flags.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn gather(file: Option<&Path>, flags: Vec<(&'static str, &'static str, String)>) -> Result<Self, ConfigError> {
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Ok(text) => Ok((path.to_owned(), text)),
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                Err(ConfigError { faults: vec![Fault { origin: None, key: None, message }] })
            }
        };
        // Variables that are not Unicode cannot be meant for Riomar.
        let environment =
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Ok(Self { file: file.map(read).transpose()?, environment: environment.collect(), flags })
    }
}

/// A configuration together with where each value comes from.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The typed configuration.
    pub config: Config,
    /// The origin of every key.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// Puts the sources on top of `defaults`: flags over environment over file over defaults.
///
/// # Errors
/// Everything that is wrong, not only the first thing.
pub fn resolve(defaults: Config, sources: &Sources) -> Result<Resolved, ConfigError> {
    let origins = keys::KEYS.iter().map(|key| (key.name, Origin::Default)).collect();
    let mut resolved = Resolved { config: defaults, origins };
    let mut faults = Vec::new();
    if let Some((path, text)) = &sources.file {
        for found in file::read(path, text, &mut faults) {
            set(&mut resolved, found.key, &found.value, found.origin, &mut faults);
        }
    }
    for (variable, value) in sources.environment.iter().filter(|(variable, _)| variable.starts_with(environment::PREFIX)) {
        let origin = Origin::Environment(variable.clone());
        match keys::KEYS.iter().find(|key| key.variable() == *variable) {
            Some(key) => set(&mut resolved, key, value, origin, &mut faults),
            None => faults.extend(environment::refuse(variable, value).map(|message| Fault {
                origin: Some(origin),
                key: None,
                message,
            })),
        }
    }
    for (name, flag, value) in &sources.flags {
        if let Some(key) = keys::KEYS.iter().find(|key| key.name == *name) {
            set(&mut resolved, key, value, Origin::Flag(flag), &mut faults);
        }
    }
    // What could not be read stands at its default, which says nothing about what was meant.
    if faults.is_empty() {
        faults.extend(bounds::check(&resolved));
        faults.extend(kafka::check(&resolved));
    }
    if faults.is_empty() { Ok(resolved) } else { Err(ConfigError { faults }) }
}

fn set(resolved: &mut Resolved, key: &'static keys::Key, value: &str, origin: Origin, faults: &mut Vec<Fault>) {
    match (key.set)(&mut resolved.config, value) {
        Ok(()) => {
            resolved.origins.insert(key.name, origin);
        }
        Err(message) => faults.push(Fault { origin: Some(origin), key: Some(key.name.to_owned()), message }),
    }
}
