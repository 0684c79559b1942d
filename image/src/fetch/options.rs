use crate::{Error, Limits, Text, http, registry};
use std::{fmt, path::PathBuf, sync::Arc};

/// How an image is fetched.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// The program `sandbox-fetch`, which reads what others wrote.
    pub program: PathBuf,
    /// Whether an image of the store will do.
    pub pull_policy: PullPolicy,
    /// What an image may cost.
    pub limits: Limits,
    /// Whether an image may do without signatures: those that can't be had are then no reason to
    /// stop.
    pub insecure_image: bool,
    /// Whether what the store has under this name would be accepted as it is: then a server need
    /// only say that it has no other. Otherwise a signature may have come since, and is looked for.
    pub is_accepted: bool,
    /// `--signature`: a detached signature of an ACI, in place of the one beside it.
    pub signature: Option<PathBuf>,
    /// How many blobs are downloaded at the same time.
    pub jobs: u8,
    /// How servers are spoken to.
    pub network: Network,
    /// The same for web servers that are not known from the beginning: those that discovery leads
    /// to, and those of what an ACI depends on. As `network` says if nobody is to be asked.
    pub network_of: Option<NetworkOf>,
}

impl FetchOptions {
    /// Blobs that are downloaded at the same time if nothing else is said, as in Docker.
    pub const JOBS: u8 = 3;

    /// Nothing that is insecure, and no credentials.
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            pull_policy: PullPolicy::New,
            limits: Limits::default(),
            insecure_image: false,
            is_accepted: false,
            signature: None,
            jobs: Self::JOBS,
            network: Network::default(),
            network_of: None,
        }
    }
}

impl FetchOptions {
    /// The same for these web servers, `HOST[:PORT]` each.
    pub(crate) fn for_hosts(&self, hosts: &[&str]) -> Result<Self, Error> {
        let asked = self.network_of.as_ref().map(|NetworkOf(ask)| ask(hosts));
        let network = match asked {
            Some(Ok(network)) => network,
            Some(Err(message)) => return Err(Error::Fetch(Text::message(message))),
            None => self.network.clone(),
        };
        Ok(Self { network, ..self.clone() })
    }
}

/// Says how web servers are spoken to, `HOST[:PORT]` each. No more is read of certificates than is
/// needed, and which servers an image leads to is not known before it is there.
#[derive(Clone)]
pub struct NetworkOf(Arc<Ask>);

type Ask = dyn Fn(&[&str]) -> Result<Network, String> + Send + Sync;

impl NetworkOf {
    /// Asks `ask`, which fails with a message.
    pub fn new(ask: impl Fn(&[&str]) -> Result<Network, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for NetworkOf {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("NetworkOf")
    }
}

/// Whether an image of the store will do, as rkt's `--pull-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Only what is in the store.
    Never,
    /// What is in the store, else it is fetched.
    #[default]
    New,
    /// It is fetched, unless the server says that what is in the store is what it has.
    Update,
}

/// How servers are spoken to: addresses, certificates, credentials. All of it is resolved: the
/// fetching process looks at no file.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// For registries.
    pub registry: registry::Options,
    /// For ACIs and what belongs to them.
    pub http: http::Options,
    /// Where simple signatures of the image are kept apart from it.
    pub lookaside: Option<registry::Lookaside>,
}
