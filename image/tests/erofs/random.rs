//! Any images.

use super::{ACL, CAPABILITY, Image, pattern};
use crate::common::{Header, Tar};
use proptest::{prelude::*, sample::subsequence};
use std::collections::BTreeSet;

/// An entry of a random image.
#[derive(Clone, Debug)]
struct Item {
    /// Which of the directories before it is its own.
    parent: prop::sample::Index,
    name: Vec<u8>,
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    time: String,
    xattrs: Vec<(String, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Kind {
    Directory,
    File(usize),
    Sparse(u64, Vec<(u64, u64)>),
    Symlink(String),
    Fifo,
    /// Another name of one of the files before it.
    Link(prop::sample::Index),
}

fn kinds() -> impl Strategy<Value = Kind> {
    let size = prop_oneof![0_usize..300, 3900_usize..4200, 8100_usize..8300, 0_usize..60_000];
    let pieces = prop::collection::vec((0_u64..30_000, 1_u64..9000), 0..6);
    let pieces = (pieces, 0_u64..100_000).prop_map(|(gaps, end)| {
        let mut at = 0;
        let mut pieces = Vec::new();
        for (gap, length) in gaps {
            pieces.push((at + gap, length));
            at += gap + length;
        }
        Kind::Sparse(at + end, pieces)
    });
    prop_oneof![
        3 => Just(Kind::Directory),
        6 => size.prop_map(Kind::File),
        2 => pieces,
        1 => "[a-z./]{1,80}".prop_map(Kind::Symlink),
        1 => Just(Kind::Fifo),
        2 => any::<prop::sample::Index>().prop_map(Kind::Link),
    ]
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let byte = prop_oneof![Just(b'.'), Just(b'a'), Just(b'-'), Just(b'0'), 1_u8..=255];
    let name = prop_oneof![
        8 => prop::collection::vec(byte.clone(), 1..5),
        2 => prop::collection::vec(byte, 200..=255),
    ];
    let time = (-3_000_000_000_i64..9_000_000_000, 0_u32..1_000_000_000)
        .prop_map(|(seconds, nanoseconds)| format!("{seconds}.{nanoseconds:09}"));
    let value = prop_oneof![4 => 0_usize..40, 1 => 0_usize..9000].prop_map(pattern);
    let xattrs = (subsequence(vec!["user.a", "user.b", "user.long.name"], 0..3), value)
        .prop_map(|(names, value)| names.into_iter().map(move |it| (it.to_owned(), value.clone())));
    let known = subsequence(
        vec![("security.capability", CAPABILITY), ("system.posix_acl_access", ACL)],
        0..2,
    );
    let xattrs = (xattrs, known).prop_map(|(xattrs, known)| {
        let known = known.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec()));
        xattrs.chain(known).collect()
    });
    let item = (
        any::<prop::sample::Index>(),
        name,
        kinds(),
        0_u32..0o10000,
        any::<(u16, u16)>(),
        time,
        xattrs,
    )
        .prop_map(|(parent, name, kind, mode, owner, time, xattrs)| {
            let owner = (u32::from(owner.0) * 60_000, u32::from(owner.1));
            Item { parent, name, kind, mode, owner, time, xattrs }
        });
    prop::collection::vec(item, 0..60)
}

/// The entries as archives of one entry each: those that are not hard links, in an order that can be
/// changed, and the hard links.
fn archives(items: &[Item]) -> (Vec<Tar>, Vec<Tar>) {
    let mut directories = vec![Vec::new()];
    let mut files: Vec<Vec<u8>> = Vec::new();
    let mut paths = BTreeSet::new();
    let (mut plain, mut links) = (Vec::new(), Vec::new());
    for (number, item) in items.iter().enumerate() {
        let parent = &directories[item.parent.index(directories.len())];
        let mut path: Vec<u8> = [parent, &item.name[..]].concat();
        let slash = item.name.contains(&b'/');
        let reserved = matches!(&item.name[..], b"." | b"..") || item.name.starts_with(b".wh.");
        if slash || reserved || path.len() > 4000 || path == b"dev" || !paths.insert(path.clone()) {
            continue;
        }
        let uid = item.owner.0.to_string();
        let gid = item.owner.1.to_string();
        let keys: Vec<_> =
            item.xattrs.iter().map(|(name, _)| format!("SCHILY.xattr.{name}")).collect();
        let target = match &item.kind {
            Kind::Symlink(target) => target.clone().into_bytes(),
            Kind::Link(index) if !files.is_empty() => files[index.index(files.len())].clone(),
            Kind::Link(_) => continue,
            _ => Vec::new(),
        };
        let sparse = matches!(item.kind, Kind::Sparse(..));
        let path_key = if sparse { "GNU.sparse.name" } else { "path" };
        let mut records: Vec<(&str, &[u8])> = vec![
            (path_key, &path),
            ("uid", uid.as_bytes()),
            ("gid", gid.as_bytes()),
            ("mtime", item.time.as_bytes()),
        ];
        if !target.is_empty() {
            records.push(("linkpath", &target));
        }
        records.extend(
            keys.iter().zip(&item.xattrs).map(|(key, (_, value))| (key.as_str(), &value[..])),
        );
        let (typeflag, content, map) = match &item.kind {
            Kind::Directory => (b'5', Vec::new(), None),
            Kind::File(size) => {
                let mut content = pattern(*size);
                content
                    .iter_mut()
                    .for_each(|byte| *byte = byte.wrapping_add(number.to_le_bytes()[0]));
                (b'0', content, None)
            }
            Kind::Sparse(size, pieces) => {
                let total = pieces.iter().map(|(_, length)| length).sum::<u64>();
                let map: Vec<_> =
                    pieces.iter().map(|(offset, length)| format!("{offset},{length}")).collect();
                let map = (size.to_string(), pieces.len().to_string(), map.join(","));
                (b'0', pattern(usize::try_from(total).unwrap()), Some(map))
            }
            Kind::Symlink(_) => (b'2', Vec::new(), None),
            Kind::Fifo => (b'6', Vec::new(), None),
            Kind::Link(_) => (b'1', Vec::new(), None),
        };
        if let Some((size, count, map)) = &map {
            records.push(("GNU.sparse.size", size.as_bytes()));
            records.push(("GNU.sparse.numblocks", count.as_bytes()));
            if !map.is_empty() {
                records.push(("GNU.sparse.map", map.as_bytes()));
            }
        }
        let mut header = Header::new(typeflag, b"x", content.len() as u64);
        let tar = Tar::new().pax(&records).entry(header.mode(item.mode), &content);
        match item.kind {
            Kind::Link(_) => links.push(tar),
            Kind::Directory => {
                plain.push(tar);
                path.push(b'/');
                directories.push(path);
            }
            _ => {
                plain.push(tar);
                files.push(path);
            }
        }
    }
    (plain, links)
}

fn joined<'a>(parts: impl IntoIterator<Item = &'a Tar>) -> Tar {
    Tar(parts.into_iter().flat_map(|part| part.0.clone()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_kernel_reads_what_was_written(items in items()) {
        let (plain, links) = archives(&items);
        Image::new([joined(plain.iter().chain(&links))]).check();
    }

    #[test]
    fn the_same_image_gives_the_same_bytes(
        (items, order, split) in items().prop_flat_map(|items| {
            let order = Just((0..archives(&items).0.len()).collect::<Vec<_>>()).prop_shuffle();
            (Just(items), order, any::<prop::sample::Index>())
        }),
    ) {
        let (plain, links) = archives(&items);
        let image = Image::new([joined(plain.iter().chain(&links))]);
        let bytes = image.bytes();
        prop_assert!(image.bytes() == bytes, "written again");
        // In another order within the layer; hard links after what they name.
        let shuffled = order.iter().map(|&number| &plain[number]);
        let other = Image::new([joined(shuffled.clone().chain(&links))]);
        prop_assert!(other.bytes() == bytes, "in another order");
        // In several layers, the first of which holds what another one replaces.
        let (first, second) = plain.split_at(split.index(plain.len() + 1));
        let last = joined(second.iter().chain(&links));
        let layers = [joined(shuffled), joined(first), last];
        prop_assert!(Image::new(layers).bytes() == bytes, "in other layers");
    }
}
