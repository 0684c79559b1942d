//! Images made by the tools that people make images with.

use sandbox_tests::command::Tool;
use sandbox_tests::tar::Tar;
use sandbox_tests::{Host, temporary};
use std::fs;
use std::path::Path;

/// What an image's files are, by the tool that this is held against: type, mode, owner, size, link.
fn listing(root: &Path) -> String {
    let format = "%P %y %m %U:%G %s %l\\n";
    let text = Tool::new("find")
        .with([root])
        .with(["-mindepth", "1", "!", "-type", "d", "-printf", format])
        .text();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The files of an image as `image render` has them.
fn rendered(host: &Host, image: &str) -> String {
    host.fetch(image);
    let out = host.at("/root/rendered");
    let out_word = out.to_str().unwrap();
    host.sandbox(["image", "render", "--rootfs-only", "--overwrite", image, out_word]).exits(0);
    listing(&out)
}

#[test]
fn an_image_of_umoci_has_the_files_that_umoci_unpacks() {
    let directory = temporary();
    let layout = directory.path().join("layout");
    let image = format!("{}:tag", layout.display());
    Tool::new("umoci").with(["init", "--layout"]).with([&layout]).run();
    Tool::new("umoci").with(["new", "--image", &image]).run();
    let lower = Tar::new()
        .directory("d", 0o750)
        .entry(b'0', "d/tool", 0o4755, (7, 8), b"x", "")
        .file("d/gone", 0o600, "gone")
        .hard_link("d/hard", "d/tool")
        .symlink("d/soft", "tool")
        .finish();
    let upper = Tar::new().file("d/.wh.gone", 0o644, "").file("d/new", 0o604, "new").finish();
    for (number, layer) in [lower, upper].into_iter().enumerate() {
        let file = directory.path().join(format!("{number}.tar"));
        fs::write(&file, layer).unwrap();
        Tool::new("umoci").with(["raw", "add-layer", "--image", &image]).with([&file]).run();
    }
    Tool::new("umoci").with(["config", "--image", &image, "--config.cmd=/d/tool"]).run();
    let bundle = directory.path().join("bundle");
    Tool::new("umoci").with(["unpack", "--image", &image]).with([&bundle]).run();
    let host = Host::trusting();
    let expected = listing(&bundle.join("rootfs"));
    assert!(expected.contains("d/tool f 4755"), "{expected}");
    assert_eq!(rendered(&host, &format!("oci:{image}")), expected);

    // Skopeo's copies of it in every form that it knows.
    for (transport, format) in [("oci", "oci"), ("oci-archive", "oci"), ("docker-archive", "v2s2")]
    {
        let copy = format!("{transport}:{}", directory.path().join(transport).display());
        Tool::new("skopeo")
            .with(["copy", "--quiet", "--insecure-policy", "--format", format])
            .with([format!("oci:{image}"), format!("{copy}:copied:tag")])
            .run();
        let name = if transport == "docker-archive" { copy } else { format!("{copy}:copied:tag") };
        assert_eq!(rendered(&host, &name), expected, "{name}");
    }
}

#[test]
fn an_image_of_buildah_has_the_files_that_were_put_into_it() {
    let directory = temporary();
    let at = |name: &str| directory.path().join(name);
    let buildah = || {
        Tool::new("buildah")
            .with(["--storage-driver=vfs"])
            .option("--root", at("root"))
            .option("--runroot", at("runroot"))
    };
    fs::write(at("file"), "by buildah\n").unwrap();
    let container = buildah().with(["from", "scratch"]).text();
    buildah()
        .with(["copy", "--chown=5:6", "--chmod=640", &container])
        .with([at("file")])
        .with(["/etc/file"])
        .run();
    buildah().with(["config", "--cmd=/etc/file", "--env=KEY=value", &container]).run();
    let layout = format!("oci:{}:built", at("layout").display());
    buildah().with(["commit", "--quiet", &container, &layout]).run();
    let host = Host::trusting();
    assert!(
        rendered(&host, &layout).starts_with("etc/file f 640 5:6 11"),
        "{}",
        rendered(&host, &layout)
    );
    let manifest = host.sandbox(["image", "cat-manifest", &layout]).exits(0);
    manifest.mentions("KEY").mentions("/etc/file");
}
