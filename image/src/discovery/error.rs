use super::{AppcName, Kind, MAX_COMPONENTS};
use crate::{
    Text,
    http::{Error, UrlError},
};

/// It could not be found out where an image or its keys are.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// A page can't be got.
    #[error("discovery: {0}")]
    Page(Error),
    /// The name does not begin with a host.
    #[error("'{name}' can't be discovered, since it does not begin with a host: {problem}")]
    Host {
        /// The name, as far as it was asked for.
        name: Text,
        /// What is wrong with it.
        problem: UrlError,
    },
    /// The name has too many components.
    #[error("'{0}' has more than {MAX_COMPONENTS} components")]
    Deep(Text),
    /// No page says anything.
    #[error(
        "no {what} found for '{name}': neither the page https://{name} nor those above it have a \
         <meta name=\"{meta}\"> for it with all that it needs"
    )]
    Nothing {
        /// The name.
        name: Text,
        /// What was looked for.
        what: &'static str,
        /// The element that would say it.
        meta: &'static str,
    },
    /// What a page leads to is http.
    #[error(
        "discovery of '{name}' leads to {url}: refused, since http is neither private nor safe \
         from changes on the way (allow it with --insecure-options=http)"
    )]
    Insecure {
        /// The name.
        name: Text,
        /// Where it leads.
        url: Text,
    },
}

impl DiscoveryError {
    pub(super) fn nothing(name: &AppcName, kind: Kind) -> Self {
        let what = match kind {
            Kind::Image => "image",
            Kind::Keys => "keys",
        };
        Self::Nothing { name: Text::new(name.name()), what, meta: kind.name() }
    }
}
