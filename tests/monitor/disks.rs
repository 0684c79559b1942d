//! Disks of a guest: images, of which it reads only what was verified, and a scratch disk.

use sandbox_image::tree::{LayerFormat, Tree};
use sandbox_image::{Limits, erofs, verity};
use sandbox_protocol::{
    App, ExitStatus, ImageDisk, MAX_CORRUPTED, Pod, Root, Stdio, ToHost, Verity,
};
use sandbox_tests::image::tiny_layer;
use sandbox_tests::machine::{DiskFile, Machine, installed};
use sandbox_tests::tar::Tar;
use sandbox_tests::temporary;
use sandbox_vmm::exit::Exit;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

const BLOCK: usize = 4096;

/// An image with a file `/z/mark` of [`MARK`] blocks, as the store renders it.
struct Image {
    _directory: TempDir,
    file: PathBuf,
    verity: Verity,
    /// The first block of `/z/mark`.
    mark: u64,
}

const MARK: usize = 40;

/// Blocks of the file `/z/a` before it, all zeros.
const A: usize = 24 * 64;

impl Image {
    fn new() -> Self {
        let directory = temporary();
        let file = directory.path().join("image");
        let mark: Vec<u8> =
            (0..MARK * BLOCK / 8).flat_map(|index| format!("{index:07}\n").into_bytes()).collect();
        let layers = [tiny_layer(), directory.path().join("layer")];
        // The last files of all; no other has hashes in a block with those of `/z/mark`.
        let layer = Tar::new().directory("z", 0o755).file("z/a", 0o644, vec![0; A * BLOCK]);
        fs::write(&layers[1], layer.file("z/mark", 0o644, &mark).finish()).unwrap();
        let layers = layers.map(|layer| File::open(layer).unwrap());
        let mut tree = Tree::new();
        for layer in &layers {
            tree.apply(layer, LayerFormat::Changeset, &Limits::default()).unwrap();
        }
        let mut options = OpenOptions::new();
        let image = options.read(true).write(true).create_new(true).open(&file).unwrap();
        let size = erofs::write(&tree, &layers, &image, &mut ()).unwrap();
        let verity = verity::append(&image, size / verity::BLOCK, &mut ()).unwrap();
        let verity::Verity { data_blocks, hash_start, root_hash } = verity;
        let verity = Verity { data_blocks, hash_start, root_hash };

        let content = fs::read(&file).unwrap();
        let mark = content.chunks(BLOCK).position(|block| block == &mark[..BLOCK]).unwrap() as u64;
        Self { _directory: directory, file, verity, mark }
    }

    /// The image as a disk.
    fn disk(&self, serial: &'static str) -> DiskFile {
        DiskFile { serial, file: File::open(&self.file).unwrap(), read_only: true }
    }

    /// Changes one bit of a block.
    fn change(&self, block: u64) {
        let file = OpenOptions::new().read(true).write(true).open(&self.file).unwrap();
        let (mut byte, at) = ([0], block * BLOCK as u64 + 77);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
}

fn call(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

/// A pod of one app for each script, all of them in the image on the disk `image-0`.
fn pod(image: &Image, scripts: &[&str]) -> Pod {
    let app = |(index, script): (u32, &&str)| App {
        name: format!("app-{index}"),
        root: Root::Image(0),
        root_read_only: false,
        argv: ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec()).into(),
        environment: vec![b"PATH=/bin".to_vec()],
        working_directory: b"/".to_vec(),
        user: "0".into(),
        group: String::new(),
        supplementary_groups: Vec::new(),
        mounts: Vec::new(),
        memory: None,
        cpu_millis: None,
        stdio: Stdio::Streams { stdin: None, stdout: 2000 + 2 * index, stderr: 2001 + 2 * index },
    };
    Pod {
        hostname: "disks".into(),
        share_tag: None,
        images: vec![ImageDisk { serial: "image-0".into(), verity: image.verity.clone() }],
        scratch: None,
        volumes: Vec::new(),
        apps: (0..).zip(scripts).map(app).collect(),
        measured: None,
    }
}

fn start(disks: Vec<DiskFile>) -> Machine {
    let (kernel, initramfs) = installed();
    Machine::with_disks(&kernel, &initramfs, disks)
}

/// Runs a pod with its image; all that its apps and that its guest said.
fn run(image: &Image, pod: &Pod) -> (String, Vec<ToHost>) {
    let mut machine = start(vec![image.disk("image-0")]);
    let (output, said) = machine.run(pod);
    assert_eq!(machine.ends(), Some(Exit::Reset), "{}", machine.console());
    (output, said)
}

fn exited(code: u8) -> ToHost {
    ToHost::Exited { app: 0, status: ExitStatus::Code(code), out_of_memory: false }
}

/// The blocks that the host was told of, in order.
fn corrupted(said: &[ToHost]) -> Vec<u64> {
    let mut blocks: Vec<u64> = said
        .iter()
        .filter_map(|message| match message {
            ToHost::Corrupted { image: 0, block } => Some(*block),
            ToHost::Corrupted { .. } => panic!("there is one image: {said:?}"),
            _ => None,
        })
        .collect();
    blocks.sort_unstable();
    blocks
}

/// "The guest mounts it through virtio-blk + dm-verity set up by guest-init", once for all its apps;
/// neither disks nor devices are in reach of an app.
#[test]
fn apps_share_an_image_and_reach_no_disk() {
    let image = Image::new();
    let script = "cat /bin/* /lib/*/* /z/mark >/dev/null && tail -n 1 /z/mark; echo x >/bin/new && \
                  cat /bin/new; rm /z/mark && ls /z/mark; ls -d /dev/vd* /dev/dm* /dev/mapper; \
                  for major in 252 253 254; do \
                    mknod /n$major b $major 0; dd if=/n$major of=/dev/null count=1; done; \
                  ls /sys/block | tr '\\n' ' '";
    let (output, said) = run(&image, &pod(&image, &[script, "wc -l </z/mark; ls /bin/new"]));
    for part in ["0020479\n", "x\n", "20480\n", "dm-0 vda "] {
        assert!(output.contains(part), "{part} in {output}");
    }
    assert_eq!(output.matches("No such file or directory").count(), 5, "{output}");
    assert_eq!(output.matches("Permission denied").count(), 3, "{output}");
    assert!(said.contains(&exited(0)) && corrupted(&said).is_empty(), "{said:?}");
}

/// "A changed byte in the store makes the guest's read fail, and the supervisor reports it." The
/// guest's page cache holds files in units of up to 32 blocks, which are read as a whole or not; what
/// is beyond the unit of the changed block can still be read.
#[test]
fn a_changed_block_is_an_error_for_who_reads_it_and_the_host_is_told_once() {
    let image = Image::new();
    let block = image.mark + 5;
    image.change(block);
    let script = "for try in 1 2 3; do cat /z/mark >/dev/null; done; \
                  for skip in 5 32 39; do dd if=/z/mark of=/dev/null bs=4096 count=1 skip=$skip; \
                  done 2>&1; echo on; exit 3";
    let (output, said) = run(&image, &pod(&image, &[script]));
    assert_eq!(output.matches("Input/output error").count(), 4, "{output}");
    assert_eq!(output.matches("4096 bytes (4.1 kB").count(), 2, "{output}");
    assert!(output.contains("\non\n"), "{output}");
    assert_eq!(corrupted(&said), [block]);
    let place = |wanted: &ToHost| said.iter().position(|message| message == wanted);
    assert!(place(&ToHost::Corrupted { image: 0, block }) < place(&exited(3)), "{said:?}");
}

#[test]
fn of_many_changed_blocks_the_host_is_told_some() {
    let image = Image::new();
    let changed: Vec<u64> = (image.mark - A as u64..image.mark).step_by(64).collect();
    changed.iter().for_each(|block| image.change(*block));
    let script = "for skip in $(seq 0 64 1535); do \
                  dd if=/z/a of=/dev/null bs=4096 count=1 skip=$skip; done 2>&1";
    let (output, said) = run(&image, &pod(&image, &[script]));
    assert_eq!(output.matches("Input/output error").count(), changed.len(), "{output}");
    let blocks = corrupted(&said);
    assert_eq!(blocks, changed[..MAX_CORRUPTED]);
}

/// The hashes of what is read are verified as what is read.
#[test]
fn a_changed_hash_block_is_an_error_too() {
    let image = Image::new();
    // The topmost block is first, then those that have the hashes of 128 blocks each.
    let block = image.verity.hash_start + 1 + image.mark / 128;
    image.change(block);
    let (output, said) = run(&image, &pod(&image, &["cat /z/mark >/dev/null; echo on"]));
    assert!(output.contains("Input/output error") && output.contains("on\n"), "{output}");
    assert_eq!(corrupted(&said), [block]);
}

#[test]
fn an_image_that_is_another_from_its_first_block_on_is_refused_as_what_it_is() {
    let image = Image::new();
    let top = image.verity.hash_start;
    let refused = |pod: &Pod, block: u64| {
        let mut machine = start(vec![image.disk("image-0")]);
        let said = machine.refuses(pod);
        assert_eq!(corrupted(&said), [block]);
        let ToHost::Failed { app: None, error } = &said[1] else { panic!("{said:?}") };
        let reason = format!("\"image-0\" is not what was verified, its block {block} for one");
        assert!(error.to_string().contains(&reason), "{error}");
        drop(machine.control.take());
    };
    let mut other = pod(&image, &["true"]);
    other.images[0].verity.root_hash[31] ^= 1;
    refused(&other, top);
    image.change(0);
    refused(&pod(&image, &["true"]), 0);
    image.change(0);
    image.change(top);
    refused(&pod(&image, &["true"]), top);
}

/// An app whose program cannot be read says why.
#[test]
fn an_app_that_cannot_start_for_its_image_says_so() {
    let image = Image::new();
    // Where programs and libraries begin.
    let content = fs::read(&image.file).unwrap();
    for (number, block) in (0..).zip(content.chunks(BLOCK)) {
        if block.starts_with(b"\x7fELF") {
            image.change(number);
        }
    }
    let (_, said) = run(&image, &pod(&image, &["true"]));
    let blocks = corrupted(&said);
    assert!(!blocks.is_empty(), "{said:?}");
    let failure = said.iter().find_map(|message| match message {
        ToHost::Failed { app: Some(0), error } => Some(error.to_string()),
        _ => None,
    });
    let failure = failure.unwrap_or_else(|| panic!("{said:?}"));
    assert!(
        failure.contains("the content of the app's image is not what was verified"),
        "{failure}"
    );
}

/// "Upper layer tmpfs or bounded scratch disk": what fills up is the disk, for the app.
#[test]
fn a_scratch_disk_holds_what_apps_write_and_no_more() {
    let image = Image::new();
    let directory = temporary();
    let path = directory.path().join("scratch");
    File::create(&path).unwrap().set_len(256 << 20).unwrap();
    call(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-O", "^has_journal"]).arg(&path));
    let scratch = OpenOptions::new().read(true).write(true).open(&path).unwrap();

    // More than the guest has memory.
    let script = "dd if=/dev/zero of=/a bs=1M count=200 2>&1 | tail -n 1; sync; wc -c </a; \
                  cp /z/mark /b; dd if=/dev/zero of=/c bs=1M count=200 2>&1 | head -n 1; \
                  echo x >/dev/shm/x && cat /dev/shm/x; rm /a /c; tail -n 1 /b; echo y >/y && cat /y";
    let mut pod = pod(&image, &[script, "echo other >/other && cat /other"]);
    pod.scratch = Some("scratch".into());
    let scratch = DiskFile { serial: "scratch", file: scratch, read_only: false };
    let mut machine = start(vec![scratch, image.disk("image-0")]);
    let (output, said) = machine.run(&pod);
    assert_eq!(machine.ends(), Some(Exit::Reset), "{}", machine.console());
    for part in ["209715200\n", "No space left on device", "\nx\n0020479\ny\n", "other\n"] {
        assert!(output.contains(part), "{part} in {output}");
    }
    assert!(said.contains(&exited(0)) && corrupted(&said).is_empty(), "{said:?}");
}

#[test]
fn a_disk_that_is_not_there_is_named() {
    let image = Image::new();
    let mut machine = start(vec![image.disk("image-1")]);
    let said = machine.refuses(&pod(&image, &["true"]));
    let ToHost::Failed { app: None, error } = &said[0] else { panic!("{said:?}") };
    assert!(error.to_string().contains("no disk with the serial \"image-0\""), "{error}");
}
