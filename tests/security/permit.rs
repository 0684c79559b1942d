//! Without a verified signature nothing runs unless the user says so.

use sandbox_tests::{Data, run, tiny};

/// "--insecure-options=image is required and says why."
#[test]
fn an_image_that_was_not_verified_is_not_run() {
    let data = Data::new();
    run(tiny()).data(data.path()).secure().sh("echo it ran").fails_saying(&[
        "image tiny",
        "not verified",
        "--insecure-options=image",
    ]);
    data.assert_nothing_is_left();
}
