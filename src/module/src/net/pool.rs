//! All peers of this instance, by address, and who wants to know when a connection comes or goes.

use super::expiry::Expiry;
use super::peer::Peer;
use crate::host::guard;
use model::Result;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It stands.
    Up,
    /// It stood and broke: the other process is likely to have ended.
    Down,
    /// It could not be made.
    Failed,
}

/// Called in the connection's own fiber; must not yield.
pub type Listener = Rc<dyn Fn(&str, LinkEvent)>;

/// What all peers of a pool have in common.
pub(super) struct Shared {
    pub user: String,
    pub password: String,
    pub expiry: Rc<Expiry>,
    listeners: RefCell<Vec<Listener>>,
}

impl Shared {
    pub fn tell(&self, address: &str, event: LinkEvent) {
        let listeners = self.listeners.borrow().clone();
        for listener in listeners {
            // A listener's panic is logged by the hook and concerns no connection.
            let _ = guard::contain(|| {
                listener(address, event);
                Ok(())
            });
        }
    }
}

pub struct Pool {
    shared: Rc<Shared>,
    peers: RefCell<HashMap<String, Rc<Peer>>>,
}

impl Pool {
    /// A pool that authenticates everywhere as `user`. Works before `box.cfg`.
    pub fn new(user: &str, password: &str) -> Result<Rc<Pool>> {
        let shared = Shared {
            user: user.to_owned(),
            password: password.to_owned(),
            expiry: Expiry::start()?,
            listeners: RefCell::default(),
        };
        Ok(Rc::new(Pool { shared: Rc::new(shared), peers: RefCell::default() }))
    }

    /// The peer at `host:port`, without connecting.
    pub fn peer(&self, address: &str) -> Result<Rc<Peer>> {
        if let Some(peer) = self.peers.borrow().get(address) {
            return Ok(Rc::clone(peer));
        }
        let peer = Peer::new(address, &self.shared)?;
        self.peers.borrow_mut().insert(address.to_owned(), Rc::clone(&peer));
        Ok(peer)
    }

    /// Tells `listener` of every connection that comes or goes from now on.
    pub fn subscribe(&self, listener: impl Fn(&str, LinkEvent) + 'static) {
        self.shared.listeners.borrow_mut().push(Rc::new(listener));
    }

    /// Closes all connections.
    pub fn close(&self) {
        let peers = std::mem::take(&mut *self.peers.borrow_mut());
        peers.values().for_each(|peer| peer.close());
    }
}
