//! Rendering ACIs over those that they depend on, against a model that unpacks them into a list of
//! paths.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod common;

use common::aci::{Below as _, Image, image, listing, rendered, root};
use proptest::prelude::*;
use sandbox_image::{
    Limits,
    tree::{Dependent, OrderError, in_order},
};
use std::collections::BTreeMap;

type Path = Vec<&'static str>;

/// An entry of an image, for the model; also what is at a path of a rendered one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// With its mode; without if only something below it speaks of it.
    Directory(Option<u16>),
    /// Of this image.
    File(usize),
    Link(Path),
}

#[derive(Clone, Debug)]
struct Modelled {
    entries: Vec<(Path, Said)>,
    dependencies: Vec<usize>,
    whitelist: Vec<Path>,
}

fn images() -> impl Strategy<Value = Vec<Modelled>> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let path = || prop::collection::vec(name.clone(), 1..4);
    let said = prop_oneof![
        (0_u16..0o1000).prop_map(|mode| Said::Directory(Some(mode))),
        Just(Said::File(0)),
        Just(Said::File(0)),
        prop::collection::vec(name.clone(), 0..3).prop_map(Said::Link),
    ];
    let image = (
        prop::collection::vec((path(), said), 0..6),
        prop::collection::vec(0..100_usize, 0..4),
        prop_oneof![
            3 => Just(Vec::new()),
            1 => prop::collection::vec(path(), 1..6),
        ],
    );
    prop::collection::vec(image, 1..6).prop_map(|images| {
        let images = images.into_iter().enumerate();
        let images = images.map(|(number, (mut entries, dependencies, whitelist))| {
            for (_, said) in &mut entries {
                if let Said::File(of) = said {
                    *of = number;
                }
            }
            let dependencies = dependencies.into_iter().filter(|_| number > 0);
            let dependencies = dependencies.map(|below| below % number).collect();
            Modelled { entries, dependencies, whitelist }
        });
        images.collect()
    })
}

/// A root file system as a list of paths.
#[derive(Clone, Debug, Default)]
struct Model {
    files: BTreeMap<Path, Said>,
    /// What the image put there that is being unpacked.
    own: BTreeMap<Path, Said>,
}

impl Model {
    fn put(&mut self, path: Path, said: Said) {
        self.files
            .retain(|other, _| !other.starts_with(&path) || matches!(said, Said::Directory(_)));
        self.files.insert(path.clone(), said.clone());
        self.own.insert(path, said);
    }

    /// Where a directory's path leads; directories that are missing are made.
    fn directory(&mut self, path: &[&'static str]) -> Option<Path> {
        let mut at = Path::new();
        let mut rest: Path = path.iter().rev().copied().collect();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let next = [&at[..], &[name]].concat();
            match self.files.get(&next) {
                Some(Said::Directory(_)) => at = next,
                Some(Said::Link(target)) => {
                    links += 1;
                    if links > 40 {
                        return None;
                    }
                    rest.extend(target.iter().rev());
                    at = Path::new();
                }
                Some(Said::File(_)) if self.own.contains_key(&next) => return None,
                _ => {
                    self.put(next.clone(), Said::Directory(None));
                    at = next;
                }
            }
        }
        Some(at)
    }

    /// Unpacks entries one after the other. `None` if they say two things about one path.
    fn unpack(&mut self, entries: &[(Path, Said)]) -> Option<()> {
        self.own.clear();
        for (path, said) in entries {
            if *said == Said::Directory(None) {
                self.directory(path)?;
                continue;
            }
            let (name, parents) = path.split_last()?;
            let mut at = self.directory(parents)?;
            at.push(name);
            if let (Said::Directory(_), Some(Said::Directory(_))) = (said, self.files.get(&at)) {
                match self.own.get(&at) {
                    None | Some(Said::Directory(None)) => {
                        self.files.insert(at.clone(), said.clone());
                        self.own.insert(at, said.clone());
                    }
                    Some(before) if before == said => {}
                    Some(_) => return None,
                }
                continue;
            }
            if self.own.keys().any(|other| other.starts_with(&at)) {
                return None;
            }
            self.put(at, said.clone());
        }
        Some(())
    }
}

fn model(images: &[Modelled]) -> Option<BTreeMap<Path, Said>> {
    let mut rendered: Vec<BTreeMap<Path, Said>> = Vec::new();
    for image in images {
        let mut model = Model::default();
        for &dependency in &image.dependencies {
            let entries: Vec<_> = rendered[dependency].clone().into_iter().collect();
            model.unpack(&entries)?;
        }
        model.unpack(&image.entries)?;
        if !image.whitelist.is_empty() {
            let all = model.files.clone();
            model.files.retain(|path, _| {
                image.whitelist.iter().any(|kept| all.contains_key(kept) && kept.starts_with(path))
            });
        }
        rendered.push(model.files);
    }
    rendered.pop()
}

/// The same as lines of a listing.
fn model_listing(files: &BTreeMap<Path, Said>) -> Vec<String> {
    let lines = files.iter().map(|(path, said)| {
        let path = path.join("/");
        match said {
            Said::Directory(mode) => format!("{path}/ {:o}", mode.unwrap_or(0o755)),
            Said::File(image) => format!("{path} ({image})"),
            Said::Link(target) => format!("{path} -> /{}", target.join("/")),
        }
    });
    lines.collect()
}

/// The images that the last one needs, in order: what fails to render elsewhere does not matter.
fn needed(images: &[Modelled]) -> Vec<Modelled> {
    let below = |&image: &usize| Ok::<_, OrderError>(images[image].dependencies.clone());
    let list = in_order(images.len() - 1, &Limits::default(), below).unwrap();
    let list = list.into_iter().enumerate().map(|(place, Dependent { image, dependencies })| {
        let mut image = Modelled { dependencies, ..images[image].clone() };
        for (_, said) in &mut image.entries {
            if let Said::File(of) = said {
                *of = place;
            }
        }
        image
    });
    list.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn images_are_rendered_as_if_they_were_unpacked_one_over_the_other(images in images()) {
        let images = needed(&images);
        let acis: Vec<Image> = images
            .iter()
            .map(|modelled| {
                let files = modelled.entries.iter().fold(root(), |tar, (path, said)| {
                    let path = path.join("/");
                    match said {
                        Said::Directory(mode) => tar.d(&path, u32::from(mode.unwrap_or(0o755))),
                        Said::File(_) => tar.f(&path),
                        Said::Link(target) => tar.l(&path, &format!("/{}", target.join("/"))),
                    }
                });
                let whitelist = modelled.whitelist.iter().map(|path| format!("/{}", path.join("/")));
                image(files)
                    .on(&modelled.dependencies)
                    .only(&whitelist.collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>())
            })
            .collect();
        match (rendered(&acis), model(&images)) {
            (Ok(tree), Some(expected)) => {
                prop_assert_eq!(listing(&tree), model_listing(&expected));
            }
            (Err(_), None) => {}
            (rendered, expected) => {
                let rendered = rendered.map(|tree| listing(&tree));
                prop_assert!(false, "{:?} instead of {:?}", rendered, expected);
            }
        }
    }
}
