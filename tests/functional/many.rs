//! Many pods at the same time.

use sandbox_tests::{Data, run, tiny};

/// Two pods at the same time are no problem, and 20 at once work.
#[test]
fn twenty_pods_at_once_each_do_their_own_and_leave_nothing() {
    let data = Data::new();
    // Unpacked by whoever comes first, waited for by the others.
    let pods: Vec<_> = (0..20)
        .map(|n| run(tiny()).data(data.path()).script(&format!("echo {n}; exit {n}")).start())
        .collect();
    for (n, pod) in pods.into_iter().enumerate() {
        pod.end().exits(n.try_into().unwrap()).prints(&format!("{n}\n")).says("");
    }
    data.assert_nothing_is_left();
}
