use super::{Program, candidates};

fn found(program: &str, path: &str) -> Vec<String> {
    let candidates = candidates(program.as_bytes(), path.as_bytes());
    candidates.into_iter().map(|candidate| candidate.into_string().unwrap()).collect()
}

#[test]
fn a_name_is_searched_in_every_directory_of_path_in_order() {
    assert_eq!(found("sh", "/usr/bin:/bin"), ["/usr/bin/sh", "/bin/sh"]);
    assert_eq!(found("sh", "/bin::/x/"), ["/bin/sh", "sh", "/x//sh"]);
    assert_eq!(found("sh", ""), ["sh"]);
}

#[test]
fn a_name_with_a_slash_is_not_searched() {
    assert_eq!(found("/bin/sh", "/usr/bin"), ["/bin/sh"]);
    assert_eq!(found("./sh", "/usr/bin"), ["./sh"]);
}

fn program(arguments: &[&str], environment: &[&str]) -> Result<Program, crate::Error> {
    let bytes =
        |list: &[&str]| list.iter().map(|item| item.as_bytes().to_vec()).collect::<Vec<_>>();
    Program::new(&bytes(arguments), &bytes(environment))
}

#[test]
fn defaults_only_fill_what_the_environment_does_not_have() {
    let mut program = program(&["x"], &["HOMELY=no", "PATH=/bin", "EMPTY="]).unwrap();
    program.set_default("HOME", b"/root");
    program.set_default("PATH", b"/usr/bin");
    program.set_default("EMPTY", b"full");
    assert_eq!(program.variable("HOME"), Some(&b"/root"[..]));
    assert_eq!(program.variable("PATH"), Some(&b"/bin"[..]));
    assert_eq!(program.variable("EMPTY"), Some(&b""[..]));
    assert_eq!(program.variable("NONE"), None);
}

#[test]
fn what_cannot_be_executed_is_refused() {
    for arguments in [&[][..], &[""], &["a\0b"], &["a", "b\0"]] {
        assert!(program(arguments, &[]).is_err(), "{arguments:?}");
    }
    assert!(program(&["a"], &["A=\0"]).is_err());
}
