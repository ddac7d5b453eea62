//! Whether the rows in the folder are still of the replicaset's history, found out before they are read: reading takes the
//! longer the more there are, and those of a stray instance are thrown away afterwards.
//!
//! What was noted beside the storage says whom the instance followed last, its last log how many rows it has, and another
//! member which changes of master there were since. A stray one says so to the governor, in the place of the instance that
//! would have to be opened for that, and waits until its vote is taken. Whatever is not certain is left to `lineage`, once
//! storage is open.

use super::folder::Folder;
use super::{join, machine, uuid};
use crate::facts::{self, PING_MS, Report};
use crate::host::{Deadline, Event, clock, failpoint, fiber};
use crate::lineage::{HISTORY_DOOR, HistoryAnswer, HistoryRequest};
use crate::net::{CallError, MiniServer, Pool, SERVICE_USER};
use crate::node;
use boot::identity::Stage;
use boot::{Address, Config, Identity, log_file};
use model::msgpack::{Reader, write_array_len, write_bin, write_uint};
use model::{Code, Error, Result};
use replication::{Stray, Vclock};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::rc::Rc;
use std::time::Duration;

/// How long the members may take to tell the changes of master: a start is not to wait for those that are silent.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the governor may take to do without a stray instance.
const SPARE_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer that waits for that takes so long at most.
const WAIT_MS: u64 = 1_000;
const SERVER_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How many members are asked at once.
const ASKED_MAX: usize = 8;
const READ_BYTES: usize = 1 << 20;

/// The identity under which this member begins again, without its data, when that has a tail and nobody needs it. None when that
/// is not so or not known.
pub fn anew_if_stray(config: &Config, folder: &Folder, identity: &Identity) -> Option<Identity> {
    let found = Early::new(config, folder, identity).and_then(|early| match early {
        Some(early) => {
            let anew = early.anew(folder, identity);
            early.pool.close();
            anew
        }
        None => Ok(None),
    });
    found.unwrap_or_else(|error| {
        log::info!("picodata: whether this instance has a tail is found out after its rows are read: {error}");
        None
    })
}

struct Early<'a> {
    config: &'a Config,
    pool: Rc<Pool>,
    request: HistoryRequest,
    members: BTreeSet<Address>,
    /// The last term whose master this instance followed or was, or a later one.
    seen: u64,
}

impl<'a> Early<'a> {
    /// None when there is nobody to ask, or no note.
    fn new(config: &'a Config, folder: &Folder, identity: &Identity) -> Result<Option<Self>> {
        let Stage::Member { cluster_id, raft_id, joined_in, .. } = &identity.stage else { return Ok(None) };
        let Some(followed) = folder.followed() else { return Ok(None) };
        if followed.machine != machine()? {
            return Ok(None);
        }
        let members = followed.members.iter().chain(&config.peers).filter(|member| **member != config.advertise);
        let members: BTreeSet<Address> = members.cloned().collect();
        if members.is_empty() {
            return Ok(None);
        }
        let request = HistoryRequest {
            cluster_id: cluster_id.clone(),
            name: config.name.clone(),
            instance_uuid: identity.instance_uuid.clone(),
            raft_id: *raft_id,
            wait_ms: 0,
        };
        let pool = Pool::new(SERVICE_USER, &config.cluster_secret)?;
        Ok(Some(Self { config, pool, request, members, seen: followed.term.max(*joined_in) }))
    }

    fn anew(&self, folder: &Folder, identity: &Identity) -> Result<Option<Identity>> {
        let answer = self.ask(0, Deadline::after(ASK_TIMEOUT))?;
        let Some(stray) = self.stray(folder, &answer)? else { return Ok(None) };
        failpoint::reach("early.stray");
        // Reading the log has taken a while.
        let answer = self.ask(0, Deadline::after(ASK_TIMEOUT))?;
        if answer.is_needed {
            return Ok(None);
        }
        log::error!("picodata: this instance has rows that nobody acknowledged: {stray}; it begins anew");
        if !answer.can_be_spared() {
            self.wait_until_spared(answer)?;
        }
        failpoint::reach("early.spared");
        log::warn!("picodata: instance {} throws its data away and joins again", self.config.name);
        let anew = identity.anew(uuid::random()?, &self.request.cluster_id, self.members.clone());
        if let Err(error) = folder.set_identity(&anew) {
            // It may be there all the same, and must not stay.
            folder.set_identity(identity)?;
            return Err(error);
        }
        Ok(Some(anew))
    }

    /// Why the rows in the folder are not of the history.
    fn stray(&self, folder: &Folder, answer: &HistoryAnswer) -> Result<Option<Stray>> {
        if !answer.history.is_past(self.seen) {
            return Ok(None);
        }
        let Some(path) = folder.last_log()? else { return Ok(None) };
        let failed = |e: std::io::Error| Error::new(Code::Storage, format!("{}: {e}", path.display()));
        let file = File::open(&path).map_err(failed)?;
        let rows = log_file::rows(BufReader::with_capacity(READ_BYTES, file))?;
        Ok(answer.history.stray(self.seen, &Vclock::from_iter(rows)))
    }

    /// Says that this instance is stray until it has no vote.
    ///
    /// Errors: `Timeout`, and what else keeps it from being known.
    fn wait_until_spared(&self, answer: HistoryAnswer) -> Result<()> {
        if answer.address != self.config.advertise.to_string() {
            let message = format!("the cluster looks for this instance at {}", answer.address);
            return Err(Error::new(Code::Unreachable, message));
        }
        let incarnation = Rc::new(Cell::new(answer.incarnation));
        let is_over = Rc::new(Event::new()?);
        let server = {
            let (is_over, incarnation) = (Rc::clone(&is_over), Rc::clone(&incarnation));
            MiniServer::start(&self.config.listen.to_string(), &self.config.cluster_secret, move |door, args| {
                serve_report(door, args, incarnation.get(), &is_over)
            })?
        };
        let deadline = Deadline::after(SPARE_TIMEOUT);
        let spared = loop {
            match self.ask(WAIT_MS, deadline) {
                Ok(answer) if answer.can_be_spared() => break Ok(()),
                Ok(answer) if answer.is_needed || deadline.has_passed() || fiber::is_cancelled() => {
                    break Err(Error::new(Code::Timeout, "the cluster has not come to do without it in time"));
                }
                Ok(answer) => incarnation.set(answer.incarnation),
                Err(error) => break Err(error),
            }
        };
        is_over.notify_all();
        server.stop(Deadline::after(SERVER_STOP_TIMEOUT))?;
        spared
    }

    /// The first answer of any of the members, all of them asked at once.
    fn ask(&self, wait_ms: u64, deadline: Deadline) -> Result<HistoryAnswer> {
        let request = join::encode(&HistoryRequest { wait_ms, ..self.request.clone() })?;
        let mut args = Vec::with_capacity(request.len() + 8);
        write_array_len(&mut args, 1);
        write_bin(&mut args, &request);
        let (answered, heard) = (Rc::new(RefCell::new(None)), Rc::new(Event::new()?));
        let pending = Rc::new(Cell::new(0));
        for member in self.config.advertise.others(&self.members).take(ASKED_MAX) {
            let member = member.clone();
            let (pool, args, heard) = (Rc::clone(&self.pool), args.clone(), Rc::clone(&heard));
            let (answered, pending) = (Rc::clone(&answered), Rc::clone(&pending));
            pending.set(pending.get() + 1);
            fiber::spawn("pico_early", move || {
                let answer = node::call(&pool, &member, HISTORY_DOOR, &args, deadline).map_err(CallError::for_read);
                let answer = answer.and_then(|bytes| join::decode::<HistoryAnswer>(Reader::new(&bytes).bin()?));
                let mut answered = answered.borrow_mut();
                if !matches!(&*answered, Some(Ok(_))) {
                    *answered = Some(answer);
                }
                pending.set(pending.get() - 1);
                heard.notify_all();
            })?;
        }
        let is_done = || (pending.get() == 0 || matches!(&*answered.borrow(), Some(Ok(_)))).then_some(());
        heard.wait_until(deadline, "the changes of master", is_done)?;
        answered.take().unwrap_or_else(|| Err(Error::new(Code::Unreachable, "no member answered")))
    }
}

/// The door of reports, while storage is not open: an answer that says the same again waits, as there.
fn serve_report(door: &str, args: &[u8], incarnation: u64, is_over: &Event) -> Result<Vec<u8>> {
    if door != facts::DOOR {
        return Err(Error::new(Code::NotReady, "this instance is starting"));
    }
    let report = join::encode(&Report { incarnation, stray: true, ..Report::default() })?;
    let mut reader = Reader::new(args);
    reader.array_len()?;
    if reader.bin()? == report {
        is_over.wait(Deadline::after_ms(PING_MS));
    }
    let mut reply = Vec::with_capacity(report.len() + 16);
    write_array_len(&mut reply, 2);
    write_bin(&mut reply, &report);
    write_uint(&mut reply, clock::precise_ns());
    Ok(reply)
}
