//! Steps that change or read expiry times.

use super::{Script, Step};
use crate::expiry::Expiry;
use crate::pen::millis;
use fluxmap_shuttle::virtual_time;
use rand::Rng;
use rand::rngs::StdRng;
use std::time::{Duration, UNIX_EPOCH};

impl Script<'_> {
    pub(super) fn change_expiry(&mut self, rng: &mut StdRng, key: String) -> Step {
        if !self.pen.expiring {
            return Ok(());
        }
        let model = self.model.get(&key);
        match (rng.random_range(0..4), model) {
            (0, _) => {
                let is_there = self.tx.expire_at(key.as_str(), UNIX_EPOCH)?;
                self.same(&format!("expire_at {key}"), is_there, model.is_some());
                if is_there {
                    self.expiries.insert(key.clone(), Expiry::at(1));
                }
                self.model.remove(&key);
            }
            (1, Some(held)) => {
                let persists = self.tx.persist(key.as_str())?;
                self.same(&format!("persist {key}"), persists, self.expiry(&key) != Expiry::NEVER);
                if persists {
                    self.expiries.insert(key.clone(), Expiry::NEVER);
                    self.model.put(key, held);
                }
            }
            (2, _) => {
                let left = self.tx.ttl(key.as_str())?;
                let expiry = self.expiry(&key);
                let is_right = match model {
                    // The transaction may have read the clock again for its own writes.
                    Some(_) => expiry.leaves(left, self.time, self.scene.now()),
                    None => left.is_none(),
                };
                let what =
                    format!("ttl {key}, which expires {expiry:?}, is {left:?} at {}: is right", self.time);
                self.same(&what, is_right, true);
            }
            (_, held) => {
                let at = virtual_time::system_time() + self.pen.ttl(rng) + Duration::from_millis(5);
                let is_there = self.tx.expire_at(key.as_str(), at)?;
                self.same(&format!("expire_at {key}"), is_there, held.is_some());
                if let Some(held) = held {
                    self.expiries.insert(key.clone(), Expiry::at(millis(at)));
                    self.model.put(key.clone(), held);
                    self.notice_expiry(&key)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a key from the model if its value has expired for the transaction. Time may have passed
    /// between the choice of a time to live and the write, or before the transaction first read the
    /// clock.
    pub(super) fn notice_expiry(&mut self, key: &String) -> Step {
        if self.tx.ttl(key.as_str())?.is_none() {
            self.model.remove(key);
        }
        Ok(())
    }
}
