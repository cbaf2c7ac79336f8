//! Names by number: a fleet has few different ones, and most are told again and again.

use std::collections::HashMap;
use std::sync::Arc;

use super::{NameId, number};

/// Names, each kept once.
#[derive(Default)]
pub(super) struct Names {
    ids: HashMap<Arc<str>, NameId>,
    names: Vec<Arc<str>>,
}

impl Names {
    pub(super) fn find(&self, name: &str) -> Option<NameId> {
        self.ids.get(name).copied()
    }

    pub(super) fn intern(&mut self, name: &str) -> NameId {
        if let Some(id) = self.find(name) {
            return id;
        }
        let id = number(self.names.len());
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.ids.insert(name, id);
        id
    }

    pub(super) fn get(&self, id: NameId) -> &Arc<str> {
        // Ids are only made by `intern`.
        &self.names[id as usize]
    }
}
