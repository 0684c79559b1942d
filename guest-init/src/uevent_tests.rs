use super::{Corruption, Device, Heard, Uevents, parse};
use proptest::prelude::*;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{SendFlags, sendto};
use rustix::thread::{UnshareFlags, unshare_unsafe};

const HEADER: &str = "change@/devices/virtual/block/dm-3";

/// The variables of an announcement, as a kernel sends them.
const VARIABLES: [&str; 9] = [
    "ACTION=change",
    "DEVPATH=/devices/virtual/block/dm-3",
    "SUBSYSTEM=block",
    "DM_VERITY_ERR_BLOCK_NR=0,1234",
    "MAJOR=253",
    "MINOR=3",
    "DEVNAME=dm-3",
    "DEVTYPE=disk",
    "SEQNUM=1021",
];

fn message(header: &str, variables: &[&str]) -> Vec<u8> {
    let mut message = header.to_owned() + "\0";
    variables.iter().for_each(|variable| message += &format!("{variable}\0"));
    message.into_bytes()
}

/// The same with one of the variables replaced.
fn with(index: usize, variable: &str) -> Vec<u8> {
    let mut variables = VARIABLES;
    variables[index] = variable;
    message(HEADER, &variables)
}

const FOUND: Corruption = Corruption { device: Device { major: 253, minor: 3 }, block: 1234 };

#[test]
fn a_corrupted_block_of_data_or_of_hashes_is_understood() {
    assert_eq!(parse(&message(HEADER, &VARIABLES)), Some(FOUND));
    assert_eq!(parse(&with(3, "DM_VERITY_ERR_BLOCK_NR=1,1234")), Some(FOUND));
    let last = parse(&with(3, "DM_VERITY_ERR_BLOCK_NR=0,18446744073709551615"));
    assert_eq!(last, Some(Corruption { block: u64::MAX, ..FOUND }));
}

#[test]
fn other_announcements_say_nothing() {
    for (index, variable) in [
        (0, "ACTION=add"),
        (1, "DEVPATH=/devices/virtual/block/dm-4"),
        (2, "SUBSYSTEM=net"),
        (3, "DM_VERITY_ERR_BLOCK_NR"),
        (3, "DM_VERITY_ERR_BLOCK_NR="),
        (3, "DM_VERITY_ERR_BLOCK_NR=1234"),
        (3, "DM_VERITY_ERR_BLOCK_NR=2,1234"),
        (3, "DM_VERITY_ERR_BLOCK_NR=0,"),
        (3, "DM_VERITY_ERR_BLOCK_NR=0,+1"),
        (3, "DM_VERITY_ERR_BLOCK_NR=0,1,2"),
        (3, "DM_VERITY_ERR_BLOCK_NR=0,18446744073709551616"),
        (3, "XDM_VERITY_ERR_BLOCK_NR=0,1234"),
        (3, "DM_ACTIVATION=1"),
        (4, "MAJOR=x"),
        (5, "MINOR=-1"),
        // Twice, in agreement or not.
        (8, "DM_VERITY_ERR_BLOCK_NR=0,1234"),
        (8, "MINOR=4"),
        (8, "ACTION=change"),
    ] {
        assert_eq!(parse(&with(index, variable)), None, "{variable}");
    }
    for header in ["", "change", "add@/devices/virtual/block/dm-3", "change@/devices", "@"] {
        assert_eq!(parse(&message(header, &VARIABLES)), None, "{header}");
    }
    // What udev's group carries.
    assert_eq!(parse(&message("libudev", &VARIABLES)), None);
}

#[test]
fn an_announcement_that_is_cut_off_says_nothing() {
    let message = message(HEADER, &VARIABLES);
    let minor = message.windows(9).position(|window| window == b"\0MINOR=3\0").unwrap();
    for end in 0..message.len() {
        let parsed = parse(&message[..end]);
        // Between two variables it cannot be seen, and behind the last that matters need not be.
        let whole = message[..end].ends_with(b"\0") && end > minor + 1;
        assert_eq!(parsed, whole.then_some(FOUND), "{end}");
    }
}

/// The kernel lets root announce in its place (`uevent_net_rcv_skb`); what root sends to the group
/// by itself bears the number of its socket.
#[test]
fn only_what_the_kernel_announces_is_heard() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: announcing takes root");
        return;
    }
    std::thread::spawn(|| {
        // SAFETY: only the network of this thread changes, which has no socket yet.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        let uevents = Uevents::open().unwrap();
        assert_eq!(uevents.next(), None);
        let announcer = Uevents::open().unwrap();
        let send = |bytes: &[u8], to: SocketAddrNetlink| {
            sendto(&announcer, bytes, SendFlags::empty(), &to).unwrap();
        };
        // In the place of the kernel: with a header of netlink, which is taken off, and without the
        // number at the end, which is added.
        let announce = |message: &[u8]| {
            let length = u32::try_from(16 + message.len()).unwrap();
            let mut request = length.to_ne_bytes().to_vec();
            // The first type that is not netlink's own, and `NLM_F_REQUEST`.
            request.extend([16_u16, 1].map(u16::to_ne_bytes).concat());
            request.extend([0; 8]);
            request.extend(message);
            send(&request, SocketAddrNetlink::new(0, 0));
        };

        send(&message(HEADER, &VARIABLES), SocketAddrNetlink::new(0, 1));
        assert_eq!(uevents.next(), None, "from a program");
        announce(&with(3, "DM_ACTIVATION=1"));
        announce(&message(HEADER, &VARIABLES[..8]));
        assert_eq!(uevents.next(), Some(Heard::Corruption(FOUND)));
        assert_eq!(uevents.next(), None);

        // As many as dm-verity makes for a device, and more than the socket holds.
        for (count, lost) in [(100, false), (10_000, true)] {
            (0..count).for_each(|_| announce(&message(HEADER, &VARIABLES[..8])));
            let heard: Vec<_> = std::iter::from_fn(|| uevents.next()).collect();
            assert_eq!(heard.contains(&Heard::Lost), lost, "{count}");
            assert!(heard.len() >= 100, "{}", heard.len());
        }
    })
    .join()
    .unwrap();
}

proptest! {
    #[test]
    fn any_bytes_can_be_announced(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(parse(&bytes), None);
    }

    #[test]
    fn any_change_of_a_byte_is_survived(index: prop::sample::Index, byte: u8) {
        let mut message = message(HEADER, &VARIABLES);
        let index = index.index(message.len());
        message[index] = byte;
        parse(&message);
    }

    #[test]
    fn numbers_are_read_as_they_are_written(major: u32, minor: u32, kind in 0..2, block: u64) {
        let mut variables = VARIABLES.map(str::to_owned);
        variables[3] = format!("DM_VERITY_ERR_BLOCK_NR={kind},{block}");
        variables[4] = format!("MAJOR={major}");
        variables[5] = format!("MINOR={minor}");
        let variables = variables.each_ref().map(String::as_str);
        let expected = Corruption { device: Device { major, minor }, block };
        prop_assert_eq!(parse(&message(HEADER, &variables)), Some(expected));
    }
}
