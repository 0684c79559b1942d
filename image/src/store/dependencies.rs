//! What an ACI depends on: found in the store, or fetched, before anything of it is believed.
//!
//! ```text
//! dependency ─ has an ID that the store has, or was just fetched ────────────▶ that image
//!            ─ else, unless all is fetched anew: its name and labels, there ─▶ the newest one
//!            ─ else discovery by its name and labels, then a download ───────▶ a new image
//! ```
//!
//! Whichever way it was found, it is held against all that the dependency says. What was fetched is
//! asked the same about its own dependencies, until there is nothing left that is not known: each
//! place that discovery leads to is fetched once. Nothing comes into the store here. What is new
//! becomes a part of what is [`Staged`], with the signature beside it, for the caller to judge.
//!
//! As rkt does it, but for two things: an ID is looked for first, since nothing can be asked for
//! more exactly; and an image that depends on itself is refused.

use super::{
    Kind, Staged, StoredImage,
    aci::{Fetched, Found, manifest, name_held},
    part_file::PartFile,
    references::Kept,
    sources::Fetching,
    staged::{Below, now},
};
use crate::{
    Digest, Error, FetchOptions, ImageConfig, Limit, LimitExceeded, Part, Progress, PullPolicy,
    Reference, Text,
    discovery::AppcName,
    format::aci::{self, Dependency},
    http::Url,
    progress::Reporter,
    tree::{Dependent, OrderError, in_order},
};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

/// The place of the image that was asked for.
const ASKED: usize = 0;

impl Fetching<'_> {
    /// An ACI with all that it depends on.
    pub(super) fn aci(self, progress: &mut dyn Progress) -> Result<Staged, Error> {
        let mut found = Dependencies {
            fetching: &self,
            images: Vec::new(),
            by_name: HashMap::new(),
            stored: HashMap::new(),
            by_url: HashMap::new(),
            size: 0,
        };
        let image = match self.reference {
            Reference::Aci { file } => self.aci_file(file, progress)?,
            Reference::AciUrl { url } => {
                found.by_url.insert(url.clone(), ASKED);
                self.aci_url(url, progress)?
            }
            Reference::Appc { name } => {
                let at = self.discover(name, progress)?;
                let image = self.aci_discovered(name, &at, None, progress)?;
                found.by_name.insert(name.clone(), ASKED);
                found.by_url.insert(at.aci, ASKED);
                image
            }
            reference => return Err(Error::NotStored(Text::new(reference.to_string()))),
        };
        if let Found::New(image) = &image {
            let said = image.manifest.check_machine_said();
            said.map_err(|problem| manifest(&image.manifest.name, problem))?;
        }
        found.add(image, self.reference.clone())?;
        let node = found.node(ASKED);
        let ordered = in_order(node, &self.options.limits, |node| found.below(node, progress))?;
        found.refuse_nested(&ordered)?;
        found.staged(&ordered, &mut Reporter::new(progress))
    }
}

/// All images that an ACI was found to depend on, and itself.
struct Dependencies<'a> {
    fetching: &'a Fetching<'a>,
    images: Vec<Image>,
    /// What was looked for on servers, by place.
    by_name: HashMap<AppcName, usize>,
    by_url: HashMap<Url, usize>,
    /// What names meant in the store.
    stored: HashMap<AppcName, usize>,
    /// Bytes of them all.
    size: u64,
}

/// One of them.
struct Image {
    what: What,
    /// How it was asked for.
    reference: Reference,
    /// Those that it depends on, by place, in the order of its manifest.
    below: Vec<usize>,
}

enum What {
    /// It was fetched.
    New(Box<Fetched>),
    /// It is in the store, with all that it depends on.
    Stored(Arc<StoredImage>),
    /// It is in the store, and what it depends on is asked for anew.
    Again(Arc<StoredImage>, Box<aci::Manifest>, Kept),
}

/// An image by its place among all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    place: usize,
    name: String,
}

impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

impl Image {
    fn id(&self) -> &Digest {
        match &self.what {
            What::New(image) => &image.id,
            What::Stored(image) | What::Again(image, ..) => image.id(),
        }
    }

    fn name(&self) -> &str {
        match &self.what {
            What::New(image) => &image.manifest.name,
            What::Stored(image) | What::Again(image, ..) => image.name(),
        }
    }

    fn config(&self) -> &ImageConfig {
        match &self.what {
            What::New(image) => &image.manifest.config,
            What::Stored(image) | What::Again(image, ..) => image.config(),
        }
    }

    /// Whether its dependencies are looked for here.
    fn is_open(&self) -> bool {
        !matches!(self.what, What::Stored(_))
    }

    /// Refuses an image that is not as the dependency says.
    fn hold_against(&self, dependency: &Dependency) -> Result<(), Error> {
        let other = |problem| Error::OtherDependency { id: self.id().clone(), problem };
        if let Some(id) = dependency.id.as_ref().filter(|id| !id.is_of(self.id())) {
            return Err(other(format!("its ID is not {id}")));
        }
        let held = name_held(&dependency.name, self.name(), self.config());
        held.map_err(|problem| other(problem.to_string()))?;
        match (&self.what, dependency.size) {
            // It may have been fetched because of another one, that does not say a size.
            (What::New(image), Some(size)) if image.shipped_size != size => {
                Err(other(format!("it has {} bytes instead of {size}", image.shipped_size)))
            }
            _ => Ok(()),
        }
    }
}

impl Dependencies<'_> {
    fn options(&self) -> &FetchOptions {
        self.fetching.options
    }

    fn node(&self, place: usize) -> Node {
        Node { place, name: self.images[place].name().to_owned() }
    }

    /// Those that an image depends on, which are looked for.
    fn below(&mut self, node: &Node, progress: &mut dyn Progress) -> Result<Vec<Node>, Error> {
        let dependencies = match &self.images[node.place].what {
            What::Stored(image) => {
                let mut below = Vec::new();
                for image in image.dependencies().to_vec() {
                    below.push(self.add_stored(image)?);
                }
                return Ok(self.keep_below(node.place, below));
            }
            What::New(image) => image.manifest.dependencies.clone(),
            What::Again(_, manifest, _) => manifest.dependencies.clone(),
        };
        self.options().limits.check(Limit::Layers, dependencies.len() as u64)?;
        let mut below = Vec::with_capacity(dependencies.len());
        for dependency in &dependencies {
            let found = self.find(node, dependency, progress);
            let found = found.and_then(|place| {
                self.images[place].hold_against(dependency)?;
                Ok(place)
            });
            below.push(found.map_err(|error| match error {
                Error::Cancelled | Error::Limit(_) | Error::MissingDependency { .. } => error,
                source => Error::Dependency {
                    image: Text::new(&node.name),
                    dependency: Text::new(dependency.name.to_string()),
                    source: Box::new(source),
                },
            })?);
        }
        Ok(self.keep_below(node.place, below))
    }

    fn keep_below(&mut self, place: usize, below: Vec<usize>) -> Vec<Node> {
        let nodes = below.iter().map(|&place| self.node(place)).collect();
        self.images[place].below = below;
        nodes
    }

    /// The image that a dependency leads to. It has still to be held against the dependency.
    fn find(
        &mut self,
        by: &Node,
        dependency: &Dependency,
        progress: &mut dyn Progress,
    ) -> Result<usize, Error> {
        let Dependency { name, id, size } = dependency;
        let policy = self.options().pull_policy;
        // What was just fetched is newer than anything in the store.
        let is_meant = |image: &Image| match id {
            Some(id) => id.is_of(image.id()),
            None => name_held(name, image.name(), image.config()).is_ok(),
        };
        let is_new = |image: &Image| image.is_open() && is_meant(image);
        if id.is_some() || policy != PullPolicy::Update {
            // The same words mean the same everywhere.
            let known = self.by_name.get(name).or_else(|| self.stored.get(name));
            if let (None, Some(&place)) = (id, known) {
                return Ok(place);
            }
            if let Some(place) = self.images.iter().rposition(is_new) {
                return Ok(place);
            }
            let reference = match id {
                Some(prefix) => Reference::Id { prefix: prefix.clone() },
                None => Reference::Appc { name: name.clone() },
            };
            let stored = self.fetching.store.find(&reference)?;
            if let Some(image) = stored.filter(|image| image.record().kind == Kind::Aci) {
                // The same as those that it is below have.
                let places = &self.fetching.store.places;
                let shared = StoredImage::open_shared(places, image.folder())?;
                let place = self.add_stored(shared.unwrap_or_else(|| Arc::new(image)))?;
                if id.is_none() {
                    self.stored.insert(name.clone(), place);
                }
                return Ok(place);
            }
        }
        if let Some(&place) = self.by_name.get(name) {
            return Ok(place);
        }
        if policy == PullPolicy::Never {
            return Err(Error::MissingDependency {
                image: Text::new(&by.name),
                dependency: Text::new(name.to_string()),
            });
        }
        let place = self.fetch(name, *size, progress)?;
        self.by_name.insert(name.clone(), place);
        Ok(place)
    }

    /// Fetches what discovery leads to.
    fn fetch(
        &mut self,
        name: &AppcName,
        size: Option<u64>,
        progress: &mut dyn Progress,
    ) -> Result<usize, Error> {
        let most = self.options().limits.clone();
        most.check(Limit::Layers, self.images.len() as u64 + 1)?;
        let left = most.get(Limit::Size).saturating_sub(self.size);
        let host = name.name().split('/').next().unwrap_or_default();
        let options = FetchOptions {
            limits: most.at_most(Limit::Size, left),
            // These are of the image that was asked for.
            is_accepted: false,
            signature: None,
            ..self.options().for_hosts(&[host])?
        };
        let reference = Reference::Appc { name: name.clone() };
        let fetching = Fetching {
            store: self.fetching.store,
            reference: &reference,
            options: &options,
            lock: self.fetching.lock.clone(),
        };
        let at = fetching.discover(name, progress)?;
        if let Some(&place) = self.by_url.get(&at.aci) {
            return Ok(place);
        }
        let found = fetching.aci_discovered(name, &at, size, progress);
        let found = found.map_err(|error| match error {
            // What is left of it is not what was set.
            Error::Limit(LimitExceeded { limit: Limit::Size, .. }) => {
                LimitExceeded { limit: Limit::Size, value: most.get(Limit::Size) }.into()
            }
            error => error,
        })?;
        if let Found::Stored(image, kept) = &found {
            // That the server has been asked is known, whatever becomes of what needs it.
            let (places, kept) = (&self.fetching.store.places, Some(kept.clone()));
            places.keep_led(&reference, image.folder(), now(), kept)?;
        }
        let place = self.add(found, reference)?;
        self.by_url.insert(at.aci, place);
        Ok(place)
    }

    /// Adds an image that a server has.
    fn add(&mut self, found: Found, reference: Reference) -> Result<usize, Error> {
        let (what, size) = match found {
            Found::New(image) => {
                let size = image.size.max(image.shipped_size);
                (What::New(image), size)
            }
            Found::Stored(image, kept) => {
                let image = Arc::<StoredImage>::from(image);
                let size = stored_size(&image);
                let document = image.aci_manifest()?.unwrap_or_default();
                let said = aci::parse_manifest(&document);
                let said = said.map_err(|problem| manifest(image.name(), problem))?;
                (What::Again(image, Box::new(said), kept), size)
            }
        };
        let image = Image { what, reference, below: Vec::new() };
        let is_same = |other: &Image| other.is_open() && other.id() == image.id();
        match self.images.iter().position(is_same) {
            // Another name for the same.
            Some(place) => Ok(place),
            None => self.push(image, size),
        }
    }

    /// Adds an image of the store that stays as it is.
    fn add_stored(&mut self, image: Arc<StoredImage>) -> Result<usize, Error> {
        let is_same = |other: &Image| matches!(&other.what, What::Stored(stored) if stored.folder() == image.folder());
        if let Some(place) = self.images.iter().position(is_same) {
            return Ok(place);
        }
        let (reference, size) = (image.reference().clone(), stored_size(&image));
        self.push(Image { what: What::Stored(image), reference, below: Vec::new() }, size)
    }

    fn push(&mut self, image: Image, size: u64) -> Result<usize, Error> {
        let limits = &self.fetching.options.limits;
        limits.check(Limit::Layers, self.images.len() as u64 + 1)?;
        self.size = self.size.saturating_add(size);
        limits.check(Limit::Size, self.size)?;
        self.images.push(image);
        Ok(self.images.len() - 1)
    }

    /// Refuses images that are nested too deep, and one that needs another version of its own, as
    /// it was in the store with what it depended on then: at every fetch there would be one more.
    fn refuse_nested(&self, ordered: &[Dependent<Node>]) -> Result<(), OrderError> {
        let mut depths: Vec<usize> = Vec::with_capacity(ordered.len());
        for image in ordered {
            let deepest = image.dependencies.iter().map(|&below| depths[below]).max();
            let depth = deepest.map_or(0, |depth| depth + 1);
            if depth > OrderError::MAX_DEPTH {
                return Err(OrderError::Deep);
            }
            depths.push(depth);

            let id = self.images[image.image.place].id();
            let (mut seen, mut open) = (HashSet::new(), image.dependencies.clone());
            while let Some(below) = open.pop() {
                if !seen.insert(below) {
                    continue;
                }
                let Dependent { image: Node { place, name }, dependencies } = &ordered[below];
                if self.images[*place].id() == id {
                    return Err(OrderError::Cycle(Text::new(name)));
                }
                open.extend(dependencies);
            }
        }
        Ok(())
    }

    /// All of it, to be judged.
    fn staged(
        self,
        ordered: &[Dependent<Node>],
        reporter: &mut Reporter<'_>,
    ) -> Result<Staged, Error> {
        let order = self.as_judged();
        let Self { fetching, mut images, .. } = self;
        let mut blobs = blobs(fetching, &mut images, reporter)?;
        let mut images: Vec<_> = images.into_iter().map(Some).collect();
        let mut made: Vec<Below> = Vec::with_capacity(ordered.len());
        let mut drafts = Vec::new();
        // By place: what is judged, and the draft that it is about.
        let mut judged: HashMap<usize, (Part, Option<usize>)> = HashMap::new();
        for Dependent { image: Node { place, .. }, dependencies } in ordered {
            let Some(Image { what, reference, .. }) = images[*place].take() else {
                continue;
            };
            let below = dependencies.iter().map(|&below| made[below].clone()).collect();
            let (draft, part) = match what {
                What::New(image) => fetching.drafted(*image, blobs.remove(place), reference, below),
                What::Again(image, said, kept) if is_changed(&image, &below) => {
                    fetching.drafted_again(&image, &said, kept, reference, below)
                }
                What::Again(image, _, kept) if *place == ASKED => {
                    let image = StoredImage::open_folder(&fetching.store.places, image.folder())?;
                    let reference = fetching.reference;
                    let image = image.map(|image| image.asked_for_as(reference));
                    let image =
                        image.ok_or_else(|| Error::NotStored(Text::new(reference.to_string())))?;
                    return Ok(fetching.store.stored(image, fetching.options, Some(kept)));
                }
                What::Stored(image) | What::Again(image, ..) => {
                    judged.insert(*place, (image.parts()[0].clone(), None));
                    made.push(Below::Stored(image));
                    continue;
                }
            };
            made.push(Below::New(drafts.len()));
            judged.insert(*place, (part, Some(drafts.len())));
            drafts.push(draft);
        }
        let new: HashSet<Digest> = drafts.iter().map(|draft| draft.id.clone()).collect();
        let mut parts: Vec<Part> = Vec::new();
        for place in order {
            match judged.remove(&place) {
                Some((part, Some(draft))) => {
                    drafts[draft].part = parts.len();
                    parts.push(part);
                }
                Some((part, None)) => {
                    let is_there = new.contains(&part.id);
                    if !is_there && parts.iter().all(|other| other.id != part.id) {
                        parts.push(part);
                    }
                }
                None => {}
            }
        }
        // The image itself is the last one.
        let image = drafts.pop();
        let missing = || Error::NotStored(Text::new(fetching.reference.to_string()));
        Ok(fetching.store.staged(image.ok_or_else(missing)?, drafts, parts, fetching.options))
    }

    /// The places in the order in which a stored image has its parts: each image before those that
    /// it depends on.
    fn as_judged(&self) -> Vec<usize> {
        let (mut order, mut open) = (Vec::new(), vec![ASKED]);
        let mut seen = HashSet::new();
        while let Some(place) = open.pop() {
            if seen.insert(place) {
                order.push(place);
                open.extend(self.images[place].below.iter().rev());
            }
        }
        order
    }
}

/// The archives of what is new, under the names that the store gives them, as far as it does not
/// have them.
fn blobs(
    fetching: &Fetching<'_>,
    images: &mut [Image],
    reporter: &mut Reporter<'_>,
) -> Result<HashMap<usize, PartFile>, Error> {
    let mut new: Vec<(usize, &mut Fetched)> = Vec::new();
    for (place, image) in images.iter_mut().enumerate() {
        if let What::New(image) = &mut image.what {
            new.push((place, image));
        }
    }
    // In this order two processes can't wait for each other.
    new.sort_by_key(|(_, image)| image.id.file_name());
    let mut blobs = HashMap::new();
    for (place, image) in new {
        let part = PartFile::open(&fetching.store.places, &image.id, image.size, reporter)?;
        let staging = image.staging.take();
        if let (Some(part), Some(staging)) = (part, &staging) {
            blobs.insert(place, part.filled_by(staging, Fetched::ARCHIVE)?);
        }
    }
    Ok(blobs)
}

/// Whether an image of the store was made with others below it than these.
fn is_changed(image: &StoredImage, below: &[Below]) -> bool {
    let stored = below.iter().map(|below| match below {
        Below::Stored(image) => Some(image.folder()),
        Below::New(_) => None,
    });
    !stored.eq(image.record().dependencies.iter().map(|known| Some(known.folder.as_str())))
}

fn stored_size(image: &StoredImage) -> u64 {
    image.record().layers.iter().fold(0, |size, layer| size.saturating_add(layer.size))
}
