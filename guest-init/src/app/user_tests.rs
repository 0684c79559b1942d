use super::{Identity, identity, number};
use crate::error::Error;
use proptest::prelude::*;

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n\
    # a comment\n\
    broken:x:a:b::/:\n\
    short:x:3\n\
    :x:4:4::/:\n\
    app:x:1000:1001:An App,,,:/home/app:/bin/sh\n\
    2000:x:1:1::/srv:/bin/sh\n\
    bare:x:1002:1002\n\
    late:x:1000:9:::\n\
    no-newline:x:5:6::relative:";
const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:app,other\naudio:x:29:other,app\nwheel:x:10:apple\n";

fn resolve(user: &str, group: &str, more: &[u32]) -> Result<Identity, Error> {
    identity(PASSWD, GROUP, user, group, more, |path| match path {
        "/bin/tool" => Ok((7, 8)),
        _ => Err(Error::Refused("no such file".into())),
    })
}

fn numbers(user: &str, group: &str) -> (u32, u32) {
    let identity = resolve(user, group, &[]).unwrap();
    (identity.uid, identity.gid)
}

#[test]
fn a_name_stands_for_its_entry() {
    let app = resolve("app", "", &[3, 29]).unwrap();
    let home = Some(b"/home/app".to_vec());
    assert_eq!(app, Identity { uid: 1000, gid: 1001, groups: vec![3, 29, 50], home });
    assert_eq!(numbers("app", "staff"), (1000, 50));
    assert_eq!(numbers("app", "0"), (1000, 0));
}

#[test]
fn a_name_goes_before_a_number_and_a_number_before_a_path() {
    assert_eq!(numbers("2000", ""), (1, 1));
    assert_eq!(numbers("1000", ""), (1000, 1001));
    assert_eq!(numbers("4242", ""), (4242, 0));
    assert_eq!(numbers("/bin/tool", "/bin/tool"), (7, 8));
    assert_eq!(numbers("/bin/tool", "wheel"), (7, 10));
}

#[test]
fn the_groups_of_a_user_given_by_number_are_not_added() {
    assert_eq!(resolve("1000", "", &[4]).unwrap().groups, [4]);
}

#[test]
fn lines_that_make_no_sense_are_no_entries() {
    for name in ["broken", "short", "", "# a comment", "nobody", "-1", "4294967295", "99999999999"]
    {
        assert!(matches!(resolve(name, "0", &[]), Err(Error::Refused(_))), "{name}");
    }
    for name in ["nothing", "-1", "4294967295", "/missing"] {
        assert!(matches!(resolve("0", name, &[]), Err(Error::Refused(_))), "{name}");
    }
    assert_eq!(numbers("bare", ""), (1002, 1002));
    let relative = resolve("no-newline", "", &[]).unwrap();
    assert_eq!((relative.uid, relative.gid, relative.home), (5, 6, None));
}

#[test]
fn an_image_without_files_knows_numbers() {
    let nobody = identity(b"", b"", "65534", "", &[], |_| unreachable!()).unwrap();
    assert_eq!((nobody.uid, nobody.gid, nobody.home), (65534, 0, None));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(
        passwd in proptest::collection::vec(any::<u8>(), 0..300),
        group in "[a-z0-9:,\n]{0,300}",
        user in "[a-z0-9]{0,4}",
    ) {
        let _ = identity(&passwd, group.as_bytes(), &user, &user, &[], |_| Ok((0, 0)));
        let _ = identity(group.as_bytes(), &passwd, &user, "", &[], |_| Ok((0, 0)));
    }

    #[test]
    fn numbers_are_what_they_say(value in any::<u32>()) {
        let expected = Some(value).filter(|value| *value != u32::MAX);
        prop_assert_eq!(number(value.to_string().as_bytes()), expected);
        prop_assert_eq!(number(format!("+{value}").as_bytes()), None);
    }
}
