//! The pod's life: set up as the host says, watched until every app has ended.

use crate::app::{self, Running, root, stdio::Stream};
use crate::disk::{self, Disks};
use crate::error::{Error, Tried};
use crate::evidence::{Desk, Part};
use crate::host::Host;
use crate::image::{Images, News};
use crate::process::{Namespace, block_signals};
use crate::relay::Side;
use crate::secrets::Waiting;
use crate::{cgroup, mounts, network};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, chmod, chown, open};
use rustix::mount::MountAttrFlags;
use rustix::process::{Gid, Uid, umask};
use sandbox_protocol::{
    CONTROL_PORT, Level, Pod, Root, Text, ToGuest, ToHost, VERSION, VolumeSource, read_to_guest,
    write_to_host,
};
use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long the host may take to close the control connection after it has closed all others. A
/// slow reader of the pod's last output has all the time it wants.
const FAREWELL: Duration = Duration::from_secs(10);

/// Dials the host, sets up the pod that it describes, and runs its apps until all have ended and
/// the host has taken note, or until the host hangs up.
///
/// # Errors
/// The host cannot be reached, or does not describe a pod. What goes wrong later the host is told.
pub fn run(host: &dyn Host) -> Result<(), Error> {
    block_signals();
    // What is made gets the permissions that are asked for.
    umask(Mode::empty());
    let mut control = File::from(host.connect(CONTROL_PORT)?);
    let kernel = Text::new(rustix::system::uname().release().to_bytes());
    write_to_host(&mut control, &ToHost::Hello { version: VERSION, kernel })?;

    // While the host prepares its answer.
    let prepared = prepare();

    let pod = match read_to_guest(&mut control)? {
        Some(ToGuest::Setup(pod)) => pod,
        Some(_) => return Err(Error::Refused("the host did not begin with the set-up".into())),
        None => return Err(Error::Refused("the host hung up before the set-up".into())),
    };
    let images = Images::default();
    let mut session = Session {
        host,
        control,
        pod: &pod,
        images,
        apps: Vec::new(),
        ended: Vec::new(),
        desk: None,
    };
    // First of all: the host has much to do before the secrets are here.
    let waiting = pod.measured.as_ref().map(Waiting::new);
    if let Some(waiting) = &waiting {
        let key = ToHost::Key { public: waiting.public_key() };
        write_to_host(&mut session.control, &key)?;
    }
    let namespace = prepared
        .and_then(|()| session.set_up())
        .and_then(|()| session.receive_secrets(waiting))
        // Made after the key has gone, so that no other process ever has it.
        .and_then(|()| Namespace::enter());
    let outcome = match &namespace {
        Ok(_) => session.run_apps(),
        Err(error) => {
            let error = Text::new(error.to_string());
            session.tell_news().and_then(|()| session.tell(&ToHost::Failed { app: None, error }))
        }
    };
    if let Ok(namespace) = namespace {
        namespace.kill();
    }
    session.sync();
    if outcome.is_ok() && session.tell(&ToHost::Finished).is_ok() {
        session.wait_for_farewell();
    }
    Ok(())
}

/// Makes what every pod needs.
fn prepare() -> Result<(), Error> {
    mounts::enter_own_root()?;
    cgroup::delegate_controllers()?;
    network::loopback_up()
}

/// The host has closed the control connection, or it broke.
#[derive(Debug)]
struct HungUp;

struct Session<'a> {
    host: &'a dyn Host,
    control: File,
    pod: &'a Pod,
    images: Images,
    /// By index of the app; `None` if it has ended or could not be started.
    apps: Vec<Option<Running>>,
    /// Apps that have ended, whose connections the host may not have closed yet.
    ended: Vec<Running>,
    /// Where apps ask for evidence, if there can be some.
    desk: Option<Desk<'a>>,
}

/// What a descriptor that is polled belongs to; apps by index.
#[derive(Clone, Copy, Debug)]
enum Source {
    Control,
    Images,
    Report(usize),
    Process(usize),
    Stream(usize, Stream, Side),
    Desk(Part),
}

impl Session<'_> {
    fn set_up(&mut self) -> Result<(), Error> {
        let pod = self.pod;
        rustix::system::sethostname(pod.hostname.as_bytes())
            .tried(format_args!("setting the host name \"{}\"", pod.hostname))?;
        self.mount_disks()?;
        if let Some(tag) = &pod.share_tag {
            self.host.mount_shares(tag, mounts::SHARES)?;
        }
        // Each share is mounted once, here, so that apps that have it in common see one file
        // system, with one cache.
        for app in &pod.apps {
            root::open_lower(app)?;
        }
        for (index, volume) in (0..).zip(&pod.volumes) {
            match volume.source {
                VolumeSource::Share(ref name) => drop(root::open_share(name)?),
                VolumeSource::Empty { mode, uid, gid } => {
                    let path = root::empty_volume(index);
                    mounts::directory(&path, 0o700)?;
                    chown(&path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                        .and_then(|()| chmod(&path, Mode::from_raw_mode(mode & 0o7777)))
                        .tried(format_args!("making the volume {}", volume.name))?;
                }
            }
        }
        Ok(())
    }

    /// Opens the socket for evidence, and waits for the pod's secrets, of a pod that has them.
    fn receive_secrets(&mut self, waiting: Option<Waiting<'_>>) -> Result<(), Error> {
        let Some((waiting, measured)) = waiting.zip(self.pod.measured.as_ref()) else {
            return Ok(());
        };
        self.desk = Some(Desk::open(measured, waiting.public_key(), self.host)?);
        if measured.secrets.is_empty() {
            return Ok(());
        }
        loop {
            match read_to_guest(&mut self.control)? {
                Some(ToGuest::Secrets { sealed }) => return waiting.place(&sealed),
                // There is no app yet that these could be for.
                Some(ToGuest::Signal { .. } | ToGuest::Resize { .. }) => {}
                Some(ToGuest::Setup(_)) => {
                    return Err(Error::Refused("the host sent the set-up again".into()));
                }
                None => return Err(Error::Refused("the host hung up before the secrets".into())),
            }
        }
    }

    fn mount_disks(&mut self) -> Result<(), Error> {
        let pod = self.pod;
        if pod.images.is_empty() && pod.scratch.is_none() {
            return Ok(());
        }
        let mut disks = Disks::new(self.host.disks()?);
        self.images.mount(&pod.images, &mut disks)?;
        let Some(serial) = &pod.scratch else { return Ok(()) };
        let device = disks.take(serial)?.device;
        // A disk that lives as long as its pod is not worth being prepared in the background.
        let options = [("noinit_itable", "")];
        // As the tmpfs that it takes the place of: whether apps can use programs with the set-user-ID
        // bit and device nodes is decided by the mount that they see, their overlay.
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        disk::mount(device, "ext4", &options, attributes, mounts::SCRATCH)
    }

    /// Starts the apps and watches them until all have ended.
    fn run_apps(&mut self) -> Result<(), HungUp> {
        for index in (0..).take(self.pod.apps.len()) {
            let running = match app::start(self.host, self.pod, index) {
                Ok(running) => Some(running),
                Err(error) => {
                    let error = Text::new(error.to_string());
                    self.tell(&ToHost::Failed { app: Some(index), error })?;
                    None
                }
            };
            self.apps.push(running);
        }
        while self.apps.iter().any(Option::is_some) {
            for (source, events) in self.poll() {
                match source {
                    Source::Control => self.obey()?,
                    Source::Images => self.tell_news()?,
                    Source::Report(index) => self.take_report(index)?,
                    Source::Process(index) => {
                        self.take_report(index)?;
                        self.take_end(index)?;
                    }
                    Source::Desk(part) => {
                        if let Some(desk) = &mut self.desk {
                            desk.react(part, events);
                        }
                    }
                    Source::Stream(index, stream, side) => {
                        if let Some(app) = &mut self.apps[index] {
                            app.streams.react(stream, side, events);
                        }
                    }
                }
            }
            if let Some(desk) = &mut self.desk {
                desk.tidy(Instant::now());
            }
            self.take_leave()?;
        }
        Ok(())
    }

    /// Waits until something happens.
    fn poll(&self) -> Vec<(Source, PollFlags)> {
        let mut watched = vec![(Source::Control, self.control.as_fd(), PollFlags::IN)];
        watched.extend(self.images.announcements().map(|fd| (Source::Images, fd, PollFlags::IN)));
        for (index, app) in self.apps.iter().enumerate() {
            let Some(app) = app else { continue };
            let report = app.report().map(|fd| (Source::Report(index), fd, PollFlags::IN));
            let process =
                app.process().map(|app| (Source::Process(index), app.as_fd(), PollFlags::IN));
            watched.extend(report.into_iter().chain(process));
            watched.extend(
                app.streams.interests().map(|(stream, side, fd, flags)| {
                    (Source::Stream(index, stream, side), fd, flags)
                }),
            );
        }
        let desk = self.desk.iter().flat_map(Desk::interests);
        watched.extend(desk.map(|(part, fd, flags)| (Source::Desk(part), fd, flags)));
        let mut fds: Vec<_> =
            watched.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let last_call = self.apps.iter().flatten().filter_map(Running::last_call).min();
        let visit = self.desk.as_ref().and_then(Desk::deadline);
        wait(&mut fds, last_call.into_iter().chain(visit).min());
        let found = fds.iter().map(PollFd::revents);
        let sources = watched.iter().map(|(source, ..)| *source);
        sources.zip(found).filter(|(_, found)| !found.is_empty()).collect()
    }

    /// Does what the host says. Its messages are short and come whole, so this does not block.
    fn obey(&mut self) -> Result<(), HungUp> {
        match read_to_guest(&mut self.control).map_err(|_| HungUp)?.ok_or(HungUp)? {
            ToGuest::Signal { app, signal } => {
                if let Some(process) = self.app(app).and_then(Running::process) {
                    process.signal(signal);
                }
            }
            ToGuest::Resize { app, size } => {
                if let Some(app) = self.app(app) {
                    app.streams.resize(size);
                }
            }
            // The pod is set up once, and has its secrets by then.
            ToGuest::Setup(_) | ToGuest::Secrets { .. } => {}
        }
        Ok(())
    }

    fn app(&self, index: u16) -> Option<&Running> {
        self.apps.get(usize::from(index))?.as_ref()
    }

    /// Tells the host whether an app was started, if it does not know yet.
    fn take_report(&mut self, index: usize) -> Result<(), HungUp> {
        let report = self.apps[index].as_mut().and_then(Running::read_report);
        match report {
            None => Ok(()),
            Some(Ok(())) => self.tell(&ToHost::Started { app: number(index) }),
            Some(Err(error)) => {
                if let Some(process) = self.apps[index].take().as_ref().and_then(Running::process) {
                    // It has nothing more to do than to exit.
                    let _ = process.wait();
                }
                let error = self.explain(index, error);
                self.tell_news()?;
                self.tell(&ToHost::Failed { app: Some(number(index)), error })
            }
        }
    }

    /// Says of an app that could not be started if the cause may be its image.
    fn explain(&mut self, app: usize, error: String) -> Text {
        let corrupted = match self.pod.apps[app].root {
            Root::Image(image) => self.images.corrupted_block(image),
            Root::Share(_) => None,
        };
        Text::new(match corrupted {
            Some(block) => format!(
                "the content of the app's image is not what was verified, block {block} of its disk \
                 for one: {error}"
            ),
            None => error,
        })
    }

    fn take_end(&mut self, index: usize) -> Result<(), HungUp> {
        match self.apps[index].as_mut().map(Running::take_end) {
            Some(Err(error)) => self.log(Level::Error, &error),
            _ => Ok(()),
        }
    }

    /// Tells the host of the apps that have ended and whose output has all been passed on.
    fn take_leave(&mut self) -> Result<(), HungUp> {
        for index in 0..self.apps.len() {
            let Some(app) = &mut self.apps[index] else { continue };
            if app.last_call().is_some_and(|time| time <= Instant::now()) {
                app.call_last();
            }
            if let Some(ended) = app.ended() {
                self.ended.extend(self.apps[index].take());
                // What has made it end comes first.
                self.tell_news()?;
                self.tell(&ToHost::Exited {
                    app: number(index),
                    status: ended.status,
                    out_of_memory: ended.out_of_memory,
                })?;
            }
        }
        Ok(())
    }

    /// Writes back what apps have written to volumes of the host, once nothing runs any more.
    fn sync(&mut self) {
        let written = |volume: usize| {
            let mut mounts = self.pod.apps.iter().flat_map(|app| &app.mounts);
            mounts.any(|mount| usize::from(mount.volume) == volume && !mount.read_only)
        };
        let mut failures = Vec::new();
        for (index, volume) in self.pod.volumes.iter().enumerate() {
            let VolumeSource::Share(share) = &volume.source else { continue };
            if !written(index) {
                continue;
            }
            let path = format!("{}/{share}", mounts::SHARES);
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let synced = open(path, flags, Mode::empty()).and_then(rustix::fs::syncfs);
            let what = format_args!("writing back the volume {}", volume.name);
            failures.extend(synced.tried(what).err());
        }
        for failure in &failures {
            let _ = self.log(Level::Error, failure);
        }
    }

    /// Waits until the host has closed the connections of the apps' output, which says that it has
    /// read all of it, and the control connection.
    fn wait_for_farewell(&mut self) {
        let mut until = None;
        loop {
            let streams: Vec<_> =
                self.ended.iter_mut().flat_map(|app| app.streams.ended_connections()).collect();
            if streams.is_empty() && until.is_none() {
                until = Some(Instant::now() + FAREWELL);
            }
            let mut fds = vec![PollFd::new(&self.control, PollFlags::IN)];
            fds.extend(
                streams
                    .iter()
                    .filter_map(|relay| relay.ended_connection())
                    .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::empty())),
            );
            wait(&mut fds, until);
            let events: Vec<_> = fds.iter().map(PollFd::revents).collect();
            let closed =
                streams.into_iter().zip(&events[1..]).filter(|(_, found)| !found.is_empty());
            closed.for_each(|(relay, _)| relay.close());
            let hung_up = !events[0].is_empty() && self.obey().is_err();
            if hung_up || until.is_some_and(|time| time <= Instant::now()) {
                return;
            }
        }
    }

    /// Tells the host what was found in images that is not what was verified.
    fn tell_news(&mut self) -> Result<(), HungUp> {
        for news in self.images.news() {
            self.tell(&match news {
                News::Corrupted { image, block } => ToHost::Corrupted { image, block },
                News::Lost => ToHost::Log {
                    level: Level::Warning,
                    text: Text::new(
                        "announcements of the kernel were lost: blocks of images may be corrupted \
                         that are not named here",
                    ),
                },
            })?;
        }
        Ok(())
    }

    fn log(&mut self, level: Level, error: &Error) -> Result<(), HungUp> {
        self.tell(&ToHost::Log { level, text: Text::new(error.to_string()) })
    }

    fn tell(&mut self, message: &ToHost) -> Result<(), HungUp> {
        write_to_host(&mut self.control, message).map_err(|_| HungUp)
    }
}

/// An app's index, as the protocol counts: a pod that came over it has no more.
fn number(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// Polls, at most until a given time.
fn wait(fds: &mut [PollFd<'_>], until: Option<Instant>) {
    let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
    let timeout = timeout.map(|left| Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    // Signals are blocked and the arguments are sound: nothing but memory can be missing, and then
    // the next turn tries again.
    let _ = poll(fds, timeout.as_ref());
}
