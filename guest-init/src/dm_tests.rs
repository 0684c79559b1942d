use super::{DEV_CREATE, DEV_SUSPEND, Header, Request, Spec, TABLE_LOAD, Target, c_string};
use std::mem::offset_of;

/// As a C compiler lays the structures of the kernel's header out.
#[test]
fn structures_are_those_of_the_kernel() {
    assert_eq!((size_of::<Header>(), size_of::<Spec>()), (312, 40));
    assert_eq!(offset_of!(Header, data_size), 12);
    assert_eq!(offset_of!(Header, data_start), 16);
    assert_eq!(offset_of!(Header, target_count), 20);
    assert_eq!(offset_of!(Header, flags), 28);
    assert_eq!(offset_of!(Header, dev), 40);
    assert_eq!(offset_of!(Header, name), 48);
    assert_eq!(offset_of!(Header, uuid), 176);
    assert_eq!(offset_of!(Spec, length), 8);
    assert_eq!(offset_of!(Spec, next), 20);
    assert_eq!(offset_of!(Spec, target_type), 24);
    // "Parameter string starts immediately after this object."
    assert_eq!(offset_of!(Request, spec), 312);
    assert_eq!(offset_of!(Request, parameters), 352);
    assert_eq!(size_of::<Request>(), 608);
}

/// As strace shows them.
#[test]
fn requests_have_the_kernels_numbers() {
    assert_eq!([DEV_CREATE, DEV_SUSPEND, TABLE_LOAD], [0xc138_fd03, 0xc138_fd06, 0xc138_fd09]);
}

#[test]
fn a_request_names_one_read_only_target() {
    let target = Target { kind: "verity", sectors: 80, parameters: "1 2 3".into() };
    let Request { header, spec, parameters } = Request::new("image-0", &target).unwrap();
    assert_eq!(header.version, [4, 0, 0]);
    assert_eq!((header.data_size, header.data_start), (608, 312));
    assert_eq!((header.target_count, header.flags), (1, 1));
    assert_eq!(&header.name[..8], b"image-0\0");
    assert_eq!((spec.sector_start, spec.length), (0, 80));
    assert_eq!(&spec.target_type[..7], b"verity\0");
    assert_eq!(&parameters[..6], b"1 2 3\0");
}

#[test]
fn texts_that_do_not_fit_are_refused() {
    assert_eq!(c_string::<4>("abc").unwrap(), *b"abc\0");
    for text in ["abcd", "a\0b"] {
        assert!(c_string::<4>(text).is_err(), "{text}");
    }
    let target = Target { kind: "verity", sectors: 8, parameters: "x".repeat(256) };
    assert!(Request::new("image-0", &target).is_err());
}
