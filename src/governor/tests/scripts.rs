//! Scenes of a cluster's life: what the governor does about them, step by step.
//!
//! The world around it is the plainest that can be: it does what it is told, at once, and moves take no time.

mod world;

use goldenscript::{Command, Context, Runner};
use std::error::Error;
use std::fmt::Write;
use world::World;

impl Runner for World {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let dc = args.take_key("dc").unwrap_or("");
        let tier = args.take_key("tier").unwrap_or("default");
        let factor: u32 = args.take_key("factor").unwrap_or("1").parse()?;
        let steps: Option<usize> = args.take_key("steps").map(str::parse).transpose()?;
        let words: Vec<&str> = std::iter::from_fn(|| args.next_pos()).collect();
        args.reject_next()?;
        let word = |at: usize| words.get(at).copied().ok_or("a word is missing");
        let mut out = String::new();
        match command.name.as_str() {
            "bootstrap" => self.bootstrap(word(0)?, dc, factor)?,
            "join" => writeln!(out, "{} is in {}", word(0)?, self.join(word(0)?, dc, tier)?)?,
            "kill" => words.iter().for_each(|name| self.kill(name)),
            "restart" => words.iter().try_for_each(|name| self.restart(name))?,
            "stick" => words.iter().for_each(|name| _ = self.stuck.insert((*name).into())),
            "mute" => words.iter().for_each(|name| _ = self.muted.insert((*name).into())),
            "unmute" => self.muted.clear(),
            "unstick" => self.stuck.clear(),
            "wipe" => self.wipe(word(0)?)?,
            "lead" => self.raft.leader = word(0)?.parse()?,
            "office" => self.take_office(word(0)?)?,
            "answer" => words.iter().for_each(|name| self.answer(name)),
            "pass" => self.pass(word(0)?.parse()?),
            "hold" => self.moves_held = word(0)?.parse()?,
            "position" => _ = self.positions.insert(word(0)?.into(), word(1)?.parse()?),
            "refuse" => _ = self.refusals.insert(word(0)?.into(), word(1)?.into()),
            "obey" => _ = self.refusals.remove(&word(0)?.into()),
            "expel" => self.ask(world::expel(word(0)?), &mut out)?,
            "handover" => self.ask(world::hand_over(word(0)?, word(1)?), &mut out)?,
            "weight" => self.ask(world::weight(word(0)?, word(1)?.parse()?), &mut out)?,
            "set" => self.ask(world::setting(word(0)?, word(1)?.parse()?), &mut out)?,
            "tier" => self.ask(world::add_tier(word(0)?, factor), &mut out)?,
            "create" => self.ask(world::create_table(word(0)?), &mut out)?,
            "drop" => self.ask(world::drop_table(word(0)?), &mut out)?,
            "run" => self.run_plans(steps, &mut out)?,
            "show" => self.show(&mut out)?,
            other => return Err(format!("no command {other}").into()),
        }
        Ok(out)
    }
}

fn run(name: &str) {
    let path = format!("{}/tests/scripts/{name}", env!("CARGO_MANIFEST_DIR"));
    goldenscript::run(&mut World::default(), path).expect("the script runs");
}

macro_rules! scripts {
    ($($name:ident)*) => { $(#[test] fn $name() { run(stringify!($name)); })* };
}

scripts! { start domains master voters schema growth expulsion departure moves restart tiers }
