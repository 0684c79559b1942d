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
        any::<u16>().prop_map(|app| ToHost::Started { app }),
        (any::<u16>(), status(), any::<bool>()).prop_map(|(app, status, out_of_memory)| {
            ToHost::Exited { app, status, out_of_memory }
        }),
        (any::<Option<u16>>(), text()).prop_map(|(app, error)| ToHost::Failed { app, error }),
        text().prop_map(|text| ToHost::Log { level: Level::Warning, text }),
        Just(ToHost::Finished),
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
    fn any_bytes_are_a_message_an_end_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut wire = bytes.as_slice();
        while let Ok(Some(_)) = read_to_host(&mut wire) {}
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
