use crate::{Digest, Text, http};

/// Something can't be got from a registry, or not be put there. No message holds credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection, or the server, fails.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The registry does not have it.
    #[error("{0}: the registry does not have it")]
    NotFound(Text),
    /// Credentials are needed, or those that were sent are wrong.
    #[error("{what}: {registry} {problem}")]
    Unauthorized {
        /// What was asked for.
        what: Text,
        /// The registry.
        registry: Text,
        /// What is wrong.
        problem: &'static str,
    },
    /// The registry answers with an error.
    #[error("{what}: {registry} answers with status {status}{detail}")]
    Refused {
        /// What was asked for.
        what: Text,
        /// The registry.
        registry: Text,
        /// The status code.
        status: u16,
        /// What it says about it: nothing, or text that begins with a colon.
        detail: Text,
    },
    /// How the registry asks for credentials is not understood.
    #[error("{registry}: {problem}")]
    Challenge {
        /// The registry.
        registry: Text,
        /// What is wrong.
        problem: Text,
    },
    /// Credentials would go over http.
    #[error("{0}: credentials are not sent over http, whatever is allowed")]
    InTheClear(Text),
    /// A token server's answer can't be used.
    #[error("{realm}: no token for {what}: {problem}")]
    Token {
        /// The token server.
        realm: Text,
        /// What the token is for.
        what: Text,
        /// What is wrong.
        problem: Text,
    },
    /// The content is not what it was named.
    #[error("{what}: the registry sends content with the digest {found} instead of {expected}")]
    Digest {
        /// What was asked for.
        what: Text,
        /// As it was named.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// The registry names its content by a digest that it does not have.
    #[error("{what}: the registry says that its content has the digest {said}, but it has {found}")]
    SaidDigest {
        /// What was asked for.
        what: Text,
        /// As the registry says.
        said: Text,
        /// What it is.
        found: Digest,
    },
    /// What was sent has another digest or size in the registry, or on this side.
    #[error("{what}: it does not have the digest {expected} that it is to be stored under")]
    Sent {
        /// What was sent.
        what: Text,
        /// As it is named.
        expected: Digest,
    },
    /// It is no manifest that can be used.
    #[error("{what}: its media type '{media_type}' is {problem}")]
    MediaType {
        /// What was asked for.
        what: Text,
        /// What it is.
        media_type: Text,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A document is malformed.
    #[error("{what}: {problem}")]
    Malformed {
        /// Which one.
        what: Text,
        /// What is wrong with it.
        problem: Text,
    },
    /// The configuration of this host blocks it.
    #[error("{0} is blocked by this host's registries.conf")]
    Blocked(Text),
    /// Part of a name can't be in a URL.
    #[error("{what}: {problem}")]
    Url {
        /// What was asked for.
        what: Text,
        /// What is wrong.
        problem: http::UrlError,
    },
}

impl Error {
    /// Whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_transient())
    }

    pub(super) fn malformed(what: impl ToString, problem: impl ToString) -> Self {
        let (what, problem) = (Text::new(what.to_string()), Text::new(problem.to_string()));
        Self::Malformed { what, problem }
    }
}
