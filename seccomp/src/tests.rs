use super::*;
use proptest::prelude::*;

fn problem(text: &str) -> String {
    Policy::parse(text).unwrap_err().to_string()
}

#[test]
fn a_rule_has_a_call_conditions_and_a_reason() {
    let text = "# All that is needed.\n\nread # kicks\n\
                ioctl arg1 == KVM_RUN # the guest\n\
                futex arg1 == FUTEX_WAKE|FUTEX_PRIVATE_FLAG && arg3 == NULL # locks\n\
                mmap arg2 & PROT_EXEC == 0 # memory\n";
    let policy = Policy::parse(text).unwrap();
    let [read, ioctl, futex, mmap] = policy.rules() else { panic!("{policy:?}") };
    assert_eq!((read.call.as_str(), read.why.as_str()), ("read", "kicks"));
    assert!(read.conditions.is_empty());
    assert_eq!(ioctl.conditions[0].value, 0xae80);
    assert_eq!(futex.conditions[0].value, 0x81);
    assert!(futex.conditions[1].pointer);
    assert_eq!((mmap.conditions[0].mask, mmap.conditions[0].value), (Some(4), 0));
    assert!(!policy.compile().unwrap().is_empty());
    assert_eq!(policy.calls().len(), 4);
    assert_eq!(policy.for_debug_build().calls().len(), 5);
}

#[test]
fn what_is_no_rule_is_refused_with_its_line() {
    for (text, part) in [
        ("read", "line 1: it doesn't say why"),
        ("read #  ", "it doesn't say why"),
        ("\nRead # a", "line 2: 'Read' is no system call"),
        ("read arg6 == 1 # a", "is no condition"),
        ("read arg1 = 1 # a", "is no condition"),
        ("read argx == 1 # a", "is no condition"),
        ("read arg1 == 4294967296 # a", "neither a number nor a known name"),
        ("read arg1 == KVM_WALK # a", "'KVM_WALK' is neither"),
        ("read arg1 & 1 == 2 # a", "never holds"),
        ("read # a\nread # b", "read is there twice"),
        ("read # a\nread arg1 == 1 # b", "read is there twice"),
        ("read arg1 == 1 # a\nread arg1 == 0x1 # b", "read is there twice"),
        ("# nothing\n", "no rule"),
    ] {
        assert!(problem(text).contains(part), "{text:?}: {}", problem(text));
    }
    let unknown = Policy::parse("no_such_call # a").unwrap();
    assert!(matches!(unknown.compile(), Err(PolicyError::Compile(_))));
}

#[test]
fn what_allows_the_same_has_the_same_canonical_form() {
    let one = Policy::parse("# x\nread # a\nioctl arg1 == KVM_RUN # b\n").unwrap();
    let other = Policy::parse("ioctl arg1 == 0xae80 # c\n\nread # d\n").unwrap();
    assert_eq!(one.canonical(), "ioctl 1=0xae80\nread\n");
    assert_eq!(one.canonical(), other.canonical());
    assert_ne!(one.canonical(), one.without(0).canonical());
    let pointer = Policy::parse("read arg1 == NULL # a").unwrap();
    assert_ne!(pointer.canonical(), Policy::parse("read arg1 == 0 # a").unwrap().canonical());
}

#[test]
fn numbers_of_kvm_are_the_kernels() {
    for (name, number) in [
        ("KVM_RUN", 0xae80),
        ("KVM_GET_REGS", 0x8090_ae81),
        ("KVM_SET_GSI_ROUTING", 0x4008_ae6a),
        ("KVM_SIGNAL_MSI", 0x4020_aea5),
    ] {
        assert_eq!(names::value(name), Some(number), "{name}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*") {
        let _ = Policy::parse(&text);
    }

    #[test]
    fn lines_that_look_like_rules_parse_or_are_refused(
        text in "((read|futex|ioctl)( arg[0-7] (& [0-9]{1,2} )?== (NULL|[0-9]{1,2}))?( && arg1 == 1)? # w\n){0,5}"
    ) {
        if let Ok(policy) = Policy::parse(&text) {
            prop_assert_eq!(policy.rules().len(), text.lines().count());
            prop_assert!(policy.compile().is_ok());
        }
    }
}
