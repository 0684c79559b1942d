use super::{CanonicalError, ReadError, check, from_slice, to_vec};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn canonical(value: &Value) -> String {
    String::from_utf8(to_vec(value).unwrap()).unwrap()
}

fn problem(text: impl AsRef<[u8]>) -> &'static str {
    check(text.as_ref()).unwrap_err().problem
}

/// RFC 8785, §3.2.2, the example, with its numbers replaced by a whole one each: fractions are not
/// written here.
#[test]
fn the_example_of_the_rfc() {
    let document = r#"{
        "numbers": [333333333, 4, 2, 0],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
    }"#;
    let expected = "{\"literals\":[null,true,false],\"numbers\":[333333333,4,2,0],\
                    \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
    assert_eq!(canonical(&serde_json::from_str(document).unwrap()), expected);
    assert_eq!(check(expected.as_bytes()), Ok(()));
}

/// RFC 8785, §3.2.3: "sorting test", and the order that it asks for.
#[test]
fn the_sorting_test_of_the_rfc() {
    let document = r#"{
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\ud83d\ude00": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis"
    }"#;
    let expected = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
                    \"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\
                    \"😀\":\"Emoji: Grinning Face\",\
                    \"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
    assert_eq!(canonical(&serde_json::from_str(document).unwrap()), expected);
    assert_eq!(check(expected.as_bytes()), Ok(()));
}

/// RFC 8785, appendix B: the whole numbers of the table that are held exactly.
#[test]
fn whole_numbers_up_to_2_to_the_53() {
    assert_eq!(canonical(&json!(9_007_199_254_740_992_u64)), "9007199254740992");
    assert_eq!(canonical(&json!(-9_007_199_254_740_992_i64)), "-9007199254740992");
    assert_eq!(canonical(&json!(0)), "0");
}

#[test]
fn other_numbers_are_refused() {
    for number in [json!(9_007_199_254_740_993_u64), json!(i64::MIN), json!(1.5), json!(-0.0)] {
        assert!(matches!(to_vec(&[&number]), Err(CanonicalError::Number(_))), "{number}");
    }
}

#[test]
fn fractions_and_bytes_are_refused_where_they_are() {
    assert_eq!(to_vec(&f64::NAN), Err(CanonicalError::Number("NaN".to_owned())));
    assert_eq!(to_vec(&1.0_f32), Err(CanonicalError::Number("1".to_owned())));
    assert!(matches!(to_vec(&std::ffi::CString::default()), Err(CanonicalError::Json(_))));
    assert!(matches!(to_vec(&BTreeMap::from([(1, 2)])), Err(CanonicalError::Json(_))));
}

#[test]
fn structs_and_enums_are_sorted_too() {
    let shapes = [Shape::Circle { radius: 1, at: (2, 3) }, Shape::Name("x".into()), Shape::Nothing];
    let text = to_vec(&shapes).unwrap();
    assert_eq!(text, br#"[{"circle":{"at":[2,3],"radius":1}},{"name":"x"},"nothing"]"#);
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    #[derive(Serialize)]
    struct Twice {
        #[serde(rename = "a")]
        one: u8,
        b: u8,
        #[serde(rename = "a")]
        other: u8,
    }
    let twice = to_vec(&Twice { one: 1, b: 2, other: 3 });
    assert_eq!(twice, Err(CanonicalError::Json("the name a is there twice".to_owned())));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sample {
    name: String,
    number: Option<i64>,
    shape: Shape,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Shape {
    Circle { radius: u8, at: (u8, u8) },
    Name(String),
    Nothing,
}

#[test]
fn structs_and_enums_are_read_in_the_form_in_which_they_are_written() {
    for (shape, number) in [
        (Shape::Circle { radius: 1, at: (2, 3) }, None),
        (Shape::Name("\u{1}é😀\"".to_owned()), Some(-5)),
        (Shape::Nothing, Some(1 << 53)),
    ] {
        let sample = Sample { name: "a\\b".to_owned(), number, shape };
        let text = to_vec(&sample).unwrap();
        assert_eq!(from_slice::<Sample>(&text), Ok(sample));
    }
}

/// All of these are canonical, and a lenient reader takes them.
#[test]
fn other_forms_of_structs_and_enums_are_not_read() {
    for text in [
        r#"["a",1,"nothing"]"#,
        r#"{"name":"a","number":1,"shape":{"nothing":null}}"#,
        r#"{"name":"a","number":1,"shape":{"circle":{"at":[2,3,4],"radius":1}}}"#,
        r#"{"name":"a","number":1,"shape":{"circle":[1,[2,3]]}}"#,
        r#"{"name":"a","number":1,"shape":{}}"#,
        r#"{"name":"a","number":1,"shape":{"name":"x","other":1}}"#,
        r#"{"name":"a","number":1,"other":1,"shape":"nothing"}"#,
        r#"{"name":"a","number":1,"shape":"name"}"#,
        r#"{"name":"a","number":"1","shape":"nothing"}"#,
        r#"{"name":"a","number":1}"#,
    ] {
        assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        let result = from_slice::<Sample>(text.as_bytes());
        assert!(matches!(result, Err(ReadError::Schema(_))), "{text}: {result:?}");
    }
}

#[test]
fn a_list_is_read_to_its_end() {
    assert_eq!(from_slice::<[u8; 2]>(b"[1,2]"), Ok([1, 2]));
    for text in ["[1]", "[1,2,3]"] {
        let result = from_slice::<[u8; 2]>(text.as_bytes());
        assert!(matches!(result, Err(ReadError::Schema(_))), "{text}: {result:?}");
    }
}

#[test]
fn what_is_not_canonical_is_refused() {
    let name = "a name that is there twice, or not in its place";
    let number = "a number that is written in another way";
    let escape = "an escape that is not needed";
    let white = "no value, or white space before it";
    for (text, expected) in [
        ("", white),
        (" 1", white),
        ("[1, 2]", white),
        ("1 ", "more than one value"),
        ("{}{}", "more than one value"),
        (r#"{"a":1,"a":2}"#, name),
        (r#"{"b":1,"a":2}"#, name),
        (r#"{"é":1,"z":2}"#, name),
        (r#"{"\"":1,"!":2}"#, name),
        ("{\"\u{fb33}\":1,\"😀\":2}", name),
        (r#"{"a" :1}"#, "no colon"),
        (r#"{"a":1,}"#, "no string"),
        (r#"{"a":1"#, "neither a comma nor the end of an object"),
        ("[1", "neither a comma nor the end of a list"),
        ("01", number),
        ("-0", number),
        ("-", number),
        ("1.0", "a fraction"),
        ("1e3", "a fraction"),
        ("9007199254740993", "a number above 2^53"),
        ("99999999999999999999999999", "a number above 2^53"),
        (r#""\/""#, escape),
        (r#""\u0041""#, escape),
        (r#""\u000a""#, escape),
        (r#""\u000F""#, escape),
        (r#""\u007f""#, escape),
        ("\"\t\"", "a control character"),
        ("\"a", "a string without end"),
        ("nul", white),
    ] {
        assert_eq!(problem(text), expected, "{text}");
        let read = from_slice::<Value>(text.as_bytes());
        assert_eq!(read, Err(check(text.as_bytes()).unwrap_err().into()), "{text}");
    }
    assert_eq!(problem(b"\"\xff\""), "bytes that are not UTF-8");
}

#[test]
fn depth_is_bounded() {
    let nested = |depth| ["[".repeat(depth), "]".repeat(depth)].concat();
    assert_eq!(check(nested(64).as_bytes()), Ok(()));
    assert_eq!(problem(nested(1_000_000)), "too many values within each other");
}

/// Any document without fractions.
fn document() -> impl Strategy<Value = Value> {
    let name =
        || prop_oneof!["[a-c]{0,2}", "\\PC{0,3}", "[\\x00-\\x7f]{0,3}", "[\u{fb33}😀é]{1,2}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53)..=1 << 53).prop_map(Value::from),
        name().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_canonical_and_means_the_same(value in document()) {
        let text = to_vec(&value).unwrap();
        prop_assert_eq!(check(&text), Ok(()));
        prop_assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), value.clone());
        prop_assert_eq!(from_slice::<Value>(&text).unwrap(), value);
    }

    /// The check accepts nothing but what would be written.
    #[test]
    fn what_is_accepted_is_what_would_be_written(
        value in document(),
        at: prop::sample::Index,
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\u0 \n"[..])],
    ) {
        let mut text = to_vec(&value).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        match check(&text) {
            Ok(()) => {
                let value: Value = serde_json::from_slice(&text).unwrap();
                prop_assert_eq!(to_vec(&value).unwrap(), &text[..]);
                prop_assert_eq!(from_slice::<Value>(&text).unwrap(), value);
            }
            Err(error) => prop_assert_eq!(from_slice::<Value>(&text).unwrap_err(), error.into()),
        }
    }
}
