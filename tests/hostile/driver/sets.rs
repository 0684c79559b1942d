//! Sets of layers.

use sandbox_hostile::layers::Layer;
use std::fmt;

/// A set of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    All,
    Without(Layer),
    Only(Layer),
    None,
}

/// Every set that is tried.
pub fn all() -> Vec<Set> {
    let mut sets = vec![Set::None, Set::All];
    sets.extend(Layer::ALL.map(Set::Without));
    sets.extend(Layer::ALL.map(Set::Only));
    sets
}

/// The set of this name, as it is shown.
pub fn named(name: &str) -> Set {
    let found = all().into_iter().find(|set| set.to_string().replace(' ', "-") == name);
    found.unwrap_or_else(|| panic!("{name}: none, all, without-LAYER or only-LAYER"))
}

impl Set {
    /// Whether the layer is in it.
    pub fn has(self, layer: Layer) -> bool {
        match self {
            Self::All => true,
            Self::Without(other) => layer != other,
            Self::Only(other) => layer == other,
            Self::None => false,
        }
    }

    /// The value of the variable that leaves the others out.
    pub fn off(self) -> String {
        let off: Vec<_> =
            Layer::ALL.iter().filter(|layer| !self.has(**layer)).map(|it| it.name()).collect();
        off.join(",")
    }
}

impl fmt::Display for Set {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(out, "all"),
            Self::Without(layer) => write!(out, "without {}", layer.name()),
            Self::Only(layer) => write!(out, "only {}", layer.name()),
            Self::None => write!(out, "none"),
        }
    }
}
