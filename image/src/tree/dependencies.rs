//! App Container Images that depend on others: in which order they are rendered, and how (appc,
//! aci.md, "Dependency Matching" and the manifest's `dependencies` and `pathWhitelist`).
//!
//! ```text
//! rendered(image) = pathWhitelist of image (
//!     rendered(first dependency), over it rendered(second one), …, over them the image's own files
//! )
//! ```
//!
//! So what an image leaves out is left out of it and what is below it, and of nothing else that
//! depends on the same images.

use super::{LayerError, LayerFormat, Tree, Used};
use crate::{Limit, LimitExceeded, Limits, Text};
use std::{
    collections::HashMap,
    fmt::Display,
    hash::Hash,
    io::{Read, Seek},
    mem, vec,
};

/// An image to render.
#[derive(Clone, Debug)]
pub struct Aci<'a, R> {
    /// Its tar archive, uncompressed.
    pub archive: R,
    /// Those that it depends on, in the order in which they are laid down, by their place in the
    /// list. They come before it.
    pub dependencies: &'a [usize],
    /// The paths that are left; all are if there are none.
    pub path_whitelist: &'a [String],
}

/// Why images can't be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// An image can't be read, or not be laid down over what it depends on.
    #[error("{problem}")]
    Image {
        /// Its place in the list.
        image: usize,
        /// What is wrong.
        problem: LayerError,
    },
    /// An image comes before what it depends on, or there is none.
    #[error("an image comes before what it depends on")]
    Order,
}

/// Renders the last of these images. Contents of files are referred to as those of the layer with
/// the image's place in the list.
///
/// What is laid down counts against the limits over all images, as often as it is: that bounds
/// memory and time. Only the first dependency of an image, if nothing else needs it any more, is
/// built on instead of laid down.
///
/// # Errors
/// See [`RenderError`].
pub fn render<R: Read + Seek>(acis: Vec<Aci<'_, R>>, limits: &Limits) -> Result<Tree, RenderError> {
    let mut uses = vec![0_u32; acis.len()];
    for (image, aci) in acis.iter().enumerate() {
        for &dependency in aci.dependencies {
            if dependency >= image {
                return Err(RenderError::Order);
            }
            uses[dependency] += 1;
        }
    }
    let mut rendered: Vec<Option<Tree>> = Vec::with_capacity(acis.len());
    let mut used = Used::default();
    for (image, aci) in acis.into_iter().enumerate() {
        let mut tree = Tree { used, ..Tree::new() };
        let refused = |problem| RenderError::Image { image, problem };
        for (place, &dependency) in aci.dependencies.iter().enumerate() {
            uses[dependency] -= 1;
            let below = &mut rendered[dependency];
            match below.take_if(|_| place == 0 && uses[dependency] == 0) {
                Some(below) => tree = Tree { used: tree.used, ..below },
                None => {
                    let below = below.as_ref().ok_or(RenderError::Order)?;
                    tree.overlay(below, limits).map_err(refused)?;
                }
            }
            if uses[dependency] == 0 {
                rendered[dependency] = None;
            }
        }
        // A number that does not fit is over the limit for layers.
        tree.layers = u16::try_from(image).unwrap_or(u16::MAX - 1);
        tree.apply(aci.archive, LayerFormat::Aci, limits).map_err(refused)?;
        if !aci.path_whitelist.is_empty() {
            tree.retain(aci.path_whitelist.iter().map(String::as_str));
        }
        used = mem::take(&mut tree.used);
        rendered.push(Some(tree));
    }
    rendered.pop().flatten().ok_or(RenderError::Order)
}

/// An image, and those that it depends on by their place among all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent<K> {
    /// What names the image.
    pub image: K,
    /// In the order in which they are laid down.
    pub dependencies: Vec<usize>,
}

/// Why images that depend on each other have no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// An image needs itself, perhaps by way of others.
    #[error("image {0} depends on itself")]
    Cycle(Text),
    /// There are too many of them.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// They name too many others.
    #[error(
        "the image and those that it depends on have more than {MAX_DEPENDENCIES} dependencies"
    )]
    TooMany,
    /// They are nested too deep.
    #[error("the images that it depends on are nested more than {} deep", Self::MAX_DEPTH)]
    Deep,
}

impl OrderError {
    /// How deep images can be nested that come into the store: each is opened by way of those that
    /// need it.
    pub const MAX_DEPTH: usize = 64;
}

/// Most dependencies that all images together can name.
const MAX_DEPENDENCIES: usize = 8192;

/// Finds all that an image depends on, directly or by way of others, depth first in the order in
/// which dependencies are named, and lists it so that every image comes after those that it
/// depends on: the image itself is the last one. An image that several others need is in the list,
/// and asked about, once.
///
/// The limit for layers bounds how many there can be, and with that how deep they are nested.
///
/// # Errors
/// What `dependencies` returns, or an [`OrderError`].
pub fn in_order<K, E>(
    image: K,
    limits: &Limits,
    mut dependencies: impl FnMut(&K) -> Result<Vec<K>, E>,
) -> Result<Vec<Dependent<K>>, E>
where
    K: Clone + Display + Eq + Hash,
    E: From<OrderError>,
{
    let mut ordered: Vec<Dependent<K>> = Vec::new();
    let mut places: HashMap<K, usize> = HashMap::new();
    // Images from the one that was asked for to where we are.
    let mut open: Vec<(K, vec::IntoIter<K>, Vec<usize>)> = Vec::new();
    let mut named = 0;
    let mut next = Some(image);
    loop {
        if let Some(image) = next.take() {
            if let Some(&place) = places.get(&image) {
                if let Some((_, _, places)) = open.last_mut() {
                    places.push(place);
                }
            } else {
                if open.iter().any(|(above, _, _)| *above == image) {
                    return Err(OrderError::Cycle(Text::new(image.to_string())).into());
                }
                let count = (ordered.len() + open.len() + 1) as u64;
                limits.check(Limit::Layers, count).map_err(OrderError::from)?;
                let below = dependencies(&image)?;
                named += below.len();
                if named > MAX_DEPENDENCIES {
                    return Err(OrderError::TooMany.into());
                }
                open.push((image, below.into_iter(), Vec::new()));
            }
        }
        let Some((_, rest, _)) = open.last_mut() else {
            return Ok(ordered);
        };
        next = rest.next();
        if next.is_none()
            && let Some((image, _, dependencies)) = open.pop()
        {
            places.insert(image.clone(), ordered.len());
            if let Some((_, _, places)) = open.last_mut() {
                places.push(ordered.len());
            }
            ordered.push(Dependent { image, dependencies });
        }
    }
}
