use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A variable as `--set-env` and `--environment` take it: `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name, not empty.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err("must be specified as key=value".into()),
        }
    }
}

/// Why an environment can't be made.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// One of the options sets a variable twice.
    #[error("{option}: key {name:?} already set")]
    Twice {
        /// The option.
        option: &'static str,
        /// The variable.
        name: String,
    },
    /// The file of `--set-env-file` can't be read, or isn't UTF-8.
    #[error("--set-env-file {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What reading it met.
        error: io::Error,
    },
    /// A line of that file is no variable.
    #[error("--set-env-file {}, line {line}: environment variable must be specified as name=value", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
    },
    /// That file sets a variable twice.
    #[error("--set-env-file {}, line {line}: environment variable {name:?} already set", path.display())]
    LineTwice {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// The variable.
        name: String,
    },
}

/// An environment: variables in the order in which they were first set, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(Vec<Variable>);

/// Most bytes of a file for `--set-env-file`: what Linux accepts as one program's environment.
const MAX_FILE: u64 = 2 << 20;

impl Environment {
    /// The variables of an option that may be given several times.
    ///
    /// # Errors
    /// [`EnvironmentError::Twice`].
    pub fn from_option(
        option: &'static str,
        variables: &[Variable],
    ) -> Result<Self, EnvironmentError> {
        let mut environment = Self::default();
        for Variable { name, value } in variables {
            if environment.get(name).is_some() {
                return Err(EnvironmentError::Twice { option, name: name.clone() });
            }
            environment.set(name, value);
        }
        Ok(environment)
    }

    /// The variables of a file: one `NAME=VALUE` a line; empty lines and those that start with `#`
    /// or `;` are ignored.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub fn from_file(path: &Path) -> Result<Self, EnvironmentError> {
        let failed = |error| EnvironmentError::File { path: path.to_owned(), error };
        let file = fs::File::open(path).map_err(failed)?;
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE + 1), &mut text)
            .map_err(failed)?;
        if text.len() as u64 > MAX_FILE {
            return Err(failed(io::Error::other("larger than 2 MiB")));
        }
        let mut environment = Self::default();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let line_number = index + 1;
            let Ok(Variable { name, value }) = line.parse() else {
                return Err(EnvironmentError::Line { path: path.to_owned(), line: line_number });
            };
            if environment.get(&name).is_some() {
                let path = path.to_owned();
                return Err(EnvironmentError::LineTwice { path, line: line_number, name });
            }
            environment.set(&name, &value);
        }
        Ok(environment)
    }

    /// Sets a variable, in its old place if there is one.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|variable| variable.name == name) {
            Some(variable) => value.clone_into(&mut variable.value),
            None => self.0.push(Variable { name: name.to_owned(), value: value.to_owned() }),
        }
    }

    /// Sets a variable unless it is there.
    pub fn set_if_missing(&mut self, name: &str, value: &str) {
        if self.get(name).is_none() {
            self.set(name, value);
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|variable| variable.name == name).map(|variable| variable.value.as_str())
    }

    /// The variables.
    pub fn variables(&self) -> &[Variable] {
        &self.0
    }

    fn extend(&mut self, over: &Self) {
        for Variable { name, value } in &over.0 {
            self.set(name, value);
        }
    }
}

/// Where the variables of an app come from, besides its image.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The caller's environment with `--inherit-env`: fills gaps only.
    pub inherited: Vec<(OsString, OsString)>,
    /// `--set-env-file`.
    pub file: Environment,
    /// `--set-env`.
    pub explicit: Environment,
}

impl Layers {
    /// The environment of an app of that name: what is inherited, below what the image sets, below
    /// the app's own `--environment`, below `--set-env-file`, below `--set-env`; then the defaults
    /// of rkt for what is still missing. That is the order of rkt's code; its manual names another.
    ///
    /// Inherited variables that aren't UTF-8 can't be part of a pod manifest and are left out.
    pub fn apply(&self, app: &str, image: &Environment, own: &Environment) -> Environment {
        let mut environment = image.clone();
        environment.extend(own);
        for (name, value) in &self.inherited {
            if let (Some(name), Some(value)) = (name.to_str(), value.to_str()) {
                environment.set_if_missing(name, value);
            }
        }
        environment.extend(&self.file);
        environment.extend(&self.explicit);
        for (name, value) in [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("SHELL", "/bin/sh"),
            ("USER", "root"),
            ("LOGNAME", "root"),
            ("HOME", "/root"),
            ("container", "sandbox"),
        ] {
            environment.set_if_missing(name, value);
        }
        environment.set("AC_APP_NAME", app);
        environment
    }
}
