use crate::*;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = Text> {
    proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Text::new)
}

fn status() -> impl Strategy<Value = ExitStatus> {
    prop_oneof![any::<u8>().prop_map(ExitStatus::Code), any::<u8>().prop_map(ExitStatus::Signal)]
}

fn to_host() -> impl Strategy<Value = ToHost> {
    prop_oneof![
        (any::<u16>(), text()).prop_map(|(version, kernel)| ToHost::Hello { version, kernel }),
        any::<[u8; secret::KEY]>().prop_map(|public| ToHost::Key { public }),
        any::<u16>().prop_map(|app| ToHost::Started { app }),
        (any::<u16>(), status(), any::<bool>()).prop_map(|(app, status, out_of_memory)| {
            ToHost::Exited { app, status, out_of_memory }
        }),
        (any::<Option<u16>>(), text()).prop_map(|(app, error)| ToHost::Failed { app, error }),
        (any::<u16>(), any::<u64>()).prop_map(|(image, block)| ToHost::Corrupted { image, block }),
        text().prop_map(|text| ToHost::Log { level: Level::Warning, text }),
        Just(ToHost::Finished),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..40)
}

fn list<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(item, 0..4)
}

fn image() -> impl Strategy<Value = ImageDisk> {
    (".{0,24}", any::<(u64, u64, [u8; 32])>()).prop_map(
        |(serial, (data_blocks, hash_start, root_hash))| ImageDisk {
            serial,
            verity: Verity { data_blocks, hash_start, root_hash },
        },
    )
}

fn volume() -> impl Strategy<Value = Volume> {
    let source = prop_oneof![
        ".{0,24}".prop_map(VolumeSource::Share),
        any::<(u32, u32, u32)>().prop_map(|(mode, uid, gid)| VolumeSource::Empty {
            mode,
            uid,
            gid
        }),
    ];
    (".{0,24}", source).prop_map(|(name, source)| Volume { name, source })
}

fn size() -> impl Strategy<Value = TerminalSize> {
    any::<(u16, u16)>().prop_map(|(rows, columns)| TerminalSize { rows, columns })
}

fn stdio() -> impl Strategy<Value = Stdio> {
    prop_oneof![
        (any::<u32>(), size()).prop_map(|(port, size)| Stdio::Terminal { port, size }),
        any::<(Option<u32>, u32, u32)>().prop_map(|(stdin, stdout, stderr)| Stdio::Streams {
            stdin,
            stdout,
            stderr
        }),
    ]
}

fn app() -> impl Strategy<Value = App> {
    let root = prop_oneof![".{0,24}".prop_map(Root::Share), any::<u16>().prop_map(Root::Image)];
    let mount = (any::<(u16, bool)>(), bytes()).prop_map(|((volume, read_only), target)| Mount {
        volume,
        target,
        read_only,
    });
    let names = (".{0,24}", root, any::<bool>());
    let program = (list(bytes()), list(bytes()), bytes());
    let user = (".{0,24}", ".{0,24}", list(any::<u32>()));
    let rest = (list(mount), any::<(Option<u64>, Option<u32>)>(), stdio());
    (names, program, user, rest).prop_map(|(names, program, user, rest)| App {
        name: names.0,
        root: names.1,
        root_read_only: names.2,
        argv: program.0,
        environment: program.1,
        working_directory: program.2,
        user: user.0,
        group: user.1,
        supplementary_groups: user.2,
        mounts: rest.0,
        memory: rest.1.0,
        cpu_millis: rest.1.1,
        stdio: rest.2,
    })
}

fn pod() -> impl Strategy<Value = Pod> {
    let disks = (list(image()), proptest::option::of(".{0,24}"));
    let secret = (".{0,24}", ".{0,24}").prop_map(|(name, sealed_as)| Secret { name, sealed_as });
    let measured = (".{0,24}", ".{0,24}", list(secret))
        .prop_map(|(uuid, tenant, secrets)| Measured { uuid, tenant, secrets });
    let rest = (list(volume()), list(app()), proptest::option::of(measured));
    (".{0,24}", proptest::option::of(".{0,24}"), disks, rest).prop_map(
        |(hostname, share_tag, (images, scratch), (volumes, apps, measured))| Pod {
            hostname,
            share_tag,
            images,
            scratch,
            volumes,
            apps,
            measured,
        },
    )
}

fn to_guest() -> impl Strategy<Value = ToGuest> {
    prop_oneof![
        pod().prop_map(ToGuest::Setup),
        list(bytes()).prop_map(|sealed| ToGuest::Secrets { sealed }),
        any::<(u16, u8)>().prop_map(|(app, signal)| ToGuest::Signal { app, signal }),
        (any::<u16>(), size()).prop_map(|(app, size)| ToGuest::Resize { app, size }),
    ]
}

proptest! {
    #[test]
    fn what_the_guest_sends_arrives(messages in proptest::collection::vec(to_host(), 0..5)) {
        let mut wire = Vec::new();
        for message in &messages {
            write_to_host(&mut wire, message).unwrap();
        }
        let mut wire = wire.as_slice();
        for message in messages {
            prop_assert_eq!(read_to_host(&mut wire).unwrap(), Some(message));
        }
        prop_assert!(read_to_host(&mut wire).unwrap().is_none());
    }

    #[test]
    fn what_the_host_sends_arrives(message in to_guest()) {
        let mut wire = Vec::new();
        write_to_guest(&mut wire, &message).unwrap();
        let mut wire = wire.as_slice();
        prop_assert_eq!(read_to_guest(&mut wire).unwrap(), Some(message));
        prop_assert!(read_to_guest(&mut wire).unwrap().is_none());
    }

    #[test]
    fn any_bytes_are_a_message_an_end_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut wire = bytes.as_slice();
        while let Ok(Some(_)) = read_to_host(&mut wire) {}
        let mut wire = bytes.as_slice();
        while let Ok(Some(_)) = read_to_guest(&mut wire) {}
    }

    #[test]
    fn any_bytes_are_a_question_for_evidence_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut wire = bytes.as_slice();
        if let Ok(nonce) = evidence::read_question(&mut wire) {
            let mut written = Vec::new();
            evidence::write_question(&mut written, &nonce).unwrap();
            prop_assert_eq!([&written, wire].concat(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_a_header_of_an_answer_or_none(bytes in any::<[u8; evidence::Header::LENGTH]>()) {
        if let Some(header) = evidence::Header::parse(bytes) {
            prop_assert_eq!(header.to_bytes(), bytes);
            prop_assert!(header.length <= evidence::MAX_EVIDENCE);
        }
    }

    #[test]
    fn text_shows_nothing_that_steers_a_terminal(text in text()) {
        prop_assert!(!text.to_string().chars().any(char::is_control));
    }
}

#[test]
fn a_frame_longer_than_accepted_is_refused_before_it_is_read() {
    let mut wire: &[u8] = &(MAX_TO_HOST + 1).to_le_bytes();
    assert!(matches!(
        read_to_host(&mut wire),
        Err(FrameError::TooLong { length: 4097, limit: MAX_TO_HOST })
    ));
}

/// The bound is for arguments and environments: what a pod has of disks is next to nothing.
#[test]
fn disks_take_little_of_a_frame() {
    let disk = ImageDisk {
        serial: "x".repeat(20),
        verity: Verity { data_blocks: u64::MAX, hash_start: u64::MAX, root_hash: [0xff; 32] },
    };
    let pod = Pod {
        hostname: String::new(),
        share_tag: None,
        images: vec![disk; 16],
        scratch: Some("x".repeat(20)),
        volumes: Vec::new(),
        apps: Vec::new(),
        measured: None,
    };
    let mut wire = Vec::new();
    write_to_guest(&mut wire, &ToGuest::Setup(pod)).unwrap();
    assert!(wire.len() < 2048, "{}", wire.len());
}

#[test]
fn bytes_left_over_in_a_frame_are_refused() {
    let mut wire = Vec::new();
    write_to_host(&mut wire, &ToHost::Finished).unwrap();
    wire.push(0);
    wire[0] += 1;
    assert!(matches!(read_to_host(&mut wire.as_slice()), Err(FrameError::Malformed)));
}

#[test]
fn a_connection_that_ends_inside_a_frame_is_an_error() {
    let mut wire = Vec::new();
    write_to_host(&mut wire, &ToHost::Started { app: 300 }).unwrap();
    for end in 1..wire.len() {
        assert!(matches!(read_to_host(&mut &wire[..end]), Err(FrameError::Io(_))), "{end}");
    }
}

#[test]
fn exit_statuses_are_those_of_a_shell() {
    assert_eq!(ExitStatus::Code(7).shell_code(), 7);
    assert_eq!(ExitStatus::Signal(9).shell_code(), 137);
}

#[test]
fn as_many_secrets_as_a_pod_can_have_fit_into_a_frame() {
    let sealed = vec![vec![0xff; secret::MAX + secret::OVERHEAD]; secret::MAX_COUNT];
    write_to_guest(&mut Vec::new(), &ToGuest::Secrets { sealed }).unwrap();
}

#[test]
fn a_question_without_a_nonce_or_with_too_long_a_one_is_none() {
    for nonce in [&[][..], &[0; evidence::MAX_NONCE + 1], &[0; 300]] {
        assert!(evidence::write_question(&mut Vec::new(), nonce).is_err());
    }
    assert!(evidence::read_question(&mut [0, 1].as_slice()).is_err());
    assert!(evidence::read_question(&mut [65; 66].as_slice()).is_err());
    assert!(evidence::read_question(&mut [2, 1].as_slice()).is_err());
}

#[test]
fn no_answer_announces_more_than_can_follow() {
    use evidence::{Header, Kind};
    for (kind, most) in
        [(Kind::Evidence, evidence::MAX_EVIDENCE), (Kind::Busy, 0), (Kind::Refused, 1024)]
    {
        let header = Header { kind, length: most };
        assert_eq!(Header::parse(header.to_bytes()), Some(header));
        assert_eq!(Header::parse(Header { kind, length: most + 1 }.to_bytes()), None);
    }
    assert_eq!(Header::parse([3, 0, 0, 0, 0]), None);
}
