//! ACIs that depend on others, as short as a test wants them.

use super::{Header, Tar};
use sandbox_image::{
    Limits,
    tree::{Aci, NodeId, NodeKind, RenderError, Tree, render},
};
use std::{collections::HashMap, io::Cursor};

/// An ACI for a test: what is in its `rootfs`, what it depends on, what it leaves.
#[derive(Clone, Default)]
pub struct Image {
    pub files: Tar,
    pub dependencies: Vec<usize>,
    pub whitelist: Vec<String>,
}

pub fn image(files: Tar) -> Image {
    Image { files, ..Image::default() }
}

impl Image {
    pub fn on(mut self, dependencies: &[usize]) -> Self {
        self.dependencies = dependencies.to_vec();
        self
    }

    pub fn only(mut self, paths: &[&str]) -> Self {
        self.whitelist = paths.iter().map(|&path| path.to_owned()).collect();
        self
    }
}

pub fn rendered_within(images: &[Image], limits: &Limits) -> Result<Tree, RenderError> {
    let acis = images.iter().map(|image| Aci {
        archive: Cursor::new(image.files.clone().finish()),
        dependencies: &image.dependencies,
        path_whitelist: &image.whitelist,
    });
    render(acis.collect(), limits)
}

pub fn rendered(images: &[Image]) -> Result<Tree, RenderError> {
    rendered_within(images, &Limits::default())
}

/// Files below `rootfs`; its own entry comes first, as actool writes it.
pub fn root() -> Tar {
    Tar::new().file("manifest", b"{}").directory("rootfs")
}

/// Entries below `rootfs`.
pub trait Below {
    fn f(self, path: &str) -> Self;
    fn d(self, path: &str, mode: u32) -> Self;
    fn l(self, path: &str, target: &str) -> Self;
}

impl Below for Tar {
    fn f(self, path: &str) -> Self {
        self.file(&format!("rootfs/{path}"), b"x")
    }

    fn d(self, path: &str, mode: u32) -> Self {
        let path = format!("rootfs/{path}");
        self.entry(Header::new(b'5', path.as_bytes(), 0).mode(mode), b"")
    }

    fn l(self, path: &str, target: &str) -> Self {
        self.symlink(&format!("rootfs/{path}"), target)
    }
}

/// The tree as lines: `path/ mode`, `path (image)`, `path -> target`, `path = first name`.
pub fn listing(tree: &Tree) -> Vec<String> {
    fn visit(
        tree: &Tree,
        (directory, prefix): (NodeId, &str),
        seen: &mut HashMap<NodeId, String>,
        lines: &mut Vec<String>,
    ) {
        for (name, id) in tree.children(directory) {
            let path = format!("{prefix}{}", String::from_utf8_lossy(name));
            if let Some(first) = seen.get(&id) {
                lines.push(format!("{path} = {first}"));
                continue;
            }
            seen.insert(id, path.clone());
            let node = tree.node(id);
            match &node.kind {
                NodeKind::Directory(_) => {
                    lines.push(format!("{path}/ {:o}", node.metadata.mode));
                    visit(tree, (id, &format!("{path}/")), seen, lines);
                }
                NodeKind::File { layer, .. } => lines.push(format!("{path} ({layer})")),
                NodeKind::Symlink(target) => {
                    lines.push(format!("{path} -> {}", String::from_utf8_lossy(target)));
                }
                NodeKind::Fifo => lines.push(format!("{path} |")),
            }
        }
    }
    let mut lines = Vec::new();
    visit(tree, (tree.root(), ""), &mut HashMap::new(), &mut lines);
    lines
}
