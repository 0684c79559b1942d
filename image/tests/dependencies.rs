//! How ACIs are laid over those that they depend on.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod common;

use common::{
    Header, Tar,
    aci::{Below as _, Image, image, listing, rendered, rendered_within, root},
};
use sandbox_image::{
    Limit, Limits,
    tree::{Dependent, NodeKind, OrderError, RenderError, in_order},
};
use std::collections::HashMap;

#[track_caller]
fn check(images: &[Image], expected: &[&str]) {
    assert_eq!(listing(&rendered(images).unwrap()), expected);
}

/// "The dependencies are applied in order and each image dependency can overwrite files from the
/// previous dependency."
#[test]
fn later_dependencies_overwrite_earlier_ones_and_the_image_all_of_them() {
    let first = image(root().d("d", 0o700).f("d/x").f("d/1").f("all").f("two"));
    let second = image(root().d("d", 0o750).f("d/y").f("d/2").f("all").f("two"));
    let upper = |on: &[usize]| image(root().f("all").f("d/own")).on(on);
    check(
        &[first.clone(), second.clone(), upper(&[0, 1])],
        &["all (2)", "d/ 750", "d/1 (0)", "d/2 (1)", "d/own (2)", "d/x (0)", "d/y (1)", "two (1)"],
    );
    check(
        &[first, second, upper(&[1, 0])],
        &["all (2)", "d/ 700", "d/1 (0)", "d/2 (1)", "d/own (2)", "d/x (0)", "d/y (1)", "two (0)"],
    );
}

#[test]
fn dependencies_of_dependencies_are_below_them() {
    let bottom = image(root().f("a").f("b").f("c"));
    let middle = image(root().f("b").f("c")).on(&[0]);
    let top = image(root().f("c")).on(&[1]);
    check(&[bottom, middle, top], &["a (0)", "b (1)", "c (2)"]);
}

#[test]
fn the_same_image_can_be_below_several() {
    let base = image(root().f("a").f("b"));
    let left = image(root().f("a").f("left")).on(&[0]);
    let right = image(root().f("right")).on(&[0]);
    // The right one comes with the base, which is laid over what the left one put there.
    let top = image(root()).on(&[1, 2]);
    check(&[base, left, right, top], &["a (0)", "b (0)", "left (1)", "right (2)"]);
}

#[test]
fn a_file_replaces_a_directory_with_all_below_and_a_directory_a_file() {
    let lower = image(root().d("d", 0o755).d("d/e", 0o755).f("d/e/x").f("f").l("s", "d"));
    let upper = image(root().f("d").d("f", 0o711).f("f/y").d("s", 0o711).f("s/z"));
    let expected = ["d (1)", "f/ 711", "f/y (1)", "s/ 711", "s/z (1)"];
    let top = image(root()).on(&[0, 1]);
    check(&[lower.clone(), upper.clone(), top], &expected);
    // The same whether it is laid down as an image of its own or as the files of the last one.
    check(&[lower, upper.on(&[0])], &expected);
}

#[test]
fn directories_that_an_image_does_not_speak_of_stay_as_they_are() {
    let lower = image(root().d("usr", 0o711).d("usr/lib", 0o700).l("lib", "usr/lib"));
    let upper = image(root().f("usr/x").f("lib/y").f("new/z"));
    let expected = [
        "lib -> usr/lib",
        "new/ 755",
        "new/z (1)",
        "usr/ 711",
        "usr/lib/ 700",
        "usr/lib/y (1)",
        "usr/x (1)",
    ];
    check(&[lower.clone(), upper.clone().on(&[0])], &expected);
    check(&[lower, upper, image(root()).on(&[0, 1])], &expected);
}

#[test]
fn the_root_is_what_the_last_image_says_that_speaks_of_it() {
    let root_of = |mode| {
        let mut header = Header::new(b'5', b"rootfs", 0);
        image(Tar::new().entry(header.mode(mode), b"").f("a"))
    };
    let silent = || image(Tar::new().f("b"));
    let mode = |images: &[Image]| {
        let tree = rendered(images).unwrap();
        tree.node(tree.root()).metadata.mode
    };
    assert_eq!(mode(&[root_of(0o700), silent().on(&[0])]), 0o700);
    assert_eq!(mode(&[root_of(0o700), silent(), silent().on(&[0, 1])]), 0o700);
    assert_eq!(mode(&[silent(), root_of(0o700), silent().on(&[0, 1])]), 0o700);
    assert_eq!(mode(&[root_of(0o700), root_of(0o711), silent().on(&[0, 1])]), 0o711);
    assert_eq!(mode(&[root_of(0o700), root_of(0o711).on(&[0])]), 0o711);
    assert_eq!(mode(&[silent()]), 0o755);
}

#[test]
fn hard_links_stay_links_and_contents_are_found_where_they_are() {
    let first = image(root().f("a").hard_link("rootfs/b", "rootfs/a").f("c"));
    let second = image(root().d("d", 0o755).f("d/x").hard_link("rootfs/y", "rootfs/d/x").f("c"));
    let top = image(root().hard_link("rootfs/z", "rootfs/a")).on(&[0, 1]);
    let images = [first, second, top];
    check(&images, &["a (0)", "b = a", "c (1)", "d/ 755", "d/x (1)", "y = d/x", "z = a"]);
    let tree = rendered(&images).unwrap();
    for id in tree.link_counts().into_keys() {
        if let NodeKind::File { layer, content } = &tree.node(id).kind {
            let archive = images[usize::from(*layer)].files.clone().finish();
            for extent in content.extents() {
                let at = usize::try_from(extent.position).unwrap();
                assert_eq!(archive[at], b'x');
            }
        }
    }
}

/// "whitelist of absolute paths that will exist in the app's rootfs after rendering. This must be a
/// complete and absolute set."
#[test]
fn a_whitelist_is_a_complete_set() {
    let base = image(root().d("etc", 0o711).f("etc/a").f("etc/b").d("var", 0o755).f("var/x"));
    let top = |paths: &[&str]| image(root().f("own").f("etc/c")).on(&[0]).only(paths);
    let check = |paths: &[&str], expected: &[&str]| check(&[base.clone(), top(paths)], expected);
    check(
        &[],
        &["etc/ 711", "etc/a (0)", "etc/b (0)", "etc/c (1)", "own (1)", "var/ 755", "var/x (0)"],
    );
    check(&["/etc/a", "/own"], &["etc/ 711", "etc/a (0)", "own (1)"]);
    check(&["/etc/c"], &["etc/ 711", "etc/c (1)"]);
    // A directory does not bring what is in it.
    check(&["/etc/systemd", "/var"], &["var/ 755"]);
    check(&["/var/", "//etc/./b"], &["etc/ 711", "etc/b (0)", "var/ 755"]);
    // What is not there is not missed, nor does it bring the directories above it.
    check(&["/etc/no", "/own/no", "/no/no", "/own"], &["own (1)"]);
    check(&["/"], &[]);
}

#[test]
fn a_whitelist_names_paths_and_follows_no_link() {
    let base = image(root().d("d", 0o755).f("d/a").l("s", "d").hard_link("rootfs/h", "rootfs/d/a"));
    let check = |paths: &[&str], expected: &[&str]| {
        check(&[base.clone(), image(root()).on(&[0]).only(paths)], expected);
    };
    check(&["/s/a"], &[]);
    check(&["/s"], &["s -> d"]);
    check(&["/h"], &["h (0)"]);
    check(&["/d/../h"], &[]);
}

#[test]
fn a_whitelist_is_about_its_own_image_and_what_is_below_it() {
    let base = image(root().f("a").f("b").f("c"));
    let middle = image(root().f("m").f("n")).on(&[0]).only(&["/a", "/m"]);
    check(&[base.clone(), middle.clone(), image(root()).on(&[1])], &["a (0)", "m (1)"]);
    // What the middle one left out is still there for who needs the base without it.
    let both = image(root()).on(&[1, 0]);
    check(&[base.clone(), middle.clone(), both], &["a (0)", "b (0)", "c (0)", "m (1)"]);
    // A whitelist further up does not bring back what one below it left out.
    let narrow = image(root()).on(&[1]).only(&["/a", "/b"]);
    check(&[base, middle, narrow], &["a (0)"]);
}

#[test]
fn devices_of_dependencies_are_left_to_the_runtime_as_well() {
    let base = image(root().d("dev", 0o755).special(b'3', "rootfs/dev/null").f("dev/x"));
    check(&[base, image(root()).on(&[0])], &["dev/ 755"]);
    let images = [image(root().special(b'3', "rootfs/null")), image(root()).on(&[0])];
    let error = rendered(&images).unwrap_err();
    assert!(matches!(error, RenderError::Image { image: 0, .. }), "{error}");
}

#[test]
fn an_image_is_at_fault_that_cannot_be_laid_down() {
    // Over a link, both names of the upper image mean one file.
    let lower = image(root().l("a", "b").d("b", 0o755));
    let upper = image(root().f("a/x").f("b/x"));
    for images in [
        vec![lower.clone(), upper.clone().on(&[0])],
        vec![lower.clone(), upper, image(root()).on(&[0, 1])],
    ] {
        let last = images.len() - 1;
        let error = rendered(&images).unwrap_err();
        assert!(matches!(error, RenderError::Image { image, .. } if image == last), "{error}");
        assert!(error.to_string().contains("b/x' is refused: the layer has it twice"), "{error}");
    }
    let looped = image(root().l("a", "b").l("b", "a"));
    let error = rendered(&[looped, image(root().f("a/x")), image(root()).on(&[0, 1])]);
    assert!(error.unwrap_err().to_string().contains("loop of symbolic links"));
}

#[test]
fn what_is_laid_down_counts_as_often_as_it_is() {
    let files = |count| (0..count).fold(root(), |tar, number| tar.f(&format!("f{number}")));
    let limited = |limit, value| {
        let mut limits = Limits::default();
        limits.set(limit, value).unwrap();
        limits
    };
    #[track_caller]
    fn check_over(images: &[Image], limit: Limit, limits: &Limits) {
        let error = rendered_within(images, limits).unwrap_err().to_string();
        assert!(error.contains(&format!("--image-limit {}=", limit.name())), "{error}");
    }
    // 42 entries each, of which a chain lays nothing down twice.
    let chain = [image(files(40)), image(files(40)).on(&[0]), image(files(40)).on(&[1])];
    assert!(rendered_within(&chain, &limited(Limit::Files, 126)).is_ok());
    check_over(&chain, Limit::Files, &limited(Limit::Files, 125));
    let many = vec![0; 200];
    let files_again = [image(files(10)), image(root()).on(&many)];
    check_over(&files_again, Limit::Files, &limited(Limit::Files, 2000));
    let names = [image(files(10)), image(root()).on(&many)];
    check_over(&names, Limit::Names, &limited(Limit::Names, 3000));
    let xattr = root().pax(&[("SCHILY.xattr.user.a", &[b'x'; 600])]).f("f");
    let xattrs = [image(xattr), image(root()).on(&many)];
    check_over(&xattrs, Limit::Xattrs, &limited(Limit::Xattrs, 100_000));
    check_over(&chain, Limit::Layers, &limited(Limit::Layers, 2));
    // A link makes what is laid down over it deeper than both images are.
    let deep = image(root().f(&"d/".repeat(12).trim_end_matches('/').replace("d/d", "d/e")));
    let link = image(root().l("d", "1/2/3/4/5/6/7/8/9/10").f("1/2/3/4/5/6/7/8/9/10/x"));
    check_over(&[link, deep, image(root()).on(&[0, 1])], Limit::Depth, &limited(Limit::Depth, 19));
}

#[test]
fn a_list_in_the_wrong_order_is_refused() {
    for images in [
        vec![],
        vec![image(root()).on(&[0])],
        vec![image(root()).on(&[1]), image(root())],
        vec![image(root()), image(root()).on(&[7])],
    ] {
        assert!(matches!(rendered(&images), Err(RenderError::Order)));
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Failed {
    Order(OrderError),
    Missing(&'static str),
}

impl From<OrderError> for Failed {
    fn from(error: OrderError) -> Self {
        Self::Order(error)
    }
}

fn ordered(images: &[(&'static str, &[&'static str])]) -> Result<Vec<String>, Failed> {
    let known: HashMap<_, _> = images.iter().copied().collect();
    let mut asked = Vec::new();
    let list = in_order("top", &Limits::default(), |image| {
        assert!(!asked.contains(image), "{image} is asked about twice");
        asked.push(*image);
        known.get(image).map(|below| below.to_vec()).ok_or(Failed::Missing(image))
    })?;
    Ok(list
        .iter()
        .enumerate()
        .map(|(place, Dependent { image, dependencies })| {
            assert!(dependencies.iter().all(|&dependency| dependency < place));
            let below = dependencies.iter().map(|&below| list[below].image);
            format!("{image}: {}", below.collect::<Vec<_>>().join(" "))
        })
        .collect())
}

#[test]
fn images_are_ordered_depth_first_as_they_are_named() {
    assert_eq!(ordered(&[("top", &[])]), Ok(vec!["top: ".to_owned()]));
    let list = ordered(&[("top", &["b", "c"]), ("b", &[]), ("c", &["d"]), ("d", &[])]).unwrap();
    assert_eq!(list, ["b: ", "d: ", "c: d", "top: b c"]);
    let list = ordered(&[("top", &["l", "r", "l"]), ("l", &["x"]), ("r", &["x"]), ("x", &[])]);
    assert_eq!(list.unwrap(), ["x: ", "l: x", "r: x", "top: l r l"]);
    assert_eq!(ordered(&[("top", &["no"])]), Err(Failed::Missing("no")));
}

#[test]
fn images_that_need_themselves_or_too_many_others_are_refused() {
    for images in [
        &[("top", &["top"][..])][..],
        &[("top", &["a"]), ("a", &["b"]), ("b", &["top"])],
        &[("top", &["a", "b"]), ("a", &[]), ("b", &["c"]), ("c", &["a", "b"])],
    ] {
        let Err(Failed::Order(error @ OrderError::Cycle(_))) = ordered(images) else {
            panic!("{:?}", ordered(images));
        };
        assert!(error.to_string().contains("depends on itself"), "{error}");
    }
    // An endless chain, an endless row, and a name that comes over and over.
    let limits = Limits::default();
    let chain = in_order(0, &limits, |below| Ok::<_, OrderError>(vec![below + 1]));
    assert!(matches!(chain, Err(OrderError::Limit(error)) if error.limit == Limit::Layers));
    let row = in_order(0, &limits, |&below| {
        Ok::<_, OrderError>(if below == 0 { (1..400).collect() } else { vec![] })
    });
    assert!(matches!(row, Err(OrderError::Limit(error)) if error.limit == Limit::Layers));
    let again = in_order(0, &limits, |&below| {
        Ok::<_, OrderError>(if below == 0 { vec![1; 10_000] } else { vec![] })
    });
    assert!(matches!(again, Err(OrderError::TooMany)));
}
