use crate::{Policy, PolicyError};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Why a build script can't go on.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file or directory can't be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// A file is wrong.
    #[error("{path}: {error}")]
    Policy {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: PolicyError,
    },
    /// This is no build script.
    #[error("there is no OUT_DIR: {0}")]
    NoBuildScript(#[from] env::VarError),
}

/// Compiles each `NAME.policy` of a directory. The result is the file `filters.rs` in `OUT_DIR`,
/// which is to be included where `sock_filter` is known, with `NAME: &[sock_filter]`, the program,
/// and `NAME_POLICY: &str`, the file, for each, in capitals.
///
/// # Errors
/// See [`BuildError`].
pub fn build(directory: &str) -> Result<(), BuildError> {
    let mut source = String::new();
    let debug = env::var("PROFILE")? == "debug";
    for (path, text, policy) in read(directory)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().to_uppercase();
        let policy = if debug { policy.for_debug_build() } else { policy };
        let program = policy.compile().map_err(|error| BuildError::Policy { path, error })?;
        // Writing to a string can't fail.
        let _ = writeln!(source, "pub(super) const {name}_POLICY: &str = {text:?};");
        let _ = writeln!(source, "static {name}: &[sock_filter] = &[");
        for filter in program {
            let (code, jt, jf, k) = (filter.code, filter.jt, filter.jf, filter.k);
            let _ = writeln!(
                source,
                "    sock_filter {{ code: {code:#x}, jt: {jt}, jf: {jf}, k: {k:#x} }},"
            );
        }
        source.push_str("];\n");
    }
    let path = Path::new(&env::var("OUT_DIR")?).join("filters.rs");
    fs::write(&path, source).map_err(|error| BuildError::Io { path, error })
}

/// The canonical form of all files of these directories, each under its name.
///
/// # Errors
/// See [`BuildError`].
pub fn canonical(directories: &[&str]) -> Result<String, BuildError> {
    let mut text = String::new();
    for directory in directories {
        for (path, _, policy) in read(directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let _ = write!(text, "[{name}]\n{}", policy.canonical());
        }
    }
    Ok(text)
}

/// The files of a directory, by name.
fn read(directory: &str) -> Result<Vec<(PathBuf, String, Policy)>, BuildError> {
    println!("cargo::rerun-if-changed={directory}");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| BuildError::Io { path, error }
    };
    let directory = Path::new(directory);
    let mut policies = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        if path.extension().is_none_or(|extension| extension != "policy") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(failed(&path))?;
        match Policy::parse(&text) {
            Ok(policy) => policies.push((path, text, policy)),
            Err(error) => return Err(BuildError::Policy { path, error }),
        }
    }
    policies.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(policies)
}
