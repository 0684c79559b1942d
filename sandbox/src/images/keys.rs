//! Keys that are to be trusted: fetched, shown, reviewed, kept. The words are rkt's, so that what
//! reads them goes on to do so.

use super::{ImageSettings, ImagesError, network};
use crate::installation::Installation;
use crate::message::Messages;
use crate::supervisor::signals::Signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::isatty;
use sandbox_gate::keystore::{self, Key, Keystore, KeystoreError, Scope, TrustedKey};
use sandbox_image::discovery::AppcName;
use sandbox_image::http::{Scheme, Url};
use sandbox_image::{Error as ImageError, FetchOptions, Text, keys};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

/// The largest file of keys in bytes.
const MAX_KEYS: u64 = 1 << 20;

/// Why a key is not trusted now.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It can't be read.
    #[error("error accessing the key {location}: {error}")]
    Read {
        /// The file.
        location: Text,
        /// What the system says.
        error: io::Error,
    },
    /// A key over http.
    #[error(
        "error accessing the key {0}: it would come over http, where anybody on the way can change \
         it (--insecure-allow-http allows it)"
    )]
    Http(Text),
    /// There is no URL of it.
    #[error("error accessing the key {location}: {problem}")]
    Url {
        /// What was given.
        location: Text,
        /// What is wrong with it.
        problem: String,
    },
    /// It is none.
    #[error("error displaying the key {location}: {error}")]
    Malformed {
        /// Where it is.
        location: Text,
        /// What is wrong with it.
        error: KeystoreError,
    },
    /// It can't be kept, or keys that are there can't be read.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// Nobody can be asked.
    #[error(
        "error reviewing key: unable to ask user to review fingerprint due to lack of tty \
         (--skip-fingerprint-review trusts it without, if you have compared the fingerprint)"
    )]
    NoTerminal,
    /// There is no more input, or no place for output.
    #[error("error reviewing key: {0}")]
    Review(io::Error),
    /// Discovery has found none.
    #[error("error determining key location: no keys found for {0}; name a file or URL of the key")]
    NotFound(Text),
}

/// Where a key is.
#[derive(Clone, Debug)]
pub enum Location {
    /// In a file.
    File(PathBuf),
    /// On a web server.
    Url(Url),
}

impl Location {
    /// What the command line says.
    ///
    /// # Errors
    /// [`KeyError::Url`]
    pub fn parse(text: &std::ffi::OsStr) -> Result<Self, KeyError> {
        let Some(url) = text.to_str().filter(|text| text.contains("://")) else {
            return Ok(Self::File(text.into()));
        };
        if let Some(path) = url.strip_prefix("file://") {
            return Ok(Self::File(path.into()));
        }
        url.parse().map(Self::Url).map_err(|problem| KeyError::Url {
            location: Text::new(url),
            problem: format!("{problem}"),
        })
    }

    fn shown(&self) -> Text {
        match self {
            Self::File(path) => Text::of_os(path),
            Self::Url(url) => url.shown(),
        }
    }

    fn is_https(&self) -> bool {
        matches!(self, Self::Url(url) if url.scheme() == Scheme::Https)
    }
}

/// How a key is reviewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyReview {
    /// Somebody looks at the fingerprint and says yes or no.
    Ask,
    /// Not at all.
    Skip,
}

/// The keys of this host, and how more come to it.
#[derive(Debug)]
pub struct Keys<'a> {
    settings: &'a ImageSettings,
    messages: Messages,
    store: Keystore,
    allow_http: bool,
    /// Listened to, if the work has already begun that a signal ends.
    signals: Option<&'a Signals>,
}

impl<'a> Keys<'a> {
    /// The keys that the configuration directories hold. `allow_http` is for keys that come over
    /// http.
    pub fn new(settings: &'a ImageSettings, allow_http: bool, messages: Messages) -> Self {
        let store = Keystore::new(&settings.directories.system, &settings.directories.local);
        Self { settings, messages, store, allow_http, signals: None }
    }

    /// The same, where signals are listened to.
    pub fn heeding(self, signals: &'a Signals) -> Self {
        Self { signals: Some(signals), ..self }
    }

    /// Looks for keys of an image that is known by its name, where there are none yet, if somebody
    /// can say whether they are to be trusted.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn offer(&self, name: &AppcName) -> Result<(), ImagesError> {
        if !self.settings.trust_keys_from_https && !can_ask() {
            return Ok(());
        }
        let locations = match self.discover(name) {
            // Then it is for the gate to say that there is no key.
            Err(
                ImagesError::Key(KeyError::NotFound(_)) | ImagesError::Image(ImageError::Fetch(_)),
            ) => {
                return Ok(());
            }
            other => other?,
        };
        self.trust(&Scope::Prefix(name.name().to_owned()), &locations, KeyReview::Ask)
    }

    /// Where the keys are for a name, as its web server says.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn discover(&self, name: &AppcName) -> Result<Vec<Location>, ImagesError> {
        let mut options = self.options()?;
        options.network = network::of_name(self.settings, name)?;
        options.network.http.insecure_http = self.allow_http;
        let found = keys::discover(name, &options).map_err(ImagesError::Image)?;
        if found.is_empty() {
            return Err(KeyError::NotFound(Text::new(name.name())).into());
        }
        Ok(found.into_iter().map(Location::Url).collect())
    }

    /// Shows keys, asks whether they are to be trusted, and keeps those that are.
    ///
    /// # Errors
    /// See [`KeyError`]; keys before the one that it is about are trusted.
    pub fn trust(
        &self,
        scope: &Scope,
        locations: &[Location],
        review: KeyReview,
    ) -> Result<(), ImagesError> {
        for location in locations {
            let bytes = self.read(location)?;
            let keys = keystore::parse(&bytes)
                .map_err(|error| KeyError::Malformed { location: location.shown(), error })?;
            self.trust_one(scope, location, &keys, review)?;
        }
        Ok(())
    }

    fn trust_one(
        &self,
        scope: &Scope,
        location: &Location,
        keys: &[Key],
        review: KeyReview,
    ) -> Result<(), ImagesError> {
        let prefix = match scope {
            Scope::Root => "",
            Scope::Prefix(prefix) => prefix,
        };
        let shown = location.shown().to_string();
        print(&review_text(prefix, &shown, keys)).map_err(KeyError::Review)?;
        let https = self.settings.trust_keys_from_https && location.is_https();
        if review == KeyReview::Skip || https {
            self.say(&format!(
                "Trusting {shown:?} for prefix {prefix:?} without fingerprint review."
            ))?;
        } else {
            if !can_ask() {
                return Err(KeyError::NoTerminal.into());
            }
            if !self.ask()? {
                self.messages.say(format_args!("not trusting {shown:?}"));
                return Ok(());
            }
            self.say(&format!(
                "Trusting {shown:?} for prefix {prefix:?} after fingerprint review."
            ))?;
        }
        for key in keys {
            let path = self.store.add(scope, key).map_err(KeyError::Keystore)?;
            let path = path.display();
            self.say(&match scope {
                Scope::Root => format!("Added root key at \"{path}\""),
                Scope::Prefix(prefix) => format!("Added key for prefix {prefix:?} at \"{path}\""),
            })?;
        }
        Ok(())
    }

    /// All keys of the configuration directories.
    ///
    /// # Errors
    /// [`KeyError::Keystore`]
    pub fn list(&self) -> Result<Vec<TrustedKey>, KeyError> {
        Ok(self.store.list()?)
    }

    /// Takes a key back: for one scope, or for all that it is trusted for.
    ///
    /// # Errors
    /// [`KeyError::Keystore`]
    pub fn remove(
        &self,
        fingerprint: &str,
        scope: Option<&Scope>,
    ) -> Result<Vec<keystore::Removed>, KeyError> {
        Ok(self.store.remove(fingerprint, scope)?)
    }

    fn read(&self, location: &Location) -> Result<Vec<u8>, ImagesError> {
        match location {
            Location::File(path) => {
                let mut bytes = Vec::new();
                let read = File::open(path)
                    .and_then(|file| file.take(MAX_KEYS + 1).read_to_end(&mut bytes));
                match read {
                    Ok(size) if size as u64 <= MAX_KEYS => Ok(bytes),
                    Ok(_) => Err(io::Error::other("it has more than 1 MiB")),
                    Err(error) => Err(error),
                }
                .map_err(|error| KeyError::Read { location: location.shown(), error }.into())
            }
            Location::Url(url) => {
                if url.scheme() == Scheme::Http && !self.allow_http {
                    return Err(KeyError::Http(url.shown()).into());
                }
                let mut options = self.options()?;
                options.network = network::of_url(self.settings, url)?;
                options.network.http.insecure_http = self.allow_http;
                Ok(keys::get(url, &options).map_err(ImagesError::Image)?)
            }
        }
    }

    fn options(&self) -> Result<FetchOptions, ImagesError> {
        Ok(FetchOptions::new(Installation::find()?.fetcher))
    }

    fn say(&self, line: &str) -> Result<(), ImagesError> {
        Ok(print(&format!("{line}\n")).map_err(KeyError::Review)?)
    }

    /// Asks until there is an answer.
    fn ask(&self) -> Result<bool, ImagesError> {
        loop {
            self.say("Are you sure you want to trust this key (yes/no)?")?;
            let line = self.line()?;
            match line.trim().to_ascii_lowercase().as_str() {
                "yes" => return Ok(true),
                "no" => return Ok(false),
                _ => self.say("Please enter 'yes' or 'no'")?,
            }
        }
    }

    /// A line of standard input, unless a signal comes first.
    fn line(&self) -> Result<String, ImagesError> {
        let stdin = io::stdin();
        let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        loop {
            if let Some(signal) = self.signals.and_then(Signals::interrupted) {
                return Err(ImagesError::Interrupted(signal));
            }
            let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
            let pause = self.signals.is_some().then_some(&pause);
            match poll(&mut ready, pause) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(KeyError::Review(error.into()).into()),
            }
            let mut line = String::new();
            return match stdin.read_line(&mut line) {
                Ok(0) => Err(KeyError::Review(io::ErrorKind::UnexpectedEof.into()).into()),
                Ok(_) => Ok(line),
                Err(error) => Err(KeyError::Review(error).into()),
            };
        }
    }
}

/// What somebody has to look at before a key is trusted.
fn review_text(prefix: &str, location: &str, keys: &[Key]) -> String {
    let mut text = format!("prefix: {prefix:?}\nkey: {location:?}\n");
    for key in keys {
        let fingerprint = keystore::spaced(key.fingerprint());
        text += &format!("gpg key fingerprint is: {fingerprint}\n");
        for subkey in key.subkeys() {
            text += &format!("    Subkey fingerprint: {}\n", keystore::spaced(&subkey));
        }
        for identity in key.identities() {
            text += &format!("\t{}\n", Text::new(identity));
        }
    }
    text
}

/// Whether somebody can be shown a fingerprint, and asked.
fn can_ask() -> bool {
    isatty(io::stdin()) && isatty(io::stderr())
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}
