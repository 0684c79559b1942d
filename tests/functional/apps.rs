//! Pods of several apps.

use sandbox_tests::{run, tiny};

/// "A volume: NAME,kind=empty […]": the apps of a pod share it.
#[test]
fn two_apps_share_an_empty_volume() {
    let wait = "while [ ! -e /b/x ]; do sleep 0.1; done; cat /b/x; stat -c '%a %u %g' /b";
    run(tiny())
        .with("--name=first")
        .with("--volume=shared,kind=empty,mode=0770,uid=7,gid=8")
        .with("--mount=volume=shared,target=/a")
        .script("echo from first >/a/y; mv /a/y /a/x")
        .and(tiny())
        .with("--name=second")
        .with("--mount=volume=shared,target=/b")
        .script(wait)
        .end()
        .exits(0)
        .prints("from first\n770 7 8\n");
}

/// "Exit status: that of the first app that fails […]. The first app that fails ends the pod."
#[test]
fn the_first_app_that_fails_ends_the_pod_with_its_status() {
    run(tiny())
        .with("--name=patient")
        .script("trap 'exit 9' TERM; while :; do sleep 0.1; done")
        .and(tiny())
        .with("--name=failing")
        .script("sleep 1; exit 5")
        .end()
        .exits(5);
}

/// Apps of one pod have root file systems of their own.
#[test]
fn apps_of_a_pod_do_not_see_each_others_root() {
    run(tiny())
        .with("--name=first")
        .with("--volume=shared,kind=empty")
        .with("--mount=volume=shared,target=/shared")
        .script("echo x >/mine; echo x >/shared/done; sleep 1")
        .and(tiny())
        .with("--name=second")
        .with("--mount=volume=shared,target=/shared")
        .script("while [ ! -e /shared/done ]; do sleep 0.1; done; test ! -e /mine && echo apart")
        .end()
        .exits(0)
        .prints("apart\n");
}
