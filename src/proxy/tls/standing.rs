//! What the peer of a connection has proven, looked at again while the connection is given new things to carry.
//!
//! A handshake proves who is there at one moment. A connection that carries many others for hours is given a new one only while its
//! peer could still prove the same: its certificate has not run out, and roots trusted now have signed it. What it carries
//! already goes on, as it would on a connection of its own.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use leno_core::names::Identity;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::verify::{Presented, Roots, Wrong};

/// What a peer has proven.
#[derive(Debug)]
pub struct Standing {
    chain: Vec<CertificateDer<'static>>,
    /// Who must answer, where this end has dialled.
    expected: Option<Arc<Identity>>,
    /// The roots it was seen with, and when.
    roots: RefCell<Arc<Roots>>,
    at: Cell<UnixTime>,
}

impl Standing {
    /// That of a peer whose `chain` has just been verified; `expected` is who was dialled.
    pub(super) fn new(chain: Vec<CertificateDer<'static>>, roots: Arc<Roots>, expected: Option<Arc<Identity>>, now: UnixTime) -> Self {
        Self { chain, expected, roots: RefCell::new(roots), at: Cell::new(now) }
    }

    /// Whether the peer could prove at `now`, by the roots trusted now, what it has proven before.
    pub fn check(&self, roots: &Arc<Roots>, now: UnixTime) -> Result<(), Wrong> {
        // Certificates begin and end at whole seconds.
        if Arc::ptr_eq(&self.roots.borrow(), roots) && self.at.get().as_secs() == now.as_secs() {
            return Ok(());
        }
        match &self.expected {
            Some(expected) => roots.verify_server(&self.chain, expected, now)?,
            None => roots.verify(&self.chain, Presented::ByClient, now)?,
        };
        self.roots.replace(Arc::clone(roots));
        self.at.set(now);
        Ok(())
    }
}
