//! Evaluation keys at hand: pinned ones, and those of requests, least recently used ones given up first.

use indexmap::IndexMap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tacit_runtime::EvaluationKey;

/// SHA-256 of an evaluation key's file.
pub(crate) type KeyName = [u8; 32];

/// All keys that were read and expanded.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pinned: HashMap<KeyName, Arc<EvaluationKey>>,
    recent: Mutex<Recent>,
    /// Bytes that [`Recent`] may hold.
    limit: usize,
}

/// In order of their last use.
#[derive(Debug, Default)]
struct Recent {
    keys: IndexMap<KeyName, Arc<EvaluationKey>>,
    bytes: usize,
}

/// Where a key was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Pinned,
    Recent,
    Request,
}

impl Source {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Source::Pinned => "pinned",
            Source::Recent => "recent",
            Source::Request => "request",
        }
    }
}

impl Keys {
    pub(crate) fn new(pinned: HashMap<KeyName, Arc<EvaluationKey>>, limit: usize) -> Self {
        Keys { pinned, recent: Mutex::default(), limit }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of that name, which then was used last.
    pub(crate) fn find(&self, name: &KeyName) -> Option<(Arc<EvaluationKey>, Source)> {
        if let Some(key) = self.pinned.get(name) {
            return Some((Arc::clone(key), Source::Pinned));
        }
        let mut recent = self.recent();
        let at = recent.keys.get_index_of(name)?;
        let last = recent.keys.len() - 1;
        recent.keys.move_index(at, last);
        recent.keys.get(name).map(|key| (Arc::clone(key), Source::Recent))
    }

    /// Any of the pinned keys.
    pub(crate) fn any_pinned(&self) -> Option<Arc<EvaluationKey>> {
        self.pinned.values().next().map(Arc::clone)
    }

    /// Keeps a key, and gives up as many old ones as make room for it; a key over the limit is not kept.
    pub(crate) fn keep(&self, name: KeyName, key: &Arc<EvaluationKey>) {
        let bytes = key.memory_bytes();
        if bytes > self.limit {
            return;
        }
        let mut recent = self.recent();
        let recent = &mut *recent;
        if recent.keys.insert(name, Arc::clone(key)).is_none() {
            recent.bytes += bytes;
        }
        while recent.bytes > self.limit {
            let Some((_, old)) = recent.keys.shift_remove_index(0) else { break };
            recent.bytes -= old.memory_bytes();
        }
    }

    /// Number of keys, pinned ones included, and bytes of those that are not pinned.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let recent = self.recent();
        (self.pinned.len() + recent.keys.len(), recent.bytes)
    }
}
