//! How much there is, and how much there may be.

use std::{collections::HashMap, time::Duration};

use crate::{TaskError, rows::Record, task::TaskState};

/// Of the queue, the part that is kept for tenants that have less in it than others.
const RESERVE: u64 = 10;

/// How much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) max_queued: u64,
    pub(crate) max_bytes: u64,
    pub(crate) attempts: u32,
    pub(crate) keep: Duration,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) queued: u64,
    pub(crate) running: u64,
    pub(crate) bytes: u64,
    /// Those of each tenant that wait, and its weight.
    by_tenant: HashMap<String, (u64, f64)>,
}

// === impl Counts ===

impl Counts {
    /// Whether one more task fits.
    pub(crate) fn room(&self, limits: Limits, tenant: &str, weight: f64, n_bytes: u64) -> Result<(), TaskError> {
        let Limits { max_queued, max_bytes, .. } = limits;
        let Self { queued, bytes, .. } = *self;
        if queued >= max_queued {
            return Err(TaskError::Full { queued, limit: max_queued, of_tenant: false });
        }
        let reserve = max_queued / RESERVE;
        if queued >= max_queued - reserve {
            let others: f64 = self.by_tenant.iter().filter(|(name, _)| *name != tenant).map(|(_, (_, w))| w).sum();
            let of_tenant = self.by_tenant.get(tenant).map_or(0, |(n, _)| *n);
            if of_tenant as f64 >= reserve as f64 * weight / (weight + others) {
                return Err(TaskError::Full { queued, limit: max_queued, of_tenant: true });
            }
        }
        if bytes.saturating_add(n_bytes) > max_bytes {
            return Err(TaskError::NoRoom { bytes, limit: max_bytes });
        }
        Ok(())
    }

    /// A task went from one state to another; `None` is ended, or not there yet.
    pub(crate) fn moved(&mut self, record: &Record, before: Option<TaskState>, after: Option<TaskState>) {
        match before {
            Some(TaskState::Queued) => {
                self.queued = self.queued.saturating_sub(1);
                if let Some((n, _)) = self.by_tenant.get_mut(&record.tenant) {
                    *n = n.saturating_sub(1);
                    if *n == 0 {
                        self.by_tenant.remove(&record.tenant);
                    }
                }
            }
            Some(TaskState::Running) => self.running = self.running.saturating_sub(1),
            _ => {}
        }
        match after {
            Some(TaskState::Queued) => {
                self.queued += 1;
                self.by_tenant.entry(record.tenant.clone()).or_insert((0, record.weight)).0 += 1;
            }
            Some(TaskState::Running) => self.running += 1,
            _ => {}
        }
    }
}
