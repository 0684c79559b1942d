use super::{End, Event, Reason, Record, RecordError, Uuid, Variable, sample};
use crate::{canonical, log::Bank};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A launch as JSON, to be tampered with.
fn launch() -> Value {
    serde_json::to_value(sample::launch(3, sample::pod(1))).unwrap()
}

fn parse(value: &Value) -> Result<Event, RecordError> {
    Event::parse(&canonical::to_vec(value).unwrap())
}

fn schema_problem(value: &Value) -> String {
    match parse(value) {
        Err(RecordError::Schema(problem)) => problem.to_string(),
        other => panic!("{value} is {other:?}"),
    }
}

/// What is measured of a launch can't change by accident: other programs compute the same digest.
#[test]
fn the_form_of_a_launch() {
    let event = sample::launch(3, sample::pod(1));
    let text = String::from_utf8(event.to_canonical().unwrap()).unwrap();
    assert_eq!(text, include_str!("sample.json").trim_end());
}

#[test]
fn the_forms_of_the_other_events() {
    let text = |event: Event| String::from_utf8(event.to_canonical().unwrap()).unwrap();
    let zeros = "0".repeat(64);
    assert_eq!(
        text(sample::start(sample::untouched(&[Bank::Sha256]))),
        format!(
            "{{\"bootId\":\"0f4a6f0e-61a9-4e0d-9c2e-6f1d7b1f3a55\",\"event\":\"start\",\
             \"pcrBefore\":{{\"sha256\":\"{zeros}\"}},\"program\":\"0.1.0\",\"resetCount\":7,\
             \"restartCount\":0,\"time\":\"2026-11-24T13:00:00Z\",\"version\":1}}"
        )
    );
    for (end, expected) in [
        (End::Status(3), "{\"status\":3}"),
        (End::Reason(Reason::Crash), "{\"reason\":\"crash\"}"),
        (End::Reason(Reason::Stopped), "{\"reason\":\"stopped\"}"),
        (End::Reason(Reason::Aborted), "{\"reason\":\"aborted\"}"),
    ] {
        assert_eq!(
            text(sample::exit(3, sample::pod(1), end)),
            format!(
                "{{\"bootId\":\"0f4a6f0e-61a9-4e0d-9c2e-6f1d7b1f3a55\",\"end\":{expected},\
                 \"event\":\"exit\",\"launch\":3,\
                 \"pod\":\"6b1c3f3e-0000-4000-8000-000000000001\",\"version\":1}}"
            )
        );
    }
}

/// Every member there is: one that is missing is not the same as one that is `null`.
#[test]
fn a_member_that_is_missing_is_refused() {
    fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            // What isolators say is theirs.
            Value::Object(members) if !path.ends_with("/value") => {
                for (name, value) in members {
                    let path = format!("{path}/{name}");
                    paths(value, &path, found);
                    found.push(path);
                }
            }
            Value::Array(values) => {
                let paths = |(index, value)| paths(value, &format!("{path}/{index}"), found);
                values.iter().enumerate().for_each(paths);
            }
            _ => {}
        }
    }
    let whole = launch();
    let mut found = Vec::new();
    paths(&whole, "", &mut found);
    assert!(found.len() > 60, "{found:?}");
    for path in found {
        let mut value = whole.clone();
        let (parent, name) = path.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        let problem = schema_problem(&value);
        assert!(problem.contains(&format!("missing field `{name}`")), "{path}: {problem}");
    }
}

#[test]
fn a_member_that_is_not_known_is_refused() {
    for path in ["", "/record", "/record/apps/0", "/record/apps/0/image", "/record/kernel"] {
        let mut value = launch();
        let object = value.pointer_mut(path).unwrap().as_object_mut().unwrap();
        object.insert("extra".to_owned(), Value::Null);
        let problem = schema_problem(&value);
        assert!(problem.contains("unknown field `extra`"), "{path}: {problem}");
    }
}

#[test]
fn another_version_is_refused_by_its_number() {
    for path in ["/version", "/record/version"] {
        let mut value = launch();
        *value.pointer_mut(path).unwrap() = json!(2);
        assert_eq!(parse(&value), Err(RecordError::Version("2".to_owned())), "{path}");
        // Also where that version has more than this one.
        value.as_object_mut().unwrap().insert("extra".to_owned(), Value::Null);
        assert_eq!(parse(&value), Err(RecordError::Version("2".to_owned())), "{path}");
    }
}

#[test]
fn values_of_another_form_are_refused() {
    for (path, value) in [
        ("/event", json!("reboot")),
        ("/bootId", json!("0F4A6F0E-61A9-4E0D-9C2E-6F1D7B1F3A55")),
        ("/bootId", json!("0f4a6f0e61a94e0d9c2e6f1d7b1f3a55")),
        ("/number", json!("3")),
        ("/number", json!(-1)),
        ("/record/kernel/digest", json!("sha256:00")),
        ("/record/kernel/digest", json!("md5:d41d8cd98f00b204e9800998ecf8427e")),
        ("/record/apps/0/image/verityRoot", json!("AB".repeat(32))),
        ("/record/apps/0/image/verityRoot", json!("ab".repeat(31))),
        ("/record/apps/0/image/content", json!("trusted")),
        ("/record/network", json!({})),
        ("/record/network", json!("none")),
        // Forms that a lenient reader takes for the same.
        ("/record/apps/0/image/content", json!({"verified": null})),
        ("/record/secrets/0", json!(["tls-key"])),
        ("/record/kernel", json!([format!("sha256:{}", "0".repeat(64)), "6.12"])),
    ] {
        let mut tampered = launch();
        *tampered.pointer_mut(path).unwrap() = value.clone();
        assert!(parse(&tampered).is_err(), "{path}: {value}");
    }
}

#[test]
fn another_way_to_write_the_same_is_refused() {
    let event = sample::launch(3, sample::pod(1));
    let text = String::from_utf8(event.to_canonical().unwrap()).unwrap();
    for other in [
        text.replacen(',', ", ", 1),
        text.replacen("\"number\":3", "\"number\":3.0", 1),
        text.replacen("\"cpus\":2", "\"cpus\":2,\"cpus\":2", 1),
        text.replacen("nginx", "\\u006eginx", 1),
        serde_json::to_string(&event).unwrap(),
        format!("{text}\n"),
    ] {
        let result = Event::parse(other.as_bytes());
        assert!(matches!(result, Err(RecordError::NotCanonical(_))), "{other}: {result:?}");
    }
}

/// `printf %s "$salt$value" | sha256sum`, with 32 times the byte 7 as the salt.
#[test]
fn a_variable_is_salted_as_it_is_documented() {
    let variable = Variable::new("A", b"value", &[7; 32]);
    assert_eq!(
        variable.salted.to_string(),
        "92bb4b401e138632fd7a65a93902c3bdde7ece89a9a4d2f79c89fe6198319ff9"
    );
    assert_ne!(Variable::new("A", b"value", &[8; 32]), variable);
}

#[test]
fn uuids_have_one_form() {
    let uuid = "0f4a6f0e-61a9-4e0d-9c2e-6f1d7b1f3a55";
    assert_eq!(uuid.parse::<Uuid>().unwrap().as_str(), uuid);
    for other in
        ["", "0f4a6f0e-61a9-4e0d-9c2e-6f1d7b1f3a5", &uuid.to_uppercase(), "é".repeat(18).as_str()]
    {
        other.parse::<Uuid>().unwrap_err();
    }
}

proptest! {
    #[test]
    fn an_event_is_read_as_it_was_written(event in sample::events()) {
        let text = event.to_canonical().unwrap();
        prop_assert_eq!(canonical::check(&text), Ok(()));
        prop_assert_eq!(Event::parse(&text).unwrap(), event);
    }

    #[test]
    fn a_record_is_read_as_it_was_written(record in sample::records()) {
        let text = serde_json::to_vec(&record).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Record>(&text).unwrap(), record);
    }

    /// Whatever is made of a text, there is no other text that means the same.
    #[test]
    fn what_is_read_would_be_written_so(
        event in sample::events(),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut text = event.to_canonical().unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(event) = Event::parse(&text) {
            prop_assert_eq!(event.to_canonical().unwrap(), text);
        }
    }
}
