//! FUSE requests of a guest: the header is one, and what follows has about the form that belongs to
//! it.
#![no_main]

mod driver;
mod inside;

use driver::{BUFFERS, Driver, WRITABLE};
use inside::{Inside, inside};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use sandbox_fs::device::REQUEST_QUEUE;
use vm_memory::{Bytes, GuestAddress};

const REPLY: u64 = BUFFERS + 0x4000;
const REPLY_ROOM: u32 = 0x6000;
const HEADER: usize = 40;
const REPLY_HEADER: u32 = 16;
/// Of a lookup that has found something.
const ENTRY: u32 = REPLY_HEADER + 128;
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const SYMLINK: u32 = 6;
const MKNOD: u32 = 8;
const MKDIR: u32 = 9;
const LINK: u32 = 13;
const OPEN: u32 = 14;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const CREATE: u32 = 35;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
/// No reply follows these.
const SILENT: [u32; 3] = [FORGET, INTERRUPT, DESTROY];

#[derive(Debug, Arbitrary)]
struct Request {
    operation: u8,
    node: Node,
    user: u8,
    words: Vec<Word>,
    names: [Name; 2],
    rest: Vec<u8>,
    /// Where it is split into two descriptors.
    split: Option<u8>,
    /// What the header says of the length, if that is something else.
    length: Option<u32>,
    room: Room,
}

#[derive(Debug, Arbitrary)]
enum Node {
    /// One that the guest has learnt of.
    Known(u8),
    Any(u64),
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Word {
    Low(u8),
    /// An open file that the guest has, or a node that it has learnt of.
    Handle(u8),
    Node(u8),
    Halves(u16, u16),
    Any(u64),
}

#[derive(Debug, Arbitrary)]
enum Name {
    Share,
    Fixed,
    Secret,
    File,
    Directory,
    Inner,
    Link,
    Pipe,
    New,
    Up,
    Path,
    Attribute,
    Capability,
    Any(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Room {
    Enough,
    Little(u8),
}

impl Name {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Share => b"share",
            Self::Fixed => b"fixed",
            Self::Secret => b"secret",
            Self::File => b"file",
            Self::Directory => b"dir",
            Self::Inner => b"inner",
            Self::Link => b"link",
            Self::Pipe => b"pipe",
            Self::New => b"new",
            Self::Up => b"..",
            Self::Path => b"../fixed/secret",
            Self::Attribute => b"user.a",
            Self::Capability => b"security.capability",
            Self::Any(bytes) => bytes,
        }
    }
}

/// Words and names of each operation's body (`include/uapi/linux/fuse.h`), from 1 on.
const FORMS: [(usize, usize); 53] = [
    (0, 1),  // LOOKUP
    (1, 0),  // FORGET
    (2, 0),  // GETATTR
    (11, 0), // SETATTR
    (0, 0),  // READLINK
    (0, 2),  // SYMLINK
    (0, 0),
    (2, 1), // MKNOD
    (1, 1), // MKDIR
    (0, 1), // UNLINK
    (0, 1), // RMDIR
    (1, 2), // RENAME
    (1, 1), // LINK
    (1, 0), // OPEN
    (5, 0), // READ
    (5, 0), // WRITE
    (0, 0), // STATFS
    (3, 0), // RELEASE
    (0, 0),
    (2, 0), // FSYNC
    (1, 1), // SETXATTR
    (1, 1), // GETXATTR
    (1, 0), // LISTXATTR
    (0, 1), // REMOVEXATTR
    (3, 0), // FLUSH
    (8, 0), // INIT
    (1, 0), // OPENDIR
    (5, 0), // READDIR
    (3, 0), // RELEASEDIR
    (2, 0), // FSYNCDIR
    (6, 0), // GETLK
    (6, 0), // SETLK
    (6, 0), // SETLKW
    (1, 0), // ACCESS
    (2, 1), // CREATE
    (1, 0), // INTERRUPT
    (2, 0), // BMAP
    (0, 0), // DESTROY
    (4, 0), // IOCTL
    (3, 0), // POLL
    (5, 0), // NOTIFY_REPLY
    (1, 0), // BATCH_FORGET
    (4, 0), // FALLOCATE
    (5, 0), // READDIRPLUS
    (2, 2), // RENAME2
    (3, 0), // LSEEK
    (7, 0), // COPY_FILE_RANGE
    (4, 0), // SETUPMAPPING
    (2, 0), // REMOVEMAPPING
    (1, 0), // SYNCFS
    (2, 1), // TMPFILE
    (6, 0), // STATX
    (0, 0),
];

struct Session<'a> {
    inside: &'a mut Inside,
    driver: Driver,
    unique: u64,
    nodes: Vec<u64>,
    handles: Vec<u64>,
}

/// The element that a number stands for.
fn pick(known: &[u64], number: u8) -> u64 {
    let index = usize::from(number).checked_rem(known.len());
    index.map_or(number.into(), |index| known[index])
}

impl Session<'_> {
    fn body(&self, request: &Request, operation: u32) -> Vec<u8> {
        let (words, names) = FORMS[(operation - 1) as usize];
        let given = request.words.iter().map(|word| match word {
            Word::Low(value) => u64::from(value % 16),
            Word::Handle(number) => pick(&self.handles, *number),
            Word::Node(number) => pick(&self.nodes, *number),
            Word::Halves(low, high) => u64::from(*low) | u64::from(*high) << 32,
            Word::Any(value) => *value,
        });
        let mut body: Vec<u8> =
            given.chain(std::iter::repeat(0)).take(words).flat_map(u64::to_le_bytes).collect();
        for name in &request.names[..names] {
            body.extend(name.bytes());
            body.push(0);
        }
        body.extend(&request.rest[..request.rest.len().min(0x2000)]);
        body
    }

    /// Remembers nodes and handles of a reply.
    fn learn(&mut self, operation: u32, used: u32) {
        let word = |at: u64| -> u64 {
            self.driver.memory.read_obj(GuestAddress(REPLY + at)).expect("in memory")
        };
        let header = u64::from(REPLY_HEADER);
        match operation {
            LOOKUP | SYMLINK | MKNOD | MKDIR | LINK if used == ENTRY => {
                self.nodes.push(word(header));
            }
            CREATE if used == ENTRY + 16 => {
                self.nodes.push(word(header));
                self.handles.push(word(u64::from(ENTRY)));
            }
            OPEN | OPENDIR if used == REPLY_HEADER + 16 => self.handles.push(word(header)),
            _ => {}
        }
    }

    /// Sends a request and looks at what comes back: so many bytes.
    fn send(&mut self, operation: u32, node: u64, body: &[u8], how: &Request) -> u32 {
        self.unique += 1;
        let length = (HEADER + body.len()) as u32;
        let mut bytes = how.length.unwrap_or(length).to_le_bytes().to_vec();
        bytes.extend(operation.to_le_bytes());
        bytes.extend(self.unique.to_le_bytes());
        bytes.extend(node.to_le_bytes());
        let user = if how.user < 200 { 0 } else { u32::from(how.user) };
        for word in [user, user, 7, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(body);
        assert!(self.driver.write(BUFFERS, &bytes));

        let room = match how.room {
            Room::Enough => REPLY_ROOM,
            Room::Little(room) => u32::from(room),
        };
        let first = how.split.map_or(length, |split| u32::from(split).min(length));
        let rest = BUFFERS + u64::from(first);
        let mut chain = vec![(BUFFERS, first, 0)];
        if first < length {
            chain.push((rest, length - first, 0));
        }
        if room > 0 {
            chain.push((REPLY, room, WRITABLE));
        }
        self.driver.offer(REQUEST_QUEUE, &chain, None);
        self.inside.process(REQUEST_QUEUE);

        let used = self.driver.used(REQUEST_QUEUE);
        let [(_, used)] = used[..] else { panic!("{} chains were used", used.len()) };
        assert!(used <= room, "{used} bytes of {room}");
        if used == 0 {
            return 0;
        }
        assert!(used >= REPLY_HEADER);
        assert!(
            how.length.is_some() || !SILENT.contains(&operation),
            "operation {operation} has no reply"
        );
        let mut reply = [0; REPLY_HEADER as usize];
        self.driver.memory.read_slice(&mut reply, GuestAddress(REPLY)).expect("in memory");
        let [a, b, c, d, e, f, g, h, unique @ ..] = reply;
        assert_eq!(u32::from_le_bytes([a, b, c, d]), used);
        assert!((-4095..=0).contains(&i32::from_le_bytes([e, f, g, h])));
        assert_eq!(u64::from_le_bytes(unique), self.unique);
        self.learn(operation, used);
        used
    }
}

/// What says nothing special.
fn plain() -> Request {
    Request {
        operation: 0,
        node: Node::Known(0),
        user: 0,
        words: Vec::new(),
        names: [Name::Share, Name::Share],
        rest: Vec::new(),
        split: None,
        length: None,
        room: Room::Enough,
    }
}

fn run(inside: &mut Inside, requests: &[Request]) {
    inside.restart();
    let driver = inside.start();
    let mut session = Session { inside, driver, unique: 0, nodes: vec![1], handles: Vec::new() };
    // Version 7.38 with INIT_EXT, SUBMOUNTS, HANDLE_KILLPRIV_V2 and CREATE_SUPP_GROUP.
    let mut init = Vec::new();
    for word in [7u32, 38, 0, 1 << 30 | 1 << 27 | 1 << 28, 1 << 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    {
        init.extend(word.to_le_bytes());
    }
    session.send(INIT, 0, &init, &plain());
    // Each by the place of its parent among those that are known.
    for (parent, name) in [
        (0, "share"),
        (1, "file"),
        (1, "dir"),
        (1, "link"),
        (3, "inner"),
        (0, "fixed"),
        (6, "secret"),
    ] {
        let parent = session.nodes[parent];
        let found = session.send(LOOKUP, parent, &[name.as_bytes(), b"\0"].concat(), &plain());
        assert_eq!(found, ENTRY, "{name}");
    }
    for request in requests.iter().take(24) {
        let operation = u32::from(request.operation) % 53 + 1;
        let node = match request.node {
            Node::Known(number) => pick(&session.nodes, number),
            Node::Any(node) => node,
        };
        let body = session.body(request, operation);
        session.send(operation, node, &body, request);
    }
    session.driver.check_memory();
    session.inside.check();
}

fuzz_target!(|input: &[u8]| {
    let Ok(requests) = Vec::<Request>::arbitrary_take_rest(Unstructured::new(input)) else {
        return;
    };
    inside(move |inside| run(inside, &requests));
});
