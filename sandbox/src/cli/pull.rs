use crate::message::Messages;
use clap::{ArgAction, Args, ValueEnum};
use sandbox_image::{Limits, LimitsError, PullPolicy};
use std::error::Error;

/// Options of every verb that may fetch an image.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of fetching")]
pub struct Pull {
    /// When to ask where an image comes from: never, new (if it is not in the store), update (if it
    /// has changed there).
    #[arg(long, value_name = "POLICY", value_enum)]
    pull_policy: Option<When>,
    /// The same as --pull-policy=never.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", action = ArgAction::Set,
          value_parser = crate::options::boolean)]
    store_only: bool,
    /// The same as --pull-policy=update.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", action = ArgAction::Set,
          value_parser = crate::options::boolean)]
    no_store: bool,
    /// Raise a limit on what an image may cost: size, files, layers, path, depth, names, xattr,
    /// xattrs or document.
    #[arg(long = "image-limit", value_name = "NAME=NUMBER")]
    image_limits: Vec<String>,
}

/// The words of `--pull-policy`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    Never,
    New,
    Update,
}

impl Pull {
    /// When to fetch; `otherwise` if the command line does not say.
    ///
    /// # Errors
    /// If it says two things.
    pub fn policy(
        &self,
        otherwise: PullPolicy,
        messages: Messages,
    ) -> Result<PullPolicy, Box<dyn Error>> {
        if self.store_only && self.no_store {
            return Err("both --store-only and --no-store specified".into());
        }
        for (flag, given, instead) in
            [("store-only", self.store_only, "never"), ("no-store", self.no_store, "update")]
        {
            if given {
                messages.say(format_args!(
                    "Flag --{flag} has been deprecated, please use --pull-policy={instead}"
                ));
            }
        }
        Ok(match self.pull_policy {
            _ if self.store_only => PullPolicy::Never,
            _ if self.no_store => PullPolicy::Update,
            Some(When::Never) => PullPolicy::Never,
            Some(When::New) => PullPolicy::New,
            Some(When::Update) => PullPolicy::Update,
            None => otherwise,
        })
    }

    /// What an image may cost.
    ///
    /// # Errors
    /// If an argument is none.
    pub fn limits(&self) -> Result<Limits, LimitsError> {
        let mut limits = Limits::default();
        for argument in &self.image_limits {
            limits.set_argument(argument)?;
        }
        Ok(limits)
    }
}
