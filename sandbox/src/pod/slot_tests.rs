use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::process::{Command, Stdio};
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn owner(uuid: Uuid) -> Owner {
    Owner { uuid, data: "/var/lib/rkt".into() }
}

/// Which pod has which number, by the directory alone; and nothing else is in it.
fn on_disk(path: &Path) -> HashMap<u32, Uuid> {
    let mut taken = HashMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if let Some(slot) = canonical_number(&entry.file_name()) {
            let owner = Owner::of_link(&fs::read_link(entry.path()).unwrap()).unwrap();
            taken.insert(slot.number(), owner.uuid);
        }
    }
    taken
}

/// Everything is as after an orderly end: each number has its pod, and each pod its number.
fn assert_whole(path: &Path) {
    let taken = on_disk(path);
    let entries = fs::read_dir(path).unwrap().count();
    assert_eq!(entries, 2 * taken.len() + 1, "two links for each number, and the lock");
    let pods: HashSet<_> = taken.values().collect();
    assert_eq!(pods.len(), taken.len());
}

#[test]
fn every_number_has_a_pair_of_its_own_and_every_pair_a_number() {
    let mut pairs = HashSet::new();
    for number in 0..CATEGORIES * (CATEGORIES - 1) / 2 {
        let (a, b) = Slot(number).categories();
        assert!(a < b && b < CATEGORIES, "{number}: c{a},c{b}");
        assert!(pairs.insert((a, b)), "{number}: c{a},c{b} twice");
    }
    // All of 1024 categories, two at a time.
    assert_eq!(pairs.len(), 523_776);
}

proptest! {
    #[test]
    fn the_number_follows_from_the_pair(number in 0..CATEGORIES * (CATEGORIES - 1) / 2) {
        let (a, b) = Slot(number).categories();
        prop_assert_eq!(b * (b - 1) / 2 + a, number);
    }
}

#[test]
fn a_pod_keeps_its_number_until_it_is_released() {
    let directory = directory();
    let slots = Slots::open(directory.path()).unwrap();
    let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
    let slot = slots.reserve(&owner(one)).unwrap();
    assert_eq!(slots.reserve(&owner(one)).unwrap(), slot);
    assert_ne!(slots.reserve(&owner(other)).unwrap(), slot);
    let again = Slots::open(directory.path()).unwrap();
    assert_eq!(again.held(one).unwrap(), Some(slot));
    again.release(one).unwrap();
    again.release(one).unwrap();
    assert_eq!(slots.held(one).unwrap(), None);
    assert_eq!(on_disk(directory.path()).len(), 1);
    assert_whole(directory.path());
}

#[test]
fn ten_thousand_pods_have_ten_thousand_numbers() {
    // In memory: what this is about is not the disk.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let slots = Slots::open(directory.path()).unwrap();
    let pods: Vec<_> = (0..10_000).map(|_| Uuid::new_v4()).collect();
    let numbers: HashSet<_> =
        pods.iter().map(|uuid| slots.reserve(&owner(*uuid)).unwrap().number()).collect();
    assert_eq!(numbers.len(), pods.len());
    assert_whole(directory.path());
    let gone: HashSet<_> = pods.iter().step_by(3).copied().collect();
    let freed = slots.collect(|owner| Ok(!gone.contains(&owner.uuid))).unwrap();
    assert_eq!(freed, gone.len());
    let left: HashSet<_> = on_disk(directory.path()).into_values().collect();
    assert!(left.is_disjoint(&gone));
    assert_eq!(left.len() + gone.len(), pods.len());
    assert_whole(directory.path());
}

/// The last free number is found, and after that there is none: nothing is handed out twice.
#[test]
fn all_numbers_can_be_taken_and_then_there_is_none() {
    let directory = directory();
    let slots = Slots::open(directory.path()).unwrap();
    let free = 40_000;
    for number in (0..SLOTS).filter(|number| *number != free) {
        let link = owner(Uuid::from_u128(number.into())).to_link();
        symlink(link, directory.path().join(number.to_string())).unwrap();
    }
    assert_eq!(slots.reserve(&owner(Uuid::new_v4())).unwrap().number(), free);
    let error = slots.reserve(&owner(Uuid::new_v4())).unwrap_err().to_string();
    assert!(error.contains("sandbox gc"), "{error}");
}

#[test]
fn what_can_not_be_told_keeps_its_number() {
    let directory = directory();
    let slots = Slots::open(directory.path()).unwrap();
    let uuid = Uuid::new_v4();
    let slot = slots.reserve(&owner(uuid)).unwrap();
    let not_now = |_: &Owner| Err(io::Error::other("not now"));
    assert!(slots.collect(not_now).unwrap_err().to_string().contains("not now"));
    assert_eq!(slots.held(uuid).unwrap(), Some(slot));
}

/// What is in the way of a number, whatever it is, keeps it from being used, and is never removed.
#[test]
fn strange_files_are_left_alone() {
    let directory = directory();
    let slots = Slots::open(directory.path()).unwrap();
    let uuid = Uuid::new_v4();
    let first = first(uuid);
    let names = [first.to_string(), format!("0{first}"), "65536".into(), "x".into()];
    for name in &names {
        fs::write(directory.path().join(name), "").unwrap();
    }
    assert_ne!(slots.reserve(&owner(uuid)).unwrap().number(), first);
    assert_eq!(slots.collect(|_| Ok(false)).unwrap(), 1);
    for name in &names {
        assert!(directory.path().join(name).exists(), "{name}");
    }
}

#[test]
fn data_directories_with_any_name_are_remembered() {
    for data in ["/", "/srv/a:b", "/srv/\n", ""] {
        let owner = Owner { uuid: Uuid::new_v4(), data: data.into() };
        assert_eq!(Owner::of_link(&owner.to_link()).as_ref(), Some(&owner), "{data:?}");
    }
    for link in ["", ":", "x:/", "6F0E9B1C-0000-4000-8000-000000000000:/"] {
        assert_eq!(Owner::of_link(Path::new(link)), None, "{link}");
    }
}

/// Something that happens to the numbers of a host.
#[derive(Clone, Debug)]
enum Event {
    Reserve(u8),
    /// The pod's directory is gone.
    Die(u8),
    Release(u8),
    Collect,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..12_u8).prop_map(Event::Reserve),
        2 => (0..12_u8).prop_map(Event::Die),
        2 => (0..12_u8).prop_map(Event::Release),
        1 => Just(Event::Collect),
    ]
}

fn pod(number: u8) -> Uuid {
    // Numbers close to each other, so that pods get into each other's way.
    Uuid::from_u128(u128::from(number % 3) << 96 | u128::from(number))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any events in any order, any of them killed before any change: no two living pods ever have
    /// one number, a number that was told stays, and after a collection nothing is left over.
    #[test]
    fn kills_neither_double_nor_lose_a_number(
        events in prop::collection::vec((event(), prop::option::of(0..5_u32)), 1..40)
    ) {
        let directory = directory();
        let slots = Slots::open(directory.path()).unwrap();
        // What living pods were told.
        let mut told: HashMap<Uuid, Slot> = HashMap::new();
        for (event, killed_after) in events {
            slots.killed_after.set(killed_after);
            match event {
                Event::Reserve(number) => {
                    if let Ok(slot) = slots.reserve(&owner(pod(number)))
                        && let Some(before) = told.insert(pod(number), slot)
                    {
                        prop_assert_eq!(before, slot);
                    }
                }
                Event::Die(number) => drop(told.remove(&pod(number))),
                Event::Release(number) => {
                    // A pod's directory goes first.
                    told.remove(&pod(number));
                    let _ = slots.release(pod(number));
                }
                Event::Collect => {
                    let _ = slots.collect(|owner| Ok(told.contains_key(&owner.uuid)));
                }
            }
            slots.killed_after.set(None);
            let numbers: HashSet<_> = told.values().collect();
            prop_assert_eq!(numbers.len(), told.len());
            for (uuid, slot) in &told {
                prop_assert_eq!(slots.held(*uuid).unwrap(), Some(*slot));
            }
        }
        slots.collect(|owner| Ok(told.contains_key(&owner.uuid))).unwrap();
        // Two passes: the order in which a directory is listed is anybody's guess.
        slots.collect(|owner| Ok(told.contains_key(&owner.uuid))).unwrap();
        assert_whole(directory.path());
        prop_assert_eq!(on_disk(directory.path()).len(), told.len());
    }
}

/// The process that [`processes_at_the_same_time_get_different_numbers`] starts many of.
#[test]
#[ignore = "a part of another test"]
fn reserve_some() {
    let Some(place) = std::env::var_os("SANDBOX_TEST_SLOTS") else { return };
    let slots = Slots::open(Path::new(&place)).unwrap();
    for _ in 0..200 {
        let uuid = Uuid::new_v4();
        let slot = slots.reserve(&owner(uuid)).unwrap();
        // On one line: others write, too.
        io::Write::write_all(&mut io::stderr(), format!("got {}\n", slot.number()).as_bytes())
            .unwrap();
    }
}

/// Ten processes reserve at once, and some are killed while they do.
#[test]
fn processes_at_the_same_time_get_different_numbers() {
    let directory = directory();
    let mut children: Vec<_> = (0..10)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "--nocapture", "pod::slot::tests::reserve_some"])
                .env("SANDBOX_TEST_SLOTS", directory.path())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for (index, child) in children.iter_mut().enumerate().step_by(3) {
        std::thread::sleep(std::time::Duration::from_millis(10 * index as u64));
        child.kill().unwrap();
    }
    let mut numbers = HashSet::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let got: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("got ")).collect();
        if output.status.success() {
            assert_eq!(got.len(), 200);
        }
        for number in got {
            assert!(numbers.insert(number.to_owned()), "{number} twice");
        }
    }
    assert!(numbers.len() >= 1200, "{}", numbers.len());
    let slots = Slots::open(directory.path()).unwrap();
    slots.collect(|_| Ok(true)).unwrap();
    slots.collect(|_| Ok(true)).unwrap();
    assert_whole(directory.path());
}
