//! rkt's grammar of several apps on one command line:
//!
//! ```text
//! IMAGE1 [app flags] [-- args… [---]] IMAGE2 [app flags] [-- args… [---]] …
//! ```
//!
//! Flags of the pod stand anywhere outside of app arguments, flags of an app after its image. clap
//! has no such grammar, so the words are sorted first, by what the definitions say about each flag
//! (does it take a value?), and each heap is then clap's.
//!
//! One difference to rkt: an empty argument of an app is passed on, where rkt dropped it.

use clap::{Arg, Command};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The words that belong to one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppWords {
    /// The image.
    pub image: OsString,
    /// Flags that follow it.
    pub flags: Vec<OsString>,
    /// What is between `--` and `---`.
    pub arguments: Vec<OsString>,
}

/// What is wrong with the order of the words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// `--` comes before any image.
    #[error("an image is required before any app arguments")]
    ArgumentsWithoutImage,
    /// Two times `--` after the same image.
    #[error("only one set of app arguments allowed per image")]
    SecondArguments,
    /// A flag of an app comes before any image.
    #[error("--{0} must follow an image")]
    FlagWithoutImage(String),
    /// `--exec` is there twice for one image.
    #[error("--{0} specified multiple times for the same image")]
    FlagTwice(String),
    /// `--` where images have no arguments.
    #[error("app arguments unsupported: 'sandbox fetch' runs nothing")]
    NoArguments,
}

/// Flags of an app that also make sense for all of them, before the first image.
const GLOBAL_TOO: &[&str] = &["mount"];
/// Flags of an app that may come once for each image; others override themselves.
const ONCE: &[&str] = &["exec", "signature"];

/// Sorts `words`, which follow the name of `verb` on the command line, into those of the pod and
/// those of each app. `app_flags` tells which of the verb's flags are an app's.
///
/// # Errors
/// See [`GrammarError`]. Flags that the verb does not know are left for clap to complain about.
pub fn split(
    verb: &Command,
    app_flags: &Command,
    words: impl IntoIterator<Item = OsString>,
) -> Result<(Vec<OsString>, Vec<AppWords>), GrammarError> {
    let mut words = words.into_iter();
    let mut pod = Vec::new();
    let mut apps: Vec<AppWords> = Vec::new();
    // How many images there were when the last "--" came.
    let mut images_with_arguments = 0;
    while let Some(word) = words.next() {
        match word.as_bytes() {
            b"" | b"---" => {}
            b"--" => {
                let app = apps.len();
                let last = apps.last_mut().ok_or(GrammarError::ArgumentsWithoutImage)?;
                if images_with_arguments == app {
                    return Err(GrammarError::SecondArguments);
                }
                images_with_arguments = app;
                last.arguments.extend(words.by_ref().take_while(|word| word != "---"));
            }
            [b'-', _, ..] => {
                let flag = Flag::new(&word);
                let value = flag.takes_next_word(verb).then(|| words.next()).flatten();
                let heap = if flag.definition(app_flags).is_none() {
                    &mut pod
                } else if let Some(app) = apps.last_mut() {
                    if ONCE.contains(&flag.name.as_str())
                        && app.flags.iter().any(|known| Flag::new(known).name == flag.name)
                    {
                        return Err(GrammarError::FlagTwice(flag.name));
                    }
                    &mut app.flags
                } else if GLOBAL_TOO.contains(&flag.name.as_str()) {
                    &mut pod
                } else {
                    return Err(GrammarError::FlagWithoutImage(flag.name));
                };
                heap.push(joined(word, value));
            }
            _ => apps.push(AppWords { image: word, ..AppWords::default() }),
        }
    }
    Ok((pod, apps))
}

/// The verbs that `words` begin with, outermost first, with global flags before and between them,
/// and how many words that is.
pub fn verbs<'a>(root: &'a Command, words: &[OsString]) -> (Vec<&'a Command>, usize) {
    let mut verbs = Vec::new();
    let mut command = root;
    let mut end = 0;
    while let Some(position) = position_of_verb(command, &words[end..])
        && let Some(verb) = words[end + position].to_str().and_then(|word| verb_of(command, word))
    {
        verbs.push(verb);
        command = verb;
        end += position + 1;
    }
    (verbs, end)
}

/// Where in `words` the first word is that is no flag of `command`.
fn position_of_verb(command: &Command, words: &[OsString]) -> Option<usize> {
    let mut position = 0;
    while let Some(word) = words.get(position) {
        if !word.as_bytes().starts_with(b"-") {
            return Some(position);
        }
        position += if Flag::new(word).takes_next_word(command) { 2 } else { 1 };
    }
    None
}

/// The verb that `word` names, in full or by a prefix that no other verb has.
fn verb_of<'a>(command: &'a Command, word: &str) -> Option<&'a Command> {
    let verbs = || command.get_subcommands();
    verbs().find(|verb| verb.get_name() == word).or_else(|| {
        let mut matching = verbs().filter(|verb| verb.get_name().starts_with(word));
        matching.next().filter(|_| matching.next().is_none())
    })
}

/// A flag and its value as one word, so that a value that looks like a flag stays a value.
fn joined(mut flag: OsString, value: Option<OsString>) -> OsString {
    if let Some(value) = value {
        flag.push("=");
        flag.push(value);
    }
    flag
}

/// A word that starts with a hyphen.
struct Flag {
    /// What follows `--`, without a value.
    name: String,
    has_value: bool,
}

impl Flag {
    fn new(word: &OsStr) -> Self {
        let word = word.to_string_lossy();
        let long = word.strip_prefix("--").unwrap_or("");
        match long.split_once('=') {
            Some((name, _)) => Self { name: name.to_owned(), has_value: true },
            None => Self { name: long.to_owned(), has_value: false },
        }
    }

    fn definition<'a>(&self, command: &'a Command) -> Option<&'a Arg> {
        command.get_arguments().find(|arg| arg.get_long() == Some(&self.name))
    }

    fn takes_next_word(&self, command: &Command) -> bool {
        !self.has_value
            && self
                .definition(command)
                .is_some_and(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set())
    }
}
