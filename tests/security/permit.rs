//! Without a verified signature nothing runs unless the user says so.

use sandbox_tests::{Data, run, tiny};

/// "The policy that says which images may run. If there is no such file, none may but those that
/// keys of 'sandbox trust' have signed."
#[test]
fn an_image_that_was_not_verified_is_not_run() {
    let data = Data::new();
    run(tiny()).data(data.path()).secure().sh("echo it ran").fails_saying(&[
        "image tiny",
        "there is no policy",
        "/etc/sandbox/policy.json",
        "--policy=FILE",
    ]);
    data.assert_nothing_is_left();
}
