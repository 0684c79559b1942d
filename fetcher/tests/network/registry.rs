//! Images of registries.

use super::{
    Content, Place,
    common::{
        Tar,
        layout::{CONFIG, INDEX, LAYER, MANIFEST, config, gzip, index_document, manifest, sha256},
    },
    server::{Server, answer, cut, head},
};
use sandbox_image::{
    Error, Progress, PullPolicy, Reference, Step, Store,
    evidence::Signature,
    registry::{Lookaside, RegistryReference, Rules},
};
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub(super) fn descriptor(media_type: &str, bytes: &[u8]) -> String {
    let digest = sha256(bytes);
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#, bytes.len())
}

/// An image with some layers.
pub(super) struct Image {
    pub(super) layers: Vec<Vec<u8>>,
    pub(super) config: String,
    pub(super) manifest: String,
    pub(super) index: String,
}

impl Image {
    /// The last layer comes twice.
    pub(super) fn new() -> Self {
        let noise = |seed: u32| {
            let bytes = (0..150_000_u32).map(|n| n.wrapping_mul(seed).wrapping_mul(2_654_435_761));
            bytes.flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
        };
        let layer = |n: u32| Tar::new().file(&format!("file{n}"), &noise(n)).finish();
        let mut plain: Vec<_> = (1..5).map(layer).collect();
        plain.push(plain[3].clone());
        let layers: Vec<_> = plain.iter().map(|layer| gzip(layer)).collect();
        let config = config(&plain);
        let described: Vec<_> = layers.iter().map(|layer| descriptor(LAYER, layer)).collect();
        let manifest = manifest(&descriptor(CONFIG, config.as_bytes()), &described);
        let other = r#""platform":{"os":"linux","architecture":"riscv64"}"#;
        let ours = r#""platform":{"os":"linux","architecture":"amd64"}"#;
        let with = super::common::layout::with;
        let index = index_document(&[
            with(&descriptor(MANIFEST, b"other"), other),
            with(&descriptor(MANIFEST, manifest.as_bytes()), ours),
        ]);
        Self { layers, config, manifest, index }
    }

    /// As `app:1` of a registry.
    pub(super) fn content(&self) -> Content {
        let index = self.index.as_bytes();
        let mut content = Content::default().with("/v2/app/manifests/1", INDEX, index);
        for (media_type, document) in [(INDEX, &self.index), (MANIFEST, &self.manifest)] {
            let bytes = document.as_bytes();
            let path = format!("/v2/app/manifests/{}", sha256(bytes));
            content = content.with(&path, media_type, bytes);
        }
        for blob in self.layers.iter().map(Vec::as_slice).chain([self.config.as_bytes()]) {
            let path = format!("/v2/app/blobs/{}", sha256(blob));
            content = content.with(&path, "application/octet-stream", blob);
        }
        content
    }
}

/// The layer of cosign's image that signs.
fn cosign(content: Content, manifest: &str) -> Content {
    let payload = b"{\"critical\":{}}";
    let layer = descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload);
    let signature = r#""annotations":{"dev.cosignproject.cosign/signature":"c2lnbmF0dXJl"}"#;
    let layer = super::common::layout::with(&layer, signature);
    let artifact = format!(r#"{{"schemaVersion":2,"layers":[{layer}]}}"#);
    let tag = format!("/v2/app/manifests/{}.sig", sha256(manifest.as_bytes()).file_name());
    let blob = format!("/v2/app/blobs/{}", sha256(payload));
    content.with(&tag, MANIFEST, artifact.as_bytes()).with(&blob, "x/y", payload)
}

#[test]
fn an_image_comes_with_its_signatures() {
    let image = Image::new();
    let server = cosign(image.content(), &image.manifest).serve();
    let mut place = Place::new();
    let reference = format!("{}/app:1", server.authority);
    let simple = |message: &[u8]| Signature::SimpleSigning { message: message.to_vec() };
    let signed = sha256(image.index.as_bytes()).to_string().replacen(':', "=", 1);
    let sigs = format!("/sigs/app@{signed}/signature-1");
    let web = Content::default().with(&sigs, "x/y", b"on the web").serve();
    let web_place = Lookaside::Web(web.url("https", "/sigs").parse().unwrap());
    place.options.network.lookaside = Some(web_place);

    let staged = place.fetch(&reference).unwrap();
    let [part] = staged.parts() else { panic!("{:?}", staged.parts()) };
    assert_eq!(part.id, sha256(image.manifest.as_bytes()));
    assert_eq!(part.name, format!("{}/app", server.authority));
    let manifests = [sha256(image.manifest.as_bytes()), sha256(image.index.as_bytes())];
    assert_eq!(part.manifests, manifests);
    let cosign = Signature::Cosign {
        payload: b"{\"critical\":{}}".to_vec(),
        signature: b"signature".to_vec(),
    };
    assert_eq!(part.signatures, [cosign.clone(), simple(b"on the web")]);
    let stored = staged.commit(&mut ()).unwrap();
    place.store.verify(&stored, &mut ()).unwrap();
    assert_eq!(stored.record().signatures, [cosign.clone(), simple(b"on the web")]);
    let found = place.store.find(&Reference::parse(reference.as_ref()).unwrap()).unwrap();
    assert_eq!(found.unwrap().id(), stored.id());

    // Nothing is asked for what is there.
    server.asked();
    assert!(place.fetch(&reference).unwrap().is_stored());
    assert!(server.asked().is_empty());
    // What the tag leads to, but nothing that is there.
    place.options.pull_policy = PullPolicy::Update;
    let below = place.directory.path().join("sigs").join(format!("app@{signed}"));
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("signature-1"), "in a file").unwrap();
    let directory = Lookaside::Directory(place.directory.path().join("sigs"));
    place.options.network.lookaside = Some(directory);
    let staged = place.fetch(&reference).unwrap();
    assert_eq!(staged.parts()[0].signatures, [cosign, simple(b"in a file")]);
    assert_eq!(staged.commit(&mut ()).unwrap().id(), stored.id());
    for layer in &image.layers {
        let path = format!("/v2/app/blobs/{}", sha256(layer));
        assert!(server.asked().iter().all(|asked| asked.path != path));
    }
}

/// Remembers the steps, and ends after some.
#[derive(Default)]
struct Steps {
    downloads: BTreeMap<usize, (u64, u64)>,
    ends_at_first: bool,
}

impl Progress for Steps {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        if let Step::Download { index, count, done, total } = step {
            assert_eq!(count, 4);
            self.downloads.insert(index, (done, total));
            if self.ends_at_first {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn progress_is_told_of_each_blob_and_can_end_it() {
    let image = Image::new();
    let server = image.content().serve();
    let place = Place::new();
    let reference = format!("{}/app:1", server.authority);
    let reference = Reference::parse(reference.as_ref()).unwrap();
    let mut steps = Steps { ends_at_first: true, ..Steps::default() };
    let error = place.store.fetch(&reference, &place.options, &mut steps).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    let mut steps = Steps::default();
    drop(place.store.fetch(&reference, &place.options, &mut steps).unwrap());
    let mut sizes: Vec<_> = steps.downloads.values().map(|(done, _)| *done).collect();
    let downloads = &steps.downloads;
    assert!(downloads.values().all(|(done, total)| done == total), "{downloads:?}");
    let mut expected: Vec<_> = image.layers[..4].iter().map(|layer| layer.len() as u64).collect();
    sizes.sort_unstable();
    expected.sort_unstable();
    assert_eq!(sizes, expected);
}

#[test]
fn what_is_interrupted_goes_on_the_next_time() {
    let image = Image::new();
    let content = image.content();
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let first = format!("/v2/app/blobs/{}", sha256(&image.layers[0]));
    let layer = image.layers[0].clone();
    let path = first.clone();
    let server = Server::https(move |asked, to| {
        if asked.path != path {
            return content.answer(asked, to);
        }
        let start = asked.header("range").map_or(0, |range| {
            range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap()
        });
        if !is_broken.load(Ordering::Relaxed) {
            let range = format!("bytes {start}-{}/{}", layer.len() - 1, layer.len());
            let status = if start == 0 { 200 } else { 206 };
            return answer(to, status, &[("Content-Range", &range)], &layer[start..]);
        }
        if start > 0 {
            return answer(to, 503, &[], b"");
        }
        head(to, 200, &[], Some(layer.len()))?;
        to.write_all(&layer[..300_000])?;
        cut()
    });
    let place = Place::new();
    let reference = format!("{}/app:1", server.authority);
    let error = place.fetch(&reference).unwrap_err();
    assert!(matches!(error, Error::Interrupted(_)), "{error}");
    assert!(place.left("part").contains(&sha256(&image.layers[0]).file_name()));
    server.asked();
    broken.store(false, Ordering::Relaxed);
    place.fetch(&reference).unwrap().commit(&mut ()).unwrap();
    let asked = server.asked();
    let again = asked.iter().find(|asked| asked.path == first).unwrap();
    assert_eq!(again.header("range"), Some("bytes=300000-"));
    assert_eq!(place.left("part"), [""; 0]);
}

/// Ends a fetch when so much is there of the blob of this size.
struct EndAt {
    at: u64,
    size: u64,
}

impl Progress for EndAt {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        match step {
            Step::Download { done, total, .. } if total == self.size && done >= self.at => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

#[test]
fn what_was_cancelled_goes_on_the_next_time() {
    let image = Image::new();
    let content = image.content();
    let first = format!("/v2/app/blobs/{}", sha256(&image.layers[0]));
    let (layer, path) = (image.layers[0].clone(), first.clone());
    let server = Server::https(move |asked, to| {
        if asked.path != path {
            return content.answer(asked, to);
        }
        if let Some(range) = asked.header("range") {
            let start = range.strip_prefix("bytes=").unwrap().trim_end_matches('-');
            let start: usize = start.parse().unwrap();
            let range = format!("bytes {start}-{}/{}", layer.len() - 1, layer.len());
            return answer(to, 206, &[("Content-Range", &range)], &layer[start..]);
        }
        head(to, 200, &[], Some(layer.len()))?;
        // Slow enough to be seen before it ends.
        for piece in layer.chunks(50_000) {
            to.write_all(piece)?;
            thread::sleep(Duration::from_millis(150));
        }
        Ok(())
    });
    let mut place = Place::new();
    place.options.jobs = 1;
    let reference = format!("{}/app:1", server.authority);
    let parsed = Reference::parse(reference.as_ref()).unwrap();
    let size = |name: &str| {
        let path = place.directory.path().join("data/cas/part").join(name);
        fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default()
    };
    let name = sha256(&image.layers[0]).file_name();
    let mut end = EndAt { at: 100_000, size: image.layers[0].len() as u64 };
    let error = place.store.fetch(&parsed, &place.options, &mut end).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(size(&name) >= 100_000);
    assert!(size(&name) < image.layers[0].len() as u64);
    // It is nobody's garbage yet, unless all is to go that was not used just now.
    assert_eq!(place.store.gc(None).unwrap().blobs, 0);
    server.asked();
    let there = size(&name);
    let staged = place.fetch(&reference).unwrap();
    let asked = server.asked();
    let again = asked.iter().find(|asked| asked.path == first).unwrap();
    assert_eq!(again.header("range").unwrap(), format!("bytes={there}-"));

    // What is there when rendering is cancelled need not come again either.
    struct NoLayer;
    impl Progress for NoLayer {
        fn report(&mut self, step: Step) -> ControlFlow<()> {
            match step {
                Step::Layer { .. } => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let error = staged.commit(&mut NoLayer).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(size(&name), image.layers[0].len() as u64);
    assert_eq!(place.left("part").len(), 4, "the documents are kept, too");
    place.fetch(&reference).unwrap().commit(&mut ()).unwrap();
    let path = |layer: &Vec<u8>| format!("/v2/app/blobs/{}", sha256(layer));
    let asked = server.asked();
    assert!(image.layers.iter().all(|layer| asked.iter().all(|asked| asked.path != path(layer))));
    assert_eq!(place.left("part"), [""; 0]);
}

#[test]
fn what_is_not_wanted_leaves_no_part() {
    let image = Image::new();
    let server = image.content().serve();
    let place = Place::new();
    // As the gate does that refuses it.
    drop(place.fetch(&format!("{}/app:1", server.authority)).unwrap());
    assert_eq!(place.left("part"), [""; 0]);
}

#[test]
fn an_image_takes_over_the_signatures_of_its_last_fetch() {
    let image = Image::new();
    let cosign = |signature: &[u8]| Signature::Cosign {
        payload: b"{\"critical\":{}}".to_vec(),
        signature: signature.to_vec(),
    };
    let first = image.content();
    let signed = self::cosign(first.clone(), &image.manifest);
    let is_signed = Arc::new(AtomicBool::new(false));
    let now_signed = is_signed.clone();
    let other = signed.clone().serve();
    let server = Server::https(move |asked, to| {
        let content = if now_signed.load(Ordering::Relaxed) { &signed } else { &first };
        content.answer(asked, to)
    });
    let mut place = Place::new();
    place.options.pull_policy = PullPolicy::Update;
    let commit = |place: &Place, server: &Server, verdict: &str| {
        let mut staged = place.fetch(&format!("{}/app:1", server.authority)).unwrap();
        staged.set_verdict(0, verdict.to_owned());
        staged.commit(&mut ()).unwrap()
    };
    let pod = commit(&place, &server, "unsigned");
    assert_eq!(pod.record().signatures, []);
    let rootfs = place.directory.path().join("data/cas/image").join(pod.id().file_name());
    let rootfs = rootfs.join("rootfs.erofs");
    let before = fs::metadata(&rootfs).unwrap();

    // It is signed while a pod uses it.
    is_signed.store(true, Ordering::Relaxed);
    let updated = commit(&place, &server, "signed");
    assert_eq!(updated.parts()[0].signatures, [cosign(b"signature")]);
    let stored = |server: &Server| {
        let reference = Reference::parse(format!("{}/app:1", server.authority).as_ref()).unwrap();
        Store::open(&place.directory.path().join("data"))
            .unwrap()
            .find(&reference)
            .unwrap()
            .unwrap()
    };
    let found = stored(&server);
    assert_eq!(found.parts()[0].signatures, [cosign(b"signature")]);
    let judged = found.record().judged.clone().unwrap();
    assert_eq!(judged.verdict, "signed");
    assert!(judged.at >= pod.record().judged.as_ref().unwrap().at);
    let after = fs::metadata(&rootfs).unwrap();
    assert_eq!((after.ino(), after.ctime_nsec()), (before.ino(), before.ctime_nsec()));

    // A pod that renews what it knows about the file does not bring the old record back.
    fs::set_permissions(&rootfs, before.permissions()).unwrap();
    pod.rootfs(&mut ()).unwrap();
    assert_eq!(stored(&server).record().signatures, [cosign(b"signature")]);
    assert_ne!(stored(&server).record().rootfs.checked, pod.record().rootfs.checked);
    place.store.verify(&pod, &mut ()).unwrap();

    // What the same place has no more is gone, what another has is not.
    commit(&place, &other, "signed elsewhere");
    is_signed.store(false, Ordering::Relaxed);
    let updated = commit(&place, &server, "unsigned");
    assert_eq!(updated.record().signatures, []);
    assert_eq!(updated.record().elsewhere.len(), 1);
    assert_eq!(stored(&other).parts()[0].signatures, [cosign(b"signature")]);
    // Nobody who does not want signatures has found out that there are none.
    place.options.insecure_image = true;
    is_signed.store(true, Ordering::Relaxed);
    commit(&place, &server, "signed");
    is_signed.store(false, Ordering::Relaxed);
    let updated = commit(&place, &server, "insecure");
    assert_eq!(updated.record().signatures, [cosign(b"signature")]);
}

#[test]
fn what_is_not_what_it_is_called_is_refused() {
    let image = Image::new();
    let refused = |content: Content, problem: &str| {
        let server = content.serve();
        Place::new().check_refused(&format!("{}/app:1", server.authority), problem);
    };
    // Another layer of the same length, another configuration, another manifest.
    let mut layer = image.layers[1].clone();
    layer[100] ^= 1;
    let path = format!("/v2/app/blobs/{}", sha256(&image.layers[1]));
    refused(image.content().with(&path, "x/y", &layer), "sends content with the digest");
    let path = format!("/v2/app/blobs/{}", sha256(image.config.as_bytes()));
    refused(image.content().with(&path, "x/y", b"{}"), "sends content with the digest");
    let path = format!("/v2/app/manifests/{}", sha256(image.manifest.as_bytes()));
    refused(image.content().with(&path, MANIFEST, b"{}"), "sends content with the digest");
    // None for this machine, none at all.
    let only = index_document(&[super::common::layout::with(
        &descriptor(MANIFEST, image.manifest.as_bytes()),
        r#""platform":{"os":"linux","architecture":"riscv64"}"#,
    )]);
    let content = image.content().with("/v2/app/manifests/1", INDEX, only.as_bytes());
    refused(content, "not an image for linux/amd64");
    refused(Content::default(), "the registry does not have it");
    // One that is asked for by digest is that, and no other.
    let content = image.content().with("/v2/app/manifests/1", INDEX, b"{\"schemaVersion\":2}");
    let path = format!("/v2/app/manifests/{}", sha256(image.index.as_bytes()));
    let server = content.with(&path, MANIFEST, image.manifest.as_bytes()).serve();
    let by_digest = format!("{}/app@{}", server.authority, sha256(image.index.as_bytes()));
    Place::new().check_refused(&by_digest, "sends content with the digest");
}

#[test]
fn what_a_mirror_has_wrong_comes_from_the_registry() {
    let image = Image::new();
    let mut layer = image.layers[1].clone();
    layer[100] ^= 1;
    let path = |layer: &[u8]| format!("/v2/app/blobs/{}", sha256(layer));
    let mirror = image.content().with(&path(&image.layers[1]), "x/y", &layer).serve();
    let registry = image.content().serve();
    let mut place = Place::new();
    let rules = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
        registry.authority, mirror.authority
    );
    fs::write(place.directory.path().join("registries.conf"), rules).unwrap();
    place.options.network.registry.rules = Rules::load(place.directory.path()).unwrap();

    let staged = place.fetch(&format!("{}/app:1", registry.authority)).unwrap();
    let stored = staged.commit(&mut ()).unwrap();
    place.store.verify(&stored, &mut ()).unwrap();
    assert_eq!(place.left("part"), [""; 0]);
    let blobs = |server: &Server| {
        let asked = server.asked().into_iter().map(|asked| asked.path);
        asked.filter(|path| path.contains("blobs")).collect::<Vec<_>>()
    };
    assert_eq!(blobs(&registry), [path(&image.layers[1])]);
    // What it has right is not asked for again.
    let asked = blobs(&mirror);
    for layer in [0, 2, 3].map(|layer| path(&image.layers[layer])) {
        assert_eq!(asked.iter().filter(|path| **path == layer).count(), 1, "{asked:?}");
    }
}

#[test]
fn what_is_left_of_an_earlier_time_and_damaged_comes_anew() {
    let image = Image::new();
    let server = image.content().serve();
    let place = Place::new();
    let (short, whole) = (&image.layers[0], &image.layers[2]);
    let part =
        |layer: &[u8]| place.directory.path().join("data/cas/part").join(sha256(layer).file_name());
    let mut damaged = whole.clone();
    damaged[7] ^= 1;
    fs::write(part(whole), &damaged).unwrap();
    fs::write(part(short), &damaged[..1000]).unwrap();
    let staged = place.fetch(&format!("{}/app:1", server.authority)).unwrap();
    let stored = staged.commit(&mut ()).unwrap();
    place.store.verify(&stored, &mut ()).unwrap();
    assert_eq!(place.left("part"), [""; 0]);
}

#[test]
fn signatures_that_cannot_be_asked_for_are_an_error_unless_none_are_needed() {
    let image = Image::new();
    let content = image.content();
    let tag = format!("/v2/app/manifests/{}.sig", sha256(image.manifest.as_bytes()).file_name());
    let server = Server::https(move |asked, to| {
        if asked.path == tag { answer(to, 403, &[], b"") } else { content.answer(asked, to) }
    });
    let reference = format!("{}/app:1", server.authority);
    let mut place = Place::new();
    place.check_refused(&reference, "status 403");
    place.options.insecure_image = true;
    let staged = place.fetch(&reference).unwrap();
    assert_eq!(staged.parts()[0].signatures, []);
    drop(staged);
    // Files of this machine, too.
    place.options.insecure_image = false;
    let server = image.content().serve();
    let reference = format!("{}/app:1", server.authority);
    let parsed = RegistryReference::parse(&reference).unwrap();
    let folder = place.directory.path().join("sigs");
    let digest = sha256(image.manifest.as_bytes()).to_string().replacen(':', "=", 1);
    let below = folder.join(format!("{}@{digest}", parsed.repository()));
    fs::create_dir_all(below.join("signature-1")).unwrap();
    place.options.network.lookaside = Some(Lookaside::Directory(folder));
    place.check_refused(&reference, "signature-1");
    place.options.insecure_image = true;
    place.fetch(&reference).unwrap();
}

#[test]
fn blobs_come_at_the_same_time_but_no_more_of_them_than_was_said() {
    let image = Image::new();
    let content = image.content();
    let config = format!("/v2/app/blobs/{}", sha256(image.config.as_bytes()));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let server = Server::https(move |asked, to| {
        if !asked.path.contains("/blobs/") || asked.path == config {
            return content.answer(asked, to);
        }
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // Nobody gets anything before as many are here as may be.
        let begin = Instant::now();
        while most.load(Ordering::SeqCst) < 3 && begin.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
        now.fetch_sub(1, Ordering::SeqCst);
        content.answer(asked, to)
    });
    let mut place = Place::new();
    place.options.jobs = 3;
    place.fetch(&format!("{}/app:1", server.authority)).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}
