//! What is kept of some tokens, on its way out of this engine and into another.

use std::{mem, sync::Arc};

use llambo_catalog::hex;
use llambo_inference::{KeptState, TenantName, TokenId};
use tokio::sync::oneshot;

use super::{disk::Fingerprint, kept::Place, streams::Streams};
use crate::{ffi::Token, step::slots::Slots};

/// Who asks for a copy of what is kept.
pub(crate) struct Export {
    pub(crate) tenant: TenantName,
    pub(crate) tokens: Vec<Token>,
    pub(crate) reply: oneshot::Sender<Option<KeptState>>,
}

/// Copies that are asked for; some of them come from disk first.
#[derive(Default)]
pub(crate) struct Exports(Vec<Export>);

impl Exports {
    pub(crate) fn ask(&mut self, export: Export) {
        self.0.push(export);
    }

    /// Answers those that can be.
    pub(crate) fn serve(&mut self, streams: &mut Streams, slots: &Slots, kind: &Fingerprint) {
        for export in mem::take(&mut self.0) {
            match streams.export(&export.tenant, &export.tokens, slots) {
                Found::Soon if !export.reply.is_closed() => self.0.push(export),
                Found::Soon | Found::Nothing => drop(export.reply.send(None)),
                Found::Copy(tokens, copy) => {
                    let tokens = tokens.iter().filter_map(|token| TokenId::try_from(*token).ok()).collect();
                    let state = KeptState { kind: hex(kind), tokens, bytes: copy.to_vec() };
                    drop(export.reply.send(Some(state)));
                }
            }
        }
    }
}

/// What is there for an export.
enum Found {
    Nothing,
    /// It is read from disk.
    Soon,
    Copy(Arc<[Token]>, Arc<Vec<u8>>),
}

impl Streams {
    fn export(&mut self, tenant: &TenantName, tokens: &[Token], slots: &Slots) -> Found {
        let Some(found) = self.kept.find(tenant, tokens) else { return Found::Nothing };
        match found.place {
            Place::Memory(copy) | Place::Writing(copy) => Found::Copy(found.tokens, copy),
            Place::Stream(id) => self.copy_of(id, slots).map_or(Found::Nothing, |(tokens, copy)| Found::Copy(tokens, copy)),
            Place::Reading { .. } => Found::Soon,
            Place::Disk { .. } if self.read_in(&found) => Found::Soon,
            Place::Disk { .. } => Found::Nothing,
        }
    }

    /// Keeps a copy that was made elsewhere. False when there is no room for it.
    pub(crate) fn import(&mut self, tenant: &TenantName, tokens: &[Token], bytes: Vec<u8>) -> bool {
        let fits = self.kept.has_memory_for(bytes.len() as u64);
        if fits {
            let leaving = self.kept.put_copy(tenant, tokens, Arc::new(bytes));
            self.write_out(leaving);
        }
        fits
    }
}

/// Whether a copy of this kind can be used where `here` is asked for.
pub(crate) fn is_of_kind(kind: &str, here: &Fingerprint) -> bool {
    kind == hex(here)
}
