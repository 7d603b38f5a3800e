//! Request ids that were answered, for those who want each answered once.

use indexmap::IndexSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tacit_ir::artifact::envelope::QueryHeader;
use tacit_ir::diag::{Code, Diagnostic, Result};

/// Ids that are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 1 << 16;

type RequestId = [u8; 16];

#[derive(Debug, Default)]
pub(crate) struct Replays(Mutex<IndexSet<RequestId>>);

/// An id that is being answered; forgotten when dropped, so that a request that failed can be repeated.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    replays: &'a Replays,
    id: Option<RequestId>,
}

impl Replays {
    fn ids(&self) -> MutexGuard<'_, IndexSet<RequestId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the id is new.
    pub(crate) fn check(&self, header: &QueryHeader) -> Result<()> {
        if self.ids().contains(&header.request_id) { Err(replayed()) } else { Ok(()) }
    }

    /// Takes the id.
    pub(crate) fn claim(&self, header: &QueryHeader) -> Result<Claim<'_>> {
        let mut ids = self.ids();
        if !ids.insert(header.request_id) {
            return Err(replayed());
        }
        if ids.len() > REMEMBERED {
            ids.shift_remove_index(0);
        }
        Ok(Claim { replays: self, id: Some(header.request_id) })
    }
}

impl Claim<'_> {
    /// The request was answered.
    pub(crate) fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.replays.ids().shift_remove(&id);
        }
    }
}

fn replayed() -> Diagnostic {
    Diagnostic::new(Code::RequestReplayed, "a request with this id was answered before")
        .help("encrypt the rows again and send them with a new request id")
}
