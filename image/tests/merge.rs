//! How layers become one tree.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod common;

use common::{Header, Tar};
use proptest::prelude::*;
use sandbox_image::{
    Limit, Limits,
    layer::Xattr,
    tree::{LayerError, LayerFormat, NodeId, NodeKind, Tree},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Cursor,
};

fn apply(tree: &mut Tree, layer: &[u8]) -> Result<(), LayerError> {
    tree.apply(Cursor::new(layer), LayerFormat::Changeset, &Limits::default())
}

fn merged(layers: &[Tar]) -> Result<Tree, LayerError> {
    let mut tree = Tree::new();
    for layer in layers {
        apply(&mut tree, &layer.clone().finish())?;
    }
    Ok(tree)
}

/// The tree as lines: `path/` for a directory, `path (layer)` for a file, `path -> target`, and `=
/// path` for a further name of a file.
fn listing(tree: &Tree) -> Vec<String> {
    fn visit(
        tree: &Tree,
        directory: NodeId,
        prefix: &str,
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
            match &tree.node(id).kind {
                NodeKind::Directory(_) => {
                    lines.push(format!("{path}/"));
                    visit(tree, id, &format!("{path}/"), seen, lines);
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
    visit(tree, tree.root(), "", &mut HashMap::new(), &mut lines);
    lines
}

#[track_caller]
fn check(layers: &[Tar], expected: &[&str]) {
    assert_eq!(listing(&merged(layers).unwrap()), expected);
}

#[track_caller]
fn check_refused(layers: &[Tar], problem: &str) {
    let error = merged(layers).unwrap_err().to_string();
    assert!(error.contains(problem), "{error}");
    assert!(!error.chars().any(char::is_control), "{error:?}");
}

#[test]
fn a_later_layer_wins() {
    let lower = Tar::new().directory("d").file("d/x", b"1").file("f", b"1").symlink("s", "d");
    check(
        &[lower.clone(), Tar::new().file("d/x", b"2").file("d/y", b"2")],
        &["d/", "d/x (1)", "d/y (1)", "f (0)", "s -> d"],
    );
    // A file over a directory takes all below it away, a directory over a file or link replaces it.
    let upper = Tar::new().file("d", b"2").directory("f").directory("s").file("s/x", b"2");
    check(&[lower, upper], &["d (1)", "f/", "s/", "s/x (1)"]);
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_else() {
    let lower = || Tar::new().directory("d").file("d/x", b"1").file("d/y", b"1").file("e", b"1");
    check(&[lower(), Tar::new().file("d/.wh.x", b"")], &["d/", "d/y (0)", "e (0)"]);
    check(&[lower(), Tar::new().file(".wh.d", b"")], &["e (0)"]);
    check(&[lower(), Tar::new().file(".wh.nothing", b"")], &["d/", "d/x (0)", "d/y (0)", "e (0)"]);
    check(
        &[lower(), Tar::new().file("no/such/.wh.x", b"")],
        &["d/", "d/x (0)", "d/y (0)", "e (0)"],
    );
    // Also when it comes after the layer's own entries of that name.
    check(
        &[lower(), Tar::new().file("d/x", b"2").file("d/.wh.x", b"")],
        &["d/", "d/x (1)", "d/y (0)", "e (0)"],
    );
    check(&[lower(), Tar::new().file(".wh.d", b"").file("d/z", b"2")], &["d/", "d/z (1)", "e (0)"]);
    check(&[lower(), Tar::new().file("d/z", b"2").file(".wh.d", b"")], &["d/", "d/z (1)", "e (0)"]);
    // Whoever wrote the layer could mean a hard link as a whiteout, as AUFS did.
    check(&[lower(), Tar::new().hard_link(".wh.d", ".wh..wh.aufs")], &["e (0)"]);
}

#[test]
fn opaque_directories_hide_what_lower_layers_have_in_them() {
    let lower = || {
        Tar::new()
            .directory("d")
            .file("d/x", b"1")
            .directory("d/s")
            .file("d/s/y", b"1")
            .file("e", b"1")
    };
    let opaque = || Tar::new().file("d/.wh..wh..opq", b"");
    check(&[lower(), opaque()], &["d/", "e (0)"]);
    check(&[lower(), opaque().file("d/new", b"2")], &["d/", "d/new (1)", "e (0)"]);
    let after = Tar::new().file("d/new", b"2").file("d/s/new", b"2").file("d/.wh..wh..opq", b"");
    check(&[lower(), after], &["d/", "d/new (1)", "d/s/", "d/s/new (1)", "e (0)"]);
    check(&[lower(), Tar::new().file(".wh..wh..opq", b"")], &[]);
    // AUFS keeps notes under such names.
    check(
        &[lower(), Tar::new().directory(".wh..wh.plnk").file(".wh..wh.plnk/1.2", b"")],
        &["d/", "d/s/", "d/s/y (0)", "d/x (0)", "e (0)"],
    );
}

#[test]
fn whiteouts_of_impossible_names_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
        check_refused(&[Tar::new().file(name, b"")], "name that no file can have");
    }
    check_refused(&[Tar::new().file(".wh.d/x", b"")], "a whiteout is not a directory");
    check_refused(&[Tar::new().file(".wh.d", b"").file("./.wh.d", b"")], "this whiteout twice");
}

#[test]
fn hard_links_work_across_layers() {
    let lower = || Tar::new().file("a", b"1").symlink("s", "a").directory("d");
    check(&[lower().hard_link("b", "a")], &["a (0)", "b = a", "d/", "s -> a"]);
    check(&[lower(), Tar::new().hard_link("d/b", "/a")], &["a (0)", "d/", "d/b = a", "s -> a"]);
    // Replacing one name leaves the other.
    check(
        &[lower().hard_link("b", "a"), Tar::new().file("a", b"2")],
        &["a (1)", "b (0)", "d/", "s -> a"],
    );
    // A link to a symbolic link is one to the link itself.
    check(&[lower().hard_link("t", "s")], &["a (0)", "d/", "s -> a", "t = s"]);
    check_refused(&[lower().hard_link("b", "d")], "hard link to a directory");
    check_refused(&[lower().hard_link("b", "missing")], "not in the image");
    check_refused(&[Tar::new().hard_link("b", "later").file("later", b"")], "not in the image");
    check_refused(&[lower().hard_link("b", "../a")], "hard link to a path that no entry can have");
    check_refused(&[lower().hard_link("b", "/")], "not in the image");
    check_refused(&[lower().hard_link("a", "a")], "the layer has it twice");
}

#[test]
fn paths_stay_inside() {
    check(
        &[Tar::new().file("/abs/x", b"").file(".//a/./b//c", b"")],
        &["a/", "a/b/", "a/b/c (0)", "abs/", "abs/x (0)"],
    );
    for path in ["../x", "a/../../x", "a/..", "..", "/.."] {
        check_refused(&[Tar::new().file(path, b"")], "leaves the image");
    }
    // Links lead to places inside, whatever they say.
    for target in ["/etc", "../../../etc", "/../etc", "etc", "./etc/"] {
        let layer = Tar::new().symlink("out", target).file("out/passwd", b"");
        check(&[layer], &["etc/", "etc/passwd (0)", &format!("out -> {target}")]);
    }
    check_refused(
        &[Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b"")],
        "loop of symbolic links",
    );
    // Through a link in a lower layer too, and the link stays.
    check(
        &[Tar::new().directory("usr/lib").symlink("lib", "usr/lib"), Tar::new().file("lib/x", b"")],
        &["lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/x (1)"],
    );
}

#[test]
fn a_layer_says_each_path_once() {
    check_refused(&[Tar::new().file("a", b"1").file("a", b"2")], "twice");
    check_refused(&[Tar::new().file("a", b"1").file("./a", b"1")], "twice");
    check_refused(&[Tar::new().file("a", b"1").symlink("a", "b")], "twice");
    check_refused(&[Tar::new().file("a", b"1").directory("a")], "twice");
    check_refused(&[Tar::new().directory("a").file("a", b"1")], "twice");
    check_refused(&[Tar::new().file("a/b", b"1").file("a", b"1")], "twice");
    check_refused(&[Tar::new().file("a", b"1").file("a/b", b"1")], "a file where its directory");
    check_refused(
        &[Tar::new().directory("d").symlink("s", "d").file("d/x", b"").file("s/x", b"")],
        "twice",
    );
    check(&[Tar::new().directory("a").directory("a/")], &["a/"]);
    let other = Tar::new().directory("a").entry(Header::new(b'5', b"a", 0).mode(0o700), b"");
    check_refused(&[other], "twice, and differently");
    // The same path in two layers is what layers are for. What is below a file of a lower layer
    // replaces it.
    check(&[Tar::new().file("a", b"1"), Tar::new().file("a", b"2")], &["a (1)"]);
    check(&[Tar::new().file("a", b"1"), Tar::new().file("a/b", b"2")], &["a/", "a/b (1)"]);
    check_refused(
        &[Tar::new().directory("a"), Tar::new().file("a/b", b"1").file("a", b"1")],
        "twice",
    );
}

#[test]
fn devices_are_left_to_the_runtime() {
    check(
        &[Tar::new()
            .directory("dev")
            .special(b'3', "dev/null")
            .special(b'4', "./dev/sda")
            .symlink("dev/fd", "x")],
        &["dev/"],
    );
    for (typeflag, path) in [(b'3', "null"), (b'4', "etc/sda"), (b'3', "dev"), (b'3', "x/dev/null")]
    {
        check_refused(&[Tar::new().special(typeflag, path)], "device node outside /dev");
    }
    check(&[Tar::new().special(b'6', "pipe")], &["pipe |"]);
}

#[test]
fn attributes_that_are_the_hosts_to_give_are_left_out() {
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.user.b", b"2"),
        ("SCHILY.xattr.user.a", b"1=\n\0"),
        ("SCHILY.xattr.security.capability", b"cap"),
        ("SCHILY.xattr.security.selinux", b"label"),
        ("SCHILY.xattr.security.ima", b"x"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.", b"y"),
    ];
    let tree = merged(&[Tar::new().pax(records).file("f", b"")]).unwrap();
    let (_, file) = tree.children(tree.root()).next().unwrap();
    let xattr = |name: &[u8], value: &[u8]| Xattr { name: name.to_vec(), value: value.to_vec() };
    assert_eq!(
        *tree.node(file).metadata.xattrs,
        [
            xattr(b"security.capability", b"cap"),
            xattr(b"user.a", b"1=\n\0"),
            xattr(b"user.b", b"2")
        ]
    );
}

#[test]
fn the_root_can_be_described_and_only_as_a_directory() {
    let tree = merged(&[Tar::new().entry(Header::new(b'5', b"./", 0).mode(0o711), b"")]).unwrap();
    assert_eq!(tree.node(tree.root()).metadata.mode, 0o711);
    check_refused(&[Tar::new().file(".", b"")], "the root of an image is a directory");
    check_refused(&[Tar::new().symlink("/", "x")], "the root of an image is a directory");
}

#[test]
fn an_aci_is_a_manifest_and_a_rootfs() {
    let apply = |layer: Tar| {
        let mut tree = Tree::new();
        tree.apply(Cursor::new(layer.finish()), LayerFormat::Aci, &Limits::default())
            .map(|()| listing(&tree))
            .map_err(|error| error.to_string())
    };
    let good = Tar::new().file("manifest", b"{}").directory("rootfs");
    assert_eq!(
        apply(
            good.clone()
                .file("rootfs/a", b"")
                .hard_link("rootfs/b", "rootfs/a")
                .file("rootfs/.wh.a", b"")
        ),
        Ok(vec![".wh.a (0)".to_owned(), "a (0)".to_owned(), "b = a".to_owned()])
    );
    assert!(apply(good.clone().file("other", b"")).unwrap_err().contains("nothing else"));
    assert!(
        apply(good.clone().hard_link("rootfs/m", "manifest"))
            .unwrap_err()
            .contains("outside rootfs")
    );
    assert!(apply(good.file("rootfs/../x", b"")).unwrap_err().contains("leaves the image"));
    assert!(apply(Tar::new().file("manifest", b"{}")).unwrap_err().contains("without"));
    assert!(apply(Tar::new().file("rootfs", b"")).unwrap_err().contains("is a directory"));
}

#[test]
fn limits_are_named_with_their_flag() {
    let many = (0..50).fold(Tar::new(), |tar, number| tar.file(&format!("f{number}"), b""));
    let deep = Tar::new().file("d/".repeat(40).trim_end_matches('/'), b"");
    let xattr = Tar::new().pax(&[("SCHILY.xattr.user.a", &[b'x'; 600])]).file("f", b"");
    let through_links = (0..40).fold(Tar::new(), |tar, number| {
        tar.symlink(&format!("l{}", number + 1), &format!("l{number}/d"))
            .directory(&format!("l{number}/d"))
    });
    for (limit, value, layer) in [
        (Limit::Files, 49, many.clone()),
        (Limit::Names, 100, many),
        (Limit::Depth, 39, deep.clone()),
        (Limit::Path, 60, deep),
        (Limit::Xattr, 600, xattr.clone()),
        (Limit::Xattrs, 600, xattr),
        (Limit::Depth, 20, through_links),
        (Limit::Layers, 0, Tar::new()),
    ] {
        let mut limits = Limits::default();
        limits.set(limit, value).unwrap();
        let mut tree = Tree::new();
        let error = tree
            .apply(Cursor::new(layer.finish()), LayerFormat::Changeset, &limits)
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("--image-limit {}=", limit.name())), "{limit:?}: {error}");
    }
}

#[test]
fn names_are_at_most_255_bytes() {
    let name = "n".repeat(255);
    check(&[Tar::new().file(&name, b"")], &[&format!("{name} (0)")]);
    check_refused(&[Tar::new().file(&"n".repeat(256), b"")], "more than 255 bytes");
    check_refused(&[Tar::new().file(&"n".repeat(5000), b"")], "--image-limit path=");
}

/// An entry of a layer, for the model.
#[derive(Clone, Debug)]
enum Said {
    Directory(u16),
    File,
    Whiteout,
    Opaque,
}

fn layers() -> impl Strategy<Value = Vec<Vec<(Vec<&'static str>, Said)>>> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let path = prop::collection::vec(name, 1..4);
    let said = prop_oneof![
        (0_u16..0o1000).prop_map(Said::Directory),
        Just(Said::File),
        Just(Said::File),
        Just(Said::Whiteout),
        Just(Said::Opaque),
    ];
    prop::collection::vec(prop::collection::vec((path, said), 0..8), 1..5)
}

/// Path and what is there: a directory's mode, or the number of a file's layer.
type Model = BTreeMap<Vec<&'static str>, Result<u16, usize>>;

/// Merges a layer as its definition says: first what it hides, then what it brings, parents first.
/// `None` if the layer says two things about one path.
fn model(state: &mut Model, layer: &[(Vec<&'static str>, Said)], number: usize) -> Option<()> {
    let mut brings = BTreeMap::new();
    let mut whiteouts = BTreeSet::new();
    for (path, said) in layer {
        match said {
            Said::Whiteout => {
                state.retain(|other, _| !other.starts_with(path));
                whiteouts.insert((path, true)).then_some(())?;
            }
            Said::Opaque => {
                state.retain(|other, _| !other.starts_with(path) || other == path);
                whiteouts.insert((path, false)).then_some(())?;
            }
            Said::Directory(mode) => match brings.insert(path, Ok(*mode)) {
                Some(before) if before != Ok(*mode) => return None,
                _ => {}
            },
            Said::File => {
                if brings.insert(path, Err(number)).is_some() {
                    return None;
                }
            }
        }
    }
    for (path, brought) in &brings {
        if brought.is_err() && brings.keys().any(|other| other.starts_with(path) && other != path) {
            return None;
        }
    }
    for (path, brought) in brings {
        for length in 1..path.len() {
            let parent = state.entry(path[..length].to_vec()).or_insert(Ok(0o755));
            if parent.is_err() {
                *parent = Ok(0o755);
            }
        }
        if brought.is_err() {
            state.retain(|other, _| !other.starts_with(path));
        }
        state.insert(path.clone(), brought);
    }
    Some(())
}

fn tree_as_model(tree: &Tree) -> BTreeMap<Vec<String>, Result<u16, usize>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![(Vec::new(), tree.root())];
    while let Some((path, directory)) = pending.pop() {
        for (name, id) in tree.children(directory) {
            let mut path: Vec<String> = path.clone();
            path.push(String::from_utf8(name.to_vec()).unwrap());
            let node = tree.node(id);
            found.insert(
                path.clone(),
                match &node.kind {
                    NodeKind::File { layer, .. } => Err(usize::from(*layer)),
                    _ => Ok(node.metadata.mode),
                },
            );
            pending.push((path, id));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn layers_merge_as_they_are_defined_in_whatever_order_they_are_written(layers in layers()) {
        let mut expected = Model::new();
        let mut tree = Tree::new();
        for (number, layer) in layers.iter().enumerate() {
            let mut tar = Tar::new();
            for (path, said) in layer {
                let (name, parents) = path.split_last().unwrap();
                let joined = path.join("/");
                tar = match said {
                    Said::Directory(mode) => {
                        let mut header = Header::new(b'5', joined.as_bytes(), 0);
                        tar.entry(header.mode(u32::from(*mode)), b"")
                    }
                    Said::File => tar.file(&joined, b"x"),
                    Said::Whiteout => {
                        let parents: String = parents.iter().map(|name| format!("{name}/")).collect();
                        tar.file(&format!("{parents}.wh.{name}"), b"")
                    }
                    Said::Opaque => tar.file(&format!("{joined}/.wh..wh..opq"), b""),
                };
            }
            let merged = apply(&mut tree, &tar.finish());
            if model(&mut expected, layer, number).is_none() {
                // A whiteout said twice is only noticed where there is something to hide.
                prop_assert!(merged.is_err() || layer.iter().any(|(_, said)| matches!(said, Said::Whiteout | Said::Opaque)));
                return Ok(());
            }
            prop_assert!(merged.is_ok(), "{:?}", merged);
        }
        let expected: BTreeMap<Vec<String>, _> = expected
            .into_iter()
            .map(|(path, value)| (path.into_iter().map(str::to_owned).collect(), value))
            .collect();
        prop_assert_eq!(tree_as_model(&tree), expected);
    }
}
