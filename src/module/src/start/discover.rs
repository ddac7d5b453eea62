//! The search for the cluster, over the network: asks peers, answers those that ask, until the boot room has decided.
//!
//! Runs before `box.cfg`, so a small server of the net room answers on the instance's address meanwhile.

use super::join::{JoinAnswer, JoinRequest, decode, encode};
use crate::host::{Deadline, Event, fiber};
use crate::net::{CallError, MiniServer, Pool, SERVICE_USER};
use crate::node;
use boot::identity::Stage;
use boot::{Address, Answer, Config, Decision, Discovery, Hello, Identity};
use model::msgpack::{Reader, write_array_len, write_bin};
use model::{Code, Error, Result};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

pub const DISCOVER_DOOR: &str = "picodata.peer.discover";
pub const JOIN_DOOR: &str = "picodata.peer.join";

/// How long one question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the cluster may take to find a place for us; it waits for the replicaset's first member meanwhile.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Peers that can not be reached yet are asked again after this; nothing tells us when they come up.
const PAUSE: Duration = Duration::from_millis(50);

/// What came of the search.
pub enum Found {
    /// This instance is to found the cluster.
    Nobody,
    Cluster {
        cluster_id: String,
        answer: JoinAnswer,
    },
}

/// Searches until the cluster is found or `join_timeout` passes.
///
/// Errors: `ForeignCluster`, `NameTaken` and others that trying again can not help; `Timeout`.
pub fn find(config: &Config, identity: &Identity) -> Result<Found> {
    let pool = Pool::new(SERVICE_USER, &config.cluster_secret)?;
    let discovery =
        Discovery::new(&config.cluster, &config.name, config.advertise.clone(), config.peers.iter().cloned());
    let search = Rc::new(Search { discovery: RefCell::new(discovery), heard: Event::new()? });
    let server = {
        let search = Rc::clone(&search);
        MiniServer::start(&config.listen.to_string(), &config.cluster_secret, move |name, args| {
            search.serve(name, args)
        })?
    };
    let deadline = join_deadline(config);
    let found = loop {
        let decision = search.discovery.borrow_mut().decide();
        match decision {
            Decision::Bootstrap => break Ok(Found::Nobody),
            Decision::Join { cluster_id, members } => match ask_to_join(config, identity, &pool, &cluster_id, &members)
            {
                Ok(answer) => break Ok(Found::Cluster { cluster_id, answer }),
                Err(error) if !may_pass(&error) => break Err(error),
                Err(error) => log::warn!("picodata: joining has to wait: {error}"),
            },
            Decision::Ask(addresses) => {
                if let Err(error) = search.ask_all(&pool, addresses) {
                    break Err(error);
                }
                if !matches!(search.discovery.borrow_mut().decide(), Decision::Ask(_)) {
                    continue;
                }
            }
        }
        if deadline.has_passed() || fiber::is_cancelled() {
            let known: Vec<String> = config.peers.iter().map(ToString::to_string).collect();
            break Err(Error::new(Code::Timeout, format!("no cluster was found by the peers {}", known.join(", ")))
                .with_hint("all of them have to run before a new cluster can be founded"));
        }
        search.heard.wait(Deadline::after(PAUSE).min(deadline));
    };
    pool.close();
    server.stop(Deadline::after(ASK_TIMEOUT))?;
    found
}

/// Asks the members of the cluster that this instance belongs to for its place, until one answers or `join_timeout`
/// passes. Founds nothing, whoever is silent.
///
/// Errors: as `find`.
pub fn ask_again(
    config: &Config,
    identity: &Identity,
    cluster_id: &str,
    members: &BTreeSet<Address>,
) -> Result<JoinAnswer> {
    let pool = Pool::new(SERVICE_USER, &config.cluster_secret)?;
    let members: BTreeSet<Address> = members.iter().chain(&config.peers).cloned().collect();
    let members = members.into_iter().filter(|member| *member != config.advertise).collect();
    let deadline = join_deadline(config);
    let answer = loop {
        match ask_to_join(config, identity, &pool, cluster_id, &members) {
            Err(error) if may_pass(&error) && !deadline.has_passed() && !fiber::is_cancelled() => {
                log::warn!("picodata: joining again has to wait: {error}");
                fiber::sleep(PAUSE.as_secs_f64());
            }
            answer => break answer,
        }
    };
    pool.close();
    answer
}

pub fn join_deadline(config: &Config) -> Deadline {
    match config.join_timeout_s {
        seconds if seconds.is_finite() => Deadline::after(Duration::from_secs_f64(seconds)),
        _ => Deadline::NEVER,
    }
}

/// Whether another attempt can end otherwise.
pub fn may_pass(error: &Error) -> bool {
    !matches!(error.code, Code::ForeignCluster | Code::NameTaken | Code::Config | Code::AccessDenied | Code::Argument)
}

struct Search {
    discovery: RefCell<Discovery>,
    /// Fires when somebody asked or answered.
    heard: Event,
}

impl Search {
    /// Asks every address, side by side, and waits for all answers.
    fn ask_all(self: &Rc<Self>, pool: &Rc<Pool>, addresses: BTreeSet<Address>) -> Result<()> {
        let hello = encode(&self.discovery.borrow().hello())?;
        let refusal: Rc<RefCell<Option<Error>>> = Rc::default();
        let pending = Rc::new(std::cell::Cell::new(addresses.len()));
        for address in addresses {
            let (search, pool, hello) = (Rc::clone(self), Rc::clone(pool), hello.clone());
            let (refusal, pending) = (Rc::clone(&refusal), Rc::clone(&pending));
            fiber::spawn("pico_discover", move || {
                let answer = ask(&pool, &address, DISCOVER_DOOR, &hello, Deadline::after(ASK_TIMEOUT));
                match answer.and_then(|bytes| decode::<Answer>(&bytes)) {
                    Ok(answer) => search.discovery.borrow_mut().answered(address, answer),
                    Err(error) => {
                        search.discovery.borrow_mut().failed(&address);
                        if !may_pass(&error) {
                            *refusal.borrow_mut() = Some(error);
                        }
                    }
                }
                pending.set(pending.get() - 1);
                search.heard.notify_all();
            })?;
        }
        self.heard.wait_until(Deadline::NEVER, "peers", || (pending.get() == 0).then_some(()))?;
        match refusal.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Answers a peer that searches too.
    fn serve(&self, name: &str, args: &[u8]) -> Result<Vec<u8>> {
        if name != DISCOVER_DOOR {
            return Err(Error::new(Code::NotReady, "this instance is starting"));
        }
        let mut reader = Reader::new(args);
        reader.array_len()?;
        let hello: Hello = decode(reader.bin()?)?;
        let answer = self.discovery.borrow_mut().asked(&hello)?;
        self.heard.notify_all();
        let mut reply = Vec::new();
        write_bin(&mut reply, &encode(&answer)?);
        Ok(reply)
    }
}

fn ask(pool: &Rc<Pool>, address: &Address, door: &str, message: &[u8], deadline: Deadline) -> Result<Vec<u8>> {
    let mut args = Vec::with_capacity(message.len() + 8);
    write_array_len(&mut args, 1);
    write_bin(&mut args, message);
    let answer = node::call(pool, address, door, &args, deadline).map_err(CallError::for_read)?;
    Ok(Reader::new(&answer).bin()?.to_vec())
}

fn ask_to_join(
    config: &Config,
    identity: &Identity,
    pool: &Rc<Pool>,
    cluster_id: &str,
    members: &BTreeSet<Address>,
) -> Result<JoinAnswer> {
    let (replaces, forgets) = match &identity.stage {
        Stage::Rejoining { replaces, .. } => (Some(replaces.clone()), None),
        Stage::WithoutLog { raft_id, .. } => (None, Some(*raft_id)),
        Stage::Joining | Stage::Member { .. } => (None, None),
    };
    let request = encode(&JoinRequest {
        cluster: config.cluster.clone(),
        cluster_id: cluster_id.to_owned(),
        name: config.name.clone(),
        instance_uuid: identity.instance_uuid.clone(),
        address: config.advertise.clone(),
        tier: config.tier.clone(),
        failure_domain: config.failure_domain.clone(),
        replaces,
        forgets,
    })?;
    let mut last = Error::new(Code::Unreachable, "the cluster named no members");
    for member in members {
        match ask(pool, member, JOIN_DOOR, &request, Deadline::after(JOIN_TIMEOUT)) {
            Ok(answer) => return decode(&answer),
            Err(error) if !may_pass(&error) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}
