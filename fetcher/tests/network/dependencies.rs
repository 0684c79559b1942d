//! ACIs that depend on others, which are fetched with them.

use super::{
    Place,
    common::{can_unpack, layout::gzip},
    server::{self, Asked, answer},
    web::{Aci, Web},
};
use sandbox_image::{
    Error, Limit, NetworkOf, PullPolicy, Reference, Store,
    evidence::{DetachedFacts, Signature},
};
use std::{
    fs,
    io::{Read as _, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// Writes an ACI to a file, and gives its path.
fn write(place: &Place, web: &Web, aci: &Aci) -> String {
    let path: PathBuf = place.directory.path().join(format!("{}.aci", aci.name));
    fs::write(&path, aci.bytes(&web.host)).unwrap();
    path.into_os_string().into_string().unwrap()
}

fn detached(signature: &str) -> Vec<Signature> {
    vec![Signature::Detached { signature: signature.as_bytes().to_vec(), facts: None }]
}

/// rkt: "Dependencies are fetched the same way, one signature each."
#[test]
fn what_an_aci_depends_on_comes_with_it_to_be_judged() {
    let Some(web) = Web::new(10) else { return };
    let base = web.put("base", "latest", &Aci::new("base").file("b"));
    let middle = web.put("middle", "1", &Aci::new("middle").label("version", "1").on("base"));
    let place = Place::new();
    let on = r#","labels":[{"name":"version","value":"1"}]"#;
    let top = write(&place, &web, &Aci::new("top").on_with("middle", on).file("b"));
    let mut staged = place.fetch(&top).unwrap();
    assert_eq!(web.asked(), ["base-latest", "middle-1"]);
    assert_eq!(place.left("image"), [""; 0], "nothing is in the store before it was judged");

    let name = |name: &str| format!("{}/{name}", web.host);
    let parts: Vec<_> = staged.parts().iter().map(|part| part.name.clone()).collect();
    assert_eq!(parts, [name("top"), name("middle"), name("base")]);
    for (place, bytes, reference) in
        [(1, &middle, format!("{}/middle:1", web.host)), (2, &base, format!("{}/base", web.host))]
    {
        let part = &staged.parts()[place];
        assert_eq!(
            part.signatures,
            detached(&format!("signature of {}", ["middle", "base"][place - 1]))
        );
        assert_eq!(part.reference, Reference::parse(reference.as_ref()).unwrap());
        // Each signature is about the file that it came with.
        let mut shipped = Vec::new();
        staged.shipped_aci(place).unwrap().unwrap().read_to_end(&mut shipped).unwrap();
        assert_eq!(shipped, *bytes);
    }
    let facts = |name: &str| DetachedFacts {
        primary: name.to_owned(),
        signer: name.to_owned(),
        created: 1,
        expires: None,
        hash: "SHA512".to_owned(),
    };
    for (place, name) in ["top", "middle", "base"].iter().enumerate() {
        staged.set_facts(place, 0, facts(name));
        staged.set_verdict(place, format!("allowed {name}"));
    }
    let image = staged.commit(&mut ()).unwrap();
    for (id, name) in [(1, "middle"), (2, "base")] {
        let id = sandbox_image::ImageIdPrefix::from(&image.parts()[id].id);
        let stored = place.store.find(&Reference::Id { prefix: id }).unwrap().unwrap();
        let record = stored.record();
        assert_eq!(record.judged.as_ref().unwrap().verdict, format!("allowed {name}"));
        let [Signature::Detached { facts: found, .. }] = &record.signatures[..] else { panic!() };
        assert_eq!(found.as_ref(), Some(&facts(name)), "it is there at every launch");
    }
    // All of it is there now.
    place.fetch(&top).unwrap().commit(&mut ()).unwrap();
    assert!(place.fetch(&name("base")).unwrap().is_stored());
    assert_eq!(web.asked(), [""; 0]);
    if can_unpack() {
        let to = tempfile::tempdir().unwrap();
        image.unpack(&place.options.program, to.path(), false, &mut ()).unwrap();
        let read = |name: &str| fs::read_to_string(to.path().join("rootfs").join(name)).unwrap();
        assert_eq!(
            [read("base"), read("middle"), read("b")],
            ["base of base", "middle of middle", "b of top"]
        );
    }
}

#[test]
fn what_is_asked_of_servers_depends_on_the_pull_policy() {
    let Some(web) = Web::new(11) else { return };
    web.put("base", "latest", &Aci::new("base"));
    web.put("top", "latest", &Aci::new("top").on("base"));
    let mut place = Place::new();
    let top = format!("{}/top", web.host);
    let first = place.fetch(&top).unwrap().commit(&mut ()).unwrap();
    assert_eq!(web.asked(), ["base-latest", "top-latest"]);
    web.put("base", "latest", &Aci::new("base").file("new"));
    for policy in [PullPolicy::Never, PullPolicy::New] {
        place.options.pull_policy = policy;
        assert!(place.fetch(&top).unwrap().is_stored());
        assert_eq!(web.asked(), [""; 0]);
    }
    // The newest one by its name counts, to the second.
    thread::sleep(Duration::from_millis(1100));
    // What it depends on has changed, though it has not.
    place.options.pull_policy = PullPolicy::Update;
    let staged = place.fetch(&top).unwrap();
    assert!(!staged.is_stored());
    assert_eq!(web.asked(), ["base-latest", "top-latest"]);
    assert_eq!(staged.id(), first.id());
    assert_ne!(staged.parts()[1].id, first.parts()[1].id);
    // Its own signature was held against it when it was shipped.
    assert_eq!(staged.parts()[0].signatures, first.parts()[0].signatures);
    assert!(staged.shipped_aci(0).unwrap().is_none());
    let second = staged.commit(&mut ()).unwrap();
    assert_ne!(second.parts()[1].id, first.parts()[1].id);
    let staged = place.fetch(&top).unwrap();
    assert!(staged.is_stored());
    assert_eq!(staged.parts(), second.parts());
    assert_eq!(web.asked(), ["base-latest", "top-latest"], "they are asked about");
    // By name it is the newer one now.
    place.options.pull_policy = PullPolicy::New;
    assert_eq!(place.fetch(&top).unwrap().parts(), second.parts());
}

#[test]
fn an_id_is_exactly_that_image() {
    let Some(web) = Web::new(12) else { return };
    let base = Aci::new("base").label("version", "1");
    web.put("base", "latest", &base);
    let id = base.id(&web.host).file_name();
    let on = |name: &str, more: &str| {
        Aci::new("top").on_with(name, &format!(r#","imageID":"{id}"{more}"#))
    };
    let mut place = Place::new();
    // From a server, which may have a newer one meanwhile.
    let other = r#","imageID":"sha512-"#.to_owned() + &"ab".repeat(64) + "\"";
    let wrong = write(&place, &web, &Aci::new("top").on_with("base", &other));
    place.check_refused(&wrong, "is another one: its ID is not sha512-abab");
    web.asked();
    let top = write(&place, &web, &on("base", ""));
    place.fetch(&top).unwrap().commit(&mut ()).unwrap();
    assert_eq!(web.asked(), ["base-latest"]);

    // From the store, whatever the server has now, and even if all is fetched anew.
    web.put("base", "latest", &Aci::new("base").label("version", "2"));
    for policy in [PullPolicy::New, PullPolicy::Update] {
        place.options.pull_policy = policy;
        let top = write(&place, &web, &on("base", ""));
        assert_eq!(place.fetch(&top).unwrap().parts()[1].id, base.id(&web.host));
    }
    assert_eq!(web.asked(), [""; 0]);
    // It is not enough that the ID is right.
    for (name, more, problem) in [
        ("other", "", "its name is '127.0.0.12/base' instead of '127.0.0.12/other'"),
        (
            "base",
            r#","labels":[{"name":"version","value":"2"}]"#,
            "its label 'version' is '1' instead of '2'",
        ),
        (
            "base",
            r#","labels":[{"name":"channel","value":"beta"}]"#,
            "its label 'channel' is missing instead of 'beta'",
        ),
    ] {
        let top = write(&place, &web, &on(name, more));
        let error = place.fetch(&top).unwrap_err();
        assert!(matches!(error, Error::Dependency { .. }), "{error:?}");
        assert!(error.to_string().contains(problem), "{error}");
    }
    assert_eq!(web.asked(), [""; 0]);
}

#[test]
fn a_server_that_has_another_image_is_refused() {
    let Some(web) = Web::new(13) else { return };
    let place = Place::new();
    let version = r#","labels":[{"name":"version","value":"1"}]"#;
    let top = write(&place, &web, &Aci::new("top").on_with("base", version));
    web.put("base", "1", &Aci::new("other").label("version", "1"));
    place.check_refused(&top, "its name is '127.0.0.13/other' instead of '127.0.0.13/base'");
    web.put("base", "1", &Aci::new("base").label("version", "2"));
    place.check_refused(&top, "its label 'version' is '2' instead of '1'");
    web.put(
        "base",
        "1",
        &Aci::new("base").without_labels().label("os", "freebsd").label("version", "1"),
    );
    place.check_refused(&top, "127.0.0.13/top depends on 127.0.0.13/base:1: ");
    web.files.lock().unwrap().clear();
    place.check_refused(&top, "status 404");
    // The same is true for what was asked for itself.
    web.put("base", "1", &Aci::new("base").label("version", "2"));
    place.check_refused("127.0.0.13/base:1", "its label 'version' is '2' instead of '1'");
    // One that does not say for which machine it is, is for all; it can't be run itself.
    web.put("base", "1", &Aci::new("base").without_labels().label("version", "1"));
    place.check_refused("127.0.0.13/base:1", "must say for which os and arch it is");
    place.fetch(&top).unwrap().commit(&mut ()).unwrap();
    let arch = r#","labels":[{"name":"version","value":"1"},{"name":"arch","value":"amd64"}]"#;
    let top = write(&place, &web, &Aci::new("top").on_with("base", arch));
    web.asked();
    assert_eq!(place.fetch(&top).unwrap().parts().len(), 2);
    assert_eq!(web.asked(), [""; 0], "it is found in the store");
}

/// aci.md, "size": "the ACE SHOULD ensure it matches when retrieving a dependency, to mitigate
/// 'endless data' attacks."
#[test]
fn a_dependency_has_the_size_that_is_said() {
    let Some(web) = Web::new(14) else { return };
    let bytes = web.put("base", "latest", &Aci::new("base")).len();
    let place = Place::new();
    let sized = |size: usize| {
        write(&place, &web, &Aci::new("top").on_with("base", &format!(r#","size":{size}"#)))
    };
    place.check_refused(&sized(bytes + 1), &format!("has {bytes} bytes instead of {}", bytes + 1));
    let less = bytes - 1;
    place.check_refused(&sized(less), &format!("has more than the {less} bytes that it should"));
    // Whoever needs it too can't say otherwise.
    let other = format!(r#","size":{}"#, bytes + 1);
    let both = Aci::new("top").on_with("base", &format!(r#","size":{bytes}"#));
    let both = write(&place, &web, &both.on_with("base", &other));
    place.check_refused(&both, &format!("has {bytes} bytes instead of {}", bytes + 1));
    place.fetch(&sized(bytes)).unwrap().commit(&mut ()).unwrap();

    let endless = Web::answering(15, |_, to| {
        server::head(to, 200, &[], None)?;
        server::endless(to)
    });
    let top = Aci::new("top").on_with("base", r#","size":1000"#);
    let top = write(&place, &endless.unwrap(), &top);
    let error = place.fetch(&top).unwrap_err().to_string();
    assert!(error.contains("has more than the 1000 bytes that it should"), "{error}");
}

#[test]
fn what_several_need_is_fetched_once() {
    let Some(web) = Web::new(16) else { return };
    web.put("base", "latest", &Aci::new("base"));
    let latest = r#","labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]"#;
    web.put("left", "latest", &Aci::new("left").on("base").on("base"));
    web.put("right", "latest", &Aci::new("right").on_with("base", latest));
    let place = Place::new();
    let top = Aci::new("top").on("left").on("right").on("left").on("base");
    let top = write(&place, &web, &top);
    let staged = place.fetch(&top).unwrap();
    assert_eq!(staged.parts().len(), 4);
    // Other words for the same place lead there.
    assert_eq!(web.asked(), ["base-latest", "left-latest", "right-latest"]);
    let image = staged.commit(&mut ()).unwrap();
    assert_eq!(image.parts().len(), 4);
    assert_eq!(image.record().dependencies.len(), 4);
    assert_eq!(place.left("image").len(), 4);
    // From the store it is opened once too.
    assert_eq!(place.fetch(&top).unwrap().parts(), image.parts());
    assert_eq!(web.asked(), [""; 0]);
}

/// With two ways down from each image there are 2^40 to the last one.
#[test]
fn many_ways_to_an_image_are_not_all_gone() {
    let Some(web) = Web::new(17) else { return };
    let last = 40;
    for level in 0..last {
        let below = format!("l{}", level + 1);
        web.put(
            &format!("l{level}"),
            "latest",
            &Aci::new(&format!("l{level}")).on(&below).on(&below),
        );
    }
    web.put(&format!("l{last}"), "latest", &Aci::new(&format!("l{last}")));
    let place = Place::new();
    let image = place.fetch("127.0.0.17/l36").unwrap().commit(&mut ()).unwrap();
    assert_eq!(image.parts().len(), 5);
    web.asked();
    let staged = place.fetch("127.0.0.17/l0").unwrap();
    assert_eq!(staged.parts().len(), 41);
    assert_eq!(web.asked().len(), 36);
}

#[test]
fn an_image_that_needs_itself_is_refused() {
    let Some(web) = Web::new(18) else { return };
    let place = Place::new();
    web.put("a", "latest", &Aci::new("a").on("b"));
    web.put("b", "latest", &Aci::new("b").on("c"));
    web.put("c", "latest", &Aci::new("c").on("a"));
    place.check_refused("127.0.0.18/b", "image 127.0.0.18/b depends on itself");
    assert_eq!(web.asked(), ["a-latest", "b-latest", "c-latest"]);
    let own = write(&place, &web, &Aci::new("own").on("own"));
    place.check_refused(&own, "image 127.0.0.18/own depends on itself");
    assert_eq!(web.asked(), [""; 0]);
    assert_eq!(place.left("image"), [""; 0]);
}

/// With every fetch there would be one more below it.
#[test]
fn an_image_that_needs_itself_as_it_was_is_refused() {
    let Some(web) = Web::new(25) else { return };
    let place = Place::new();
    let a = write(&place, &web, &Aci::new("a").on("b"));
    web.put("b", "latest", &Aci::new("b"));
    place.fetch(&a).unwrap().commit(&mut ()).unwrap();
    // As above.
    thread::sleep(Duration::from_millis(1100));
    let b = write(&place, &web, &Aci::new("b").on("a"));
    let parts = place.fetch(&b).unwrap().commit(&mut ()).unwrap().parts().len();
    assert_eq!(parts, 3, "the new one needs what needs the old one");
    let error = place.fetch(&a).unwrap_err();
    assert!(matches!(error, Error::Order(_)), "{error:?}");
    assert!(error.to_string().contains("image 127.0.0.25/a depends on itself"), "{error}");
}

/// A server that has an image of every name, which needs the next one.
#[test]
fn there_are_not_too_many_images_nor_too_large_ones() {
    let content = |path: &str, large: usize| {
        let number = path.rsplit_once('/').unwrap().1.trim_end_matches("-latest.aci");
        let next = number.parse::<u32>().unwrap_or_default() + 1;
        let name = format!("127.0.0.{}", if large > 0 { 20 } else { 19 });
        let mut aci = Aci::new(number).on(&next.to_string()).bytes(&name);
        // More members of gzip's, with nothing in them that would be uncompressed.
        aci.extend(gzip(b"").repeat(large / gzip(b"").len()));
        aci
    };
    let serve = move |large: usize| {
        move |asked: &Asked, to: &mut dyn Write| match asked.path.ends_with(".aci") {
            true => answer(to, 200, &[], &content(&asked.path, large)),
            false => answer(to, 404, &[], b""),
        }
    };
    let Some(web) = Web::answering(19, serve(0)) else { return };
    let mut place = Place::new();
    place.options.limits.set(Limit::Layers, 66).unwrap();
    let error = place.fetch("127.0.0.19/0").unwrap_err();
    assert!(matches!(error, Error::Limit(limit) if limit.limit == Limit::Layers), "{error}");
    assert_eq!(web.asked().len(), 66);

    let many = (0..67).fold(Aci::new("many"), |aci, number| aci.on(&number.to_string()));
    let many = write(&place, &web, &many);
    let error = place.fetch(&many).unwrap_err();
    assert!(matches!(error, Error::Limit(limit) if limit.limit == Limit::Layers), "{error}");
    assert_eq!(web.asked(), [""; 0]);

    let Some(web) = Web::answering(20, serve(1 << 20)) else { return };
    place.options.limits.set(Limit::Size, 5 << 20).unwrap();
    let error = place.fetch("127.0.0.20/0").unwrap_err();
    assert!(
        matches!(error, Error::Limit(limit) if limit.limit == Limit::Size && limit.value == 5 << 20),
        "{error}"
    );
    assert_eq!(web.asked().len(), 5);
    assert_eq!(place.left("tmp"), [""; 0]);
    assert_eq!(place.left("part"), [""; 0]);
}

#[test]
fn images_are_not_nested_too_deep() {
    let Some(web) = Web::new(21) else { return };
    let name = |level: u32| format!("l{level}");
    for level in 0..66 {
        let aci = Aci::new(&name(level));
        web.put(&name(level), "latest", &if level == 65 { aci } else { aci.on(&name(level + 1)) });
    }
    let place = Place::new();
    place.check_refused(
        "127.0.0.21/l0",
        "the images that it depends on are nested more than 64 deep",
    );
    assert_eq!(place.fetch("127.0.0.21/l1").unwrap().parts().len(), 65);
    // Nor if those below are met on a shorter way first.
    let top = (0..66).rev().fold(Aci::new("top"), |aci, level| aci.on(&name(level)));
    let top = write(&place, &web, &top);
    place.check_refused(&top, "nested more than 64 deep");
}

#[test]
fn the_signature_of_the_image_is_not_that_of_what_it_depends_on() {
    let Some(web) = Web::new(22) else { return };
    web.put("base", "latest", &Aci::new("base"));
    web.put("unsigned", "latest", &Aci::new("unsigned"));
    web.files.lock().unwrap().remove("/127.0.0.22/unsigned-latest.aci.asc");
    let mut place = Place::new();
    let top = write(&place, &web, &Aci::new("top").on("base").on("unsigned"));
    let given = place.directory.path().join("given");
    fs::write(&given, "given").unwrap();
    place.options.signature = Some(given);
    let staged = place.fetch(&top).unwrap();
    let signatures: Vec<_> = staged.parts().iter().map(|part| part.signatures.clone()).collect();
    assert_eq!(signatures, [detached("given"), detached("signature of base"), vec![]]);
}

#[test]
fn servers_are_spoken_to_as_their_names_want() {
    let Some(web) = Web::new(23) else { return };
    web.put("base", "latest", &Aci::new("base"));
    let mut place = Place::new();
    let top = write(&place, &web, &Aci::new("top").on("base"));
    let network = std::mem::take(&mut place.options.network);
    place.check_refused(&top, "127.0.0.23/top depends on 127.0.0.23/base: ");
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let hosts = asked.clone();
    place.options.network_of = Some(NetworkOf::new(move |asked| {
        hosts.lock().unwrap().push(asked.join(" "));
        Ok(network.clone())
    }));
    place.fetch(&top).unwrap();
    // The one of the name, then those that it leads to.
    assert_eq!(*asked.lock().unwrap(), ["127.0.0.23", "127.0.0.23 127.0.0.23"]);
    place.options.network_of = Some(NetworkOf::new(|_| Err("no\u{1b}where".to_owned())));
    place.check_refused(&top, "no\\u{1b}where");
}

/// Two that need the same in another order don't wait for each other.
#[test]
fn several_can_fetch_at_the_same_time() {
    let Some(web) = Web::new(24) else { return };
    for name in ["a", "b", "c", "d"] {
        web.put(name, "latest", &Aci::new(name));
    }
    let place = Place::new();
    let orders = [["a", "b", "c", "d"], ["d", "c", "b", "a"], ["b", "d", "a", "c"]];
    let tops: Vec<_> = orders
        .iter()
        .enumerate()
        .map(|(number, order)| {
            let top = Aci::new(&format!("top{number}"));
            write(&place, &web, &order.iter().fold(top, |top, name| top.on(name)))
        })
        .collect();
    thread::scope(|scope| {
        for top in &tops {
            scope.spawn(|| {
                let store = Store::open(&place.directory.path().join("data")).unwrap();
                let reference = Reference::parse(top.as_ref()).unwrap();
                let staged = store.fetch(&reference, &place.options, &mut ()).unwrap();
                assert_eq!(staged.commit(&mut ()).unwrap().parts().len(), 5);
            });
        }
    });
    assert_eq!(place.left("image").len(), 7);
    assert_eq!(place.left("part"), [""; 0]);
}
