//! What all attempts came to, and what follows.

use crate::sets::Set;
use crate::verdict::Verdict;
use sandbox_hostile::attack::{self, Actor, Attack, Class};
use sandbox_hostile::layers::Layer;
use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

/// Where what is left goes home.
const OUT: &str = "/mnt/out";

struct Result {
    set: Set,
    attack: &'static str,
    actor: Actor,
    thread: String,
    verdict: Verdict,
}

/// All of them.
#[derive(Default)]
pub struct Results(Vec<Result>);

impl Results {
    /// Takes one.
    pub fn add(
        &mut self,
        set: &Set,
        attack: &Attack,
        actor: Actor,
        thread: &str,
        verdict: Verdict,
    ) {
        let thread = thread.to_owned();
        self.0.push(Result { set: *set, attack: attack.name, actor, thread, verdict });
    }

    /// Every attempt on a line.
    pub fn write_attempts(&self) {
        let mut text = String::new();
        for it in &self.0 {
            let mark = if it.verdict.reached { "SUCCEEDS" } else { "stopped" };
            let (set, actor) = (it.set.to_string(), format!("{:?}", it.actor));
            let (thread, came_to) = (&it.thread, &it.verdict.came_to);
            let _ = writeln!(
                text,
                "{set:<20} {:<34} {actor:<7} {thread:<4} {mark:<8} {came_to}",
                it.attack
            );
        }
        fs::write(format!("{OUT}/attempts"), text).unwrap();
    }

    /// What came out of this set as it must not.
    pub fn show_unexpected(&self, set: &Set) {
        let effect = |name| attack::find(name).is_some_and(|it| it.effect.reaches_others());
        let unexpected = self.0.iter().filter(|it| {
            it.set == *set
                && match set {
                    Set::None => !it.verdict.reached,
                    Set::All => it.verdict.reached,
                    Set::Without(_) => it.verdict.reached && effect(it.attack),
                    Set::Only(_) => false,
                }
        });
        for it in unexpected {
            let (actor, verdict) = (it.actor, &it.verdict);
            println!("{set}: {} of {actor:?} {}: {verdict:?}", it.attack, it.thread);
        }
    }

    /// Whether an attempt succeeds with a set of layers, from any thread.
    fn succeeds(&self, set: Set, attack: &Attack, actor: Actor) -> bool {
        let mut found = self
            .0
            .iter()
            .filter(|it| it.set == set && it.attack == attack.name && it.actor == actor);
        found.any(|it| it.verdict.reached)
    }

    /// The rules, the table, the last line.
    pub fn conclude(&self) -> ExitCode {
        let (mut attacks, mut stopped, mut wrong) = (0, 0, 0);
        let mut complain = |text: String| {
            println!("WRONG: {text}");
            wrong += 1;
        };
        for (attack, actor) in made() {
            let who = format!("{} of the {}", attack.name, name(actor));
            attacks += 1;
            stopped += u32::from(!self.succeeds(Set::All, attack, actor));
            if self.succeeds(Set::All, attack, actor) {
                complain(format!("{who} succeeds with all layers on"));
            }
            if !self.succeeds(Set::None, attack, actor) {
                complain(format!("{who} does not succeed with no layer: it is no attack"));
            }
            for layer in Layer::ALL {
                let set = Set::Without(layer);
                if attack.effect.reaches_others() && self.succeeds(set, attack, actor) {
                    complain(format!("{who} succeeds {set}"));
                }
            }
        }
        fs::write(format!("{OUT}/table"), self.table()).unwrap();
        println!("{attacks} attacks, {stopped} stopped");
        ExitCode::from(u8::from(wrong > 0))
    }

    /// Which layer alone stops what.
    fn table(&self) -> String {
        let mut table = String::from("| attempt |");
        for layer in Layer::ALL {
            let _ = write!(table, " {} |", layer.name());
        }
        table += "\n|---|---|---|---|---|---|---|\n";
        let mut class = None;
        for attack in attack::all() {
            if class != Some(attack.class) {
                class = Some(attack.class);
                let _ = writeln!(table, "| **{}** | | | | | | |", title(attack.class));
            }
            let _ = write!(table, "| {} |", attack.what);
            for layer in Layer::ALL {
                let _ = write!(table, " {} |", self.cell(Set::Only(layer), attack));
            }
            table.push('\n');
        }
        table
    }

    /// Who is stopped.
    fn cell(&self, set: Set, attack: &Attack) -> &'static str {
        let actors = [Actor::Monitor, Actor::Worker]
            .map(|actor| attack.is_made_by(actor).then(|| !self.succeeds(set, attack, actor)));
        match actors {
            [Some(true), Some(true)] => "yes",
            [Some(true), None] => "yes",
            [None, Some(true)] => "yes",
            [Some(true), _] => "monitor",
            [_, Some(true)] => "worker",
            _ => "",
        }
    }
}

/// Every attempt with who makes it.
fn made() -> impl Iterator<Item = (&'static Attack, Actor)> {
    attack::all().flat_map(|attack| {
        let actors = [Actor::Monitor, Actor::Worker];
        actors.into_iter().filter(|actor| attack.is_made_by(*actor)).map(move |it| (attack, it))
    })
}

fn name(actor: Actor) -> &'static str {
    match actor {
        Actor::Monitor => "monitor",
        Actor::Worker => "file server",
    }
}

fn title(class: Class) -> &'static str {
    match class {
        Class::Files => "Files of the host and of other pods",
        Class::Processes => "Processes of the host and of other pods",
        Class::Sockets => "Sockets, networks, shared memory",
        Class::Mounts => "Mounts, roots, namespaces, cgroups",
        Class::Kernel => "The host's kernel",
        Class::Devices => "Devices",
        Class::Code => "New code",
        Class::Resources => "Resources",
    }
}
