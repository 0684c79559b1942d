//! Credential helpers of Docker: programs that are asked for a registry's credential.

use crate::{Text, http::Secret, registry::Credential};
use serde::Deserialize;
use std::{
    ffi::OsStr,
    io::{self, Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// A helper does not say what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It could be the name of a file elsewhere.
    #[error(
        "'{0}' can't be the name of a credential helper: letters, digits, '-', '_' and '.' only"
    )]
    Name(Text),
    /// It can't be started, or talked to.
    #[error("docker-credential-{name}: {source}")]
    Io {
        /// Its name.
        name: Text,
        /// Why.
        source: io::Error,
    },
    /// It takes too long.
    #[error("docker-credential-{name}: no answer within {} seconds", .limit.as_secs())]
    Timeout {
        /// Its name.
        name: Text,
        /// How long it had.
        limit: Duration,
    },
    /// It fails.
    #[error("docker-credential-{name} get: ended with {status}")]
    Failed {
        /// Its name.
        name: Text,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// What it says can't be used.
    #[error("docker-credential-{0} get: its answer is not a credential of at most 64 KiB")]
    Answer(Text),
}

/// The longest answer in bytes.
const MAX_ANSWER: u64 = 64 << 10;
/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers say if they have nothing; there is no other way to know.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Secret,
}

/// Asks the helper `name`, found on `path`, for the credential of `host`. Nothing if it has none.
pub(super) fn ask(
    name: &str,
    host: &str,
    path: Option<&OsStr>,
    limit: Duration,
) -> Result<Option<Credential>, HelperError> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(is_name) {
        return Err(HelperError::Name(Text::new(name)));
    }
    let failed = |source| HelperError::Io { name: Text::new(name), source };
    let mut command = Command::new(format!("docker-credential-{name}"));
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let mut child = command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let answer = talk(&mut child, host, limit);
    // Whatever came of it, no process is left.
    if !matches!(answer, Ok(Some(_))) {
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    let answer = answer.map_err(failed)?;
    let answer = answer.ok_or_else(|| HelperError::Timeout { name: Text::new(name), limit })?;
    let refused = || HelperError::Answer(Text::new(name));
    if answer.len() as u64 > MAX_ANSWER {
        return Err(refused());
    }
    if !status.success() {
        let said = String::from_utf8_lossy(&answer);
        return if said.starts_with(NOT_FOUND) {
            Ok(None)
        } else {
            // What it says is not shown: it may hold anything.
            Err(HelperError::Failed { name: Text::new(name), status })
        };
    }
    let Answer { username, secret } = serde_json::from_slice(&answer).map_err(|_| refused())?;
    Ok(Some(match username.as_str() {
        TOKEN_USER => Credential::Identity(secret),
        _ => Credential::Basic { user: username, password: secret },
    }))
}

/// Writes the host and reads the answer; nothing if that takes too long.
fn talk(child: &mut Child, host: &str, limit: Duration) -> io::Result<Option<Vec<u8>>> {
    if let Some(mut to) = child.stdin.take() {
        // A helper that does not read is found by its answer.
        let _ = to.write_all(host.as_bytes());
    }
    let Some(from) = child.stdout.take() else { return Ok(Some(Vec::new())) };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut answer = Vec::new();
        let result = from.take(MAX_ANSWER + 1).read_to_end(&mut answer).map(|_| answer);
        let _ = sender.send(result);
    });
    match receiver.recv_timeout(limit) {
        Ok(result) => result.map(Some),
        Err(_) => Ok(None),
    }
}
