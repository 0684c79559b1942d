//! The control connection as a state machine: which message of the guest may come when.
//!
//! The guest is hostile. A message that is out of place ends the pod, so that nothing after this
//! module has to wonder about the order of things.

use sandbox_protocol::secret::KEY;
use sandbox_protocol::{ExitStatus, Level, MAX_CORRUPTED, Text, ToHost, VERSION};

/// What a message means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The guest is up with this kernel and waits for its setup.
    Hello {
        /// Release of its kernel.
        kernel: Text,
    },
    /// The guest has made this key.
    Key {
        /// Its public half.
        public: [u8; KEY],
    },
    /// An app runs.
    Started {
        /// Its index.
        app: usize,
    },
    /// An app has ended, or could not be started.
    Ended {
        /// Its index.
        app: usize,
        /// How.
        end: AppEnd,
    },
    /// The pod could not be started.
    Failed {
        /// The guest's reason.
        error: Text,
    },
    /// A block of an image was read that is not what was verified.
    Corrupted {
        /// The image's index.
        image: usize,
        /// The block's number on the image's disk.
        block: u64,
    },
    /// A line for the log.
    Log {
        /// How much it matters.
        level: Level,
        /// The line.
        text: Text,
    },
    /// Every app has ended and the guest waits to be let go.
    Finished,
}

/// How an app ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppEnd {
    /// It exited or was ended by a signal.
    Exited {
        /// How.
        status: ExitStatus,
        /// The kernel killed a process of it for want of memory.
        out_of_memory: bool,
    },
    /// It could not be started, for the guest's reason.
    NotStarted(Text),
}

/// A message that no guest of ours sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The first message is another one than `Hello`, or it comes again.
    #[error("the guest did not begin with exactly one greeting")]
    Greeting,
    /// Host and guest are not from the same build.
    #[error(
        "the guest speaks version {0} of the protocol, this program version {VERSION}: the initramfs \
         and this program are not from the same build"
    )]
    Version(u16),
    /// No key of a guest that has to make one, before anything else; or one of another.
    #[error("the guest did not send the key for its secrets in its turn, or sent one unasked")]
    Key,
    /// An app that there is none of, or not in that state.
    #[error("the guest reported about app {0} what cannot be")]
    App(u16),
    /// An image that there is none of, or more of its blocks than are reported.
    #[error("the guest reported about image {0} what cannot be")]
    Image(u16),
    /// `Finished` while apps run, or anything after it.
    #[error("the guest reported the pod's end out of turn")]
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum App {
    Waiting,
    Running,
    Ended,
}

/// A control connection.
#[derive(Debug)]
pub struct Session {
    greeted: bool,
    finished: bool,
    /// Its key is still to come.
    owes_key: bool,
    apps: Vec<App>,
    /// How many corrupted blocks of each image were reported.
    corrupted: Vec<usize>,
}

impl Session {
    /// A connection of a pod with so many apps and images, before its first message. The guest of one
    /// that is `measured` has to make a key.
    pub fn new(apps: usize, images: usize, measured: bool) -> Self {
        Self {
            greeted: false,
            finished: false,
            owes_key: measured,
            apps: vec![App::Waiting; apps],
            corrupted: vec![0; images],
        }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// See [`Violation`].
    pub fn receive(&mut self, message: ToHost) -> Result<Step, Violation> {
        if self.finished {
            return Err(Violation::End);
        }
        if let ToHost::Hello { version, kernel } = message {
            return match (self.greeted, version) {
                (true, _) => Err(Violation::Greeting),
                (false, VERSION) => {
                    self.greeted = true;
                    Ok(Step::Hello { kernel })
                }
                (false, other) => Err(Violation::Version(other)),
            };
        }
        if !self.greeted {
            return Err(Violation::Greeting);
        }
        if let ToHost::Key { public } = message {
            return match std::mem::replace(&mut self.owes_key, false) {
                true => Ok(Step::Key { public }),
                false => Err(Violation::Key),
            };
        }
        if self.owes_key && !matches!(message, ToHost::Log { .. }) {
            return Err(Violation::Key);
        }
        match message {
            ToHost::Hello { .. } => Err(Violation::Greeting),
            ToHost::Key { .. } => Err(Violation::Key),
            ToHost::Started { app } => {
                let index = self.advance(app, App::Waiting, App::Running)?;
                Ok(Step::Started { app: index })
            }
            ToHost::Exited { app, status, out_of_memory } => {
                let index = self.advance(app, App::Running, App::Ended)?;
                Ok(Step::Ended { app: index, end: AppEnd::Exited { status, out_of_memory } })
            }
            ToHost::Failed { app: Some(app), error } => {
                let index = self.advance(app, App::Waiting, App::Ended)?;
                Ok(Step::Ended { app: index, end: AppEnd::NotStarted(error) })
            }
            ToHost::Failed { app: None, error } => {
                self.finished = true;
                Ok(Step::Failed { error })
            }
            ToHost::Corrupted { image, block } => {
                let reported = self.corrupted.get_mut(usize::from(image));
                match reported {
                    Some(reported) if *reported < MAX_CORRUPTED => *reported += 1,
                    _ => return Err(Violation::Image(image)),
                }
                Ok(Step::Corrupted { image: usize::from(image), block })
            }
            ToHost::Log { level, text } => Ok(Step::Log { level, text }),
            ToHost::Finished if self.all_ended() => {
                self.finished = true;
                Ok(Step::Finished)
            }
            ToHost::Finished => Err(Violation::End),
        }
    }

    /// Whether an app runs.
    pub fn is_running(&self, app: usize) -> bool {
        self.apps.get(app) == Some(&App::Running)
    }

    /// The apps that run.
    pub fn running(&self) -> impl Iterator<Item = u16> {
        (0..).zip(&self.apps).filter(|(_, app)| **app == App::Running).map(|(index, _)| index)
    }

    /// Whether every app has run or could not be started.
    pub fn all_started(&self) -> bool {
        !self.apps.contains(&App::Waiting)
    }

    /// Whether every app has ended.
    pub fn all_ended(&self) -> bool {
        self.apps.iter().all(|app| *app == App::Ended)
    }

    fn advance(&mut self, app: u16, from: App, to: App) -> Result<usize, Violation> {
        let index = usize::from(app);
        match self.apps.get_mut(index) {
            Some(state) if *state == from => {
                *state = to;
                Ok(index)
            }
            _ => Err(Violation::App(app)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> ToHost {
        ToHost::Hello { version: VERSION, kernel: Text::new("6.12") }
    }

    fn exited(app: u16) -> ToHost {
        ToHost::Exited { app, status: ExitStatus::Code(0), out_of_memory: false }
    }

    #[test]
    fn the_messages_of_a_pod_in_their_order_are_accepted() {
        let mut session = Session::new(2, 1, false);
        for message in [
            hello(),
            ToHost::Started { app: 1 },
            ToHost::Log { level: Level::Info, text: Text::new("") },
            ToHost::Corrupted { image: 0, block: u64::MAX },
            ToHost::Failed { app: Some(0), error: Text::new("no such program") },
            exited(1),
            ToHost::Finished,
        ] {
            session.receive(message.clone()).unwrap_or_else(|error| panic!("{message:?}: {error}"));
        }
    }

    #[test]
    fn what_is_out_of_place_is_a_violation() {
        for (before, message, violation) in [
            (vec![], ToHost::Started { app: 0 }, Violation::Greeting),
            (vec![], ToHost::Finished, Violation::Greeting),
            (vec![], ToHost::Log { level: Level::Info, text: Text::new("") }, Violation::Greeting),
            (vec![], ToHost::Hello { version: 99, kernel: Text::new("") }, Violation::Version(99)),
            (vec![hello()], hello(), Violation::Greeting),
            (vec![hello()], ToHost::Started { app: 1 }, Violation::App(1)),
            (vec![hello()], exited(0), Violation::App(0)),
            (vec![hello()], ToHost::Finished, Violation::End),
            (vec![], ToHost::Corrupted { image: 0, block: 0 }, Violation::Greeting),
            (vec![hello()], ToHost::Corrupted { image: 1, block: 0 }, Violation::Image(1)),
            (
                vec![hello(), ToHost::Started { app: 0 }],
                ToHost::Started { app: 0 },
                Violation::App(0),
            ),
            (vec![hello(), ToHost::Started { app: 0 }], ToHost::Finished, Violation::End),
            (
                vec![hello(), ToHost::Started { app: 0 }, exited(0), ToHost::Finished],
                ToHost::Finished,
                Violation::End,
            ),
        ] {
            let mut session = Session::new(1, 1, false);
            for message in before {
                session.receive(message).unwrap();
            }
            assert_eq!(session.receive(message.clone()), Err(violation), "{message:?}");
        }
    }

    #[test]
    fn a_measured_pods_guest_sends_its_key_once_and_first() {
        let key = || ToHost::Key { public: [7; KEY] };
        let log = || ToHost::Log { level: Level::Info, text: Text::new("") };
        let mut session = Session::new(1, 0, true);
        assert_eq!(session.receive(key()), Err(Violation::Greeting));
        session.receive(hello()).unwrap();
        session.receive(log()).unwrap();
        assert_eq!(session.receive(key()), Ok(Step::Key { public: [7; KEY] }));
        session.receive(ToHost::Started { app: 0 }).unwrap();
        assert_eq!(session.receive(key()), Err(Violation::Key));
        for message in [
            ToHost::Started { app: 0 },
            ToHost::Failed { app: None, error: Text::new("") },
            ToHost::Finished,
        ] {
            let mut session = Session::new(1, 0, true);
            session.receive(hello()).unwrap();
            assert_eq!(session.receive(message), Err(Violation::Key));
        }
        let mut unasked = Session::new(1, 0, false);
        unasked.receive(hello()).unwrap();
        assert_eq!(unasked.receive(key()), Err(Violation::Key));
    }

    #[test]
    fn corrupted_blocks_are_reported_so_often_and_not_more() {
        let mut session = Session::new(1, 2, false);
        session.receive(hello()).unwrap();
        for block in 0..MAX_CORRUPTED as u64 {
            let step = session.receive(ToHost::Corrupted { image: 1, block });
            assert_eq!(step, Ok(Step::Corrupted { image: 1, block }));
        }
        let more = session.receive(ToHost::Corrupted { image: 1, block: 99 });
        assert_eq!(more, Err(Violation::Image(1)));
    }

    proptest! {
        #[test]
        fn an_app_starts_and_ends_at_most_once(
            messages in proptest::collection::vec((0_u16..4, 0_u8..3), 0..40),
        ) {
            let mut session = Session::new(3, 0, false);
            session.receive(hello()).unwrap();
            let mut ended = [0; 4];
            for (app, kind) in messages {
                let message = match kind {
                    0 => ToHost::Started { app },
                    1 => exited(app),
                    _ => ToHost::Failed { app: Some(app), error: Text::new("") },
                };
                if let Ok(Step::Ended { app, .. }) = session.receive(message) {
                    ended[app] += 1;
                }
            }
            prop_assert!(ended.iter().all(|times| *times <= 1));
            prop_assert_eq!(session.all_ended(), ended[..3].iter().all(|times| *times == 1));
        }
    }
}
