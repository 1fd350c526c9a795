//! Steps over many keys at once.

use super::{Script, Step, id};
use crate::expiry::Expiry;
use crate::pen::ends;
use crate::value::Value;
use fluxmap_testkit::op::Scan;
use rand::Rng;
use rand::rngs::StdRng;

impl Script<'_> {
    pub(super) fn many(&mut self, rng: &mut StdRng) -> Step {
        match rng.random_range(0..8) {
            0 | 1 => {
                let pairs: Vec<(String, Value)> = self.pen.pairs(rng, 4);
                for (key, value) in &pairs {
                    self.expiries.insert(key.clone(), Expiry::NEVER);
                    self.model.put(key.clone(), value.id);
                }
                self.tx.extend(pairs)?;
            }
            2 => {
                let scan = Scan { limit: None, reverse: false, ..self.pen.scan(rng) };
                let real = self.tx.remove_range(ends(&scan))?;
                let model = self.remove_all(&scan);
                self.same(&format!("remove_range {scan:?}"), real, model);
            }
            3 if rng.random_bool(0.3) => {
                let real = self.tx.clear()?;
                let model = self.remove_all(&Scan::all());
                self.same("clear", real, model);
            }
            4 => {
                let reverse = rng.random();
                let real = if reverse { self.tx.pop_last()? } else { self.tx.pop_first()? };
                let model = self.model.scan(&Scan { reverse, limit: Some(1), ..Scan::all() }).pop();
                if let Some((key, _)) = &model {
                    self.expiries.remove(key);
                    self.model.remove(key);
                }
                self.same("pop_first or pop_last", real.map(|(key, value)| (key, value.id)), model);
            }
            5 => {
                let keys: Vec<String> = (0..rng.random_range(0..4)).map(|_| self.pen.key(rng)).collect();
                let real: Vec<_> =
                    self.tx.get_each(&keys)?.iter().map(|found| found.as_ref().map(id)).collect();
                let model: Vec<_> = keys.iter().map(|key| self.model.get(key)).collect();
                self.same(&format!("get_each {keys:?}"), real, model);
            }
            6 => {
                let (real, model) = (self.tx.len()?, self.model.scan(&Scan::all()).len());
                self.same("len", real, model);
            }
            _ => {
                let real = self.tx.is_empty()?;
                let model = self.model.scan(&Scan { limit: Some(1), ..Scan::all() }).is_empty();
                self.same("is_empty", real, model);
            }
        }
        Ok(())
    }

    /// Removes the keys of a range from the model; returns how many there were.
    fn remove_all(&mut self, scan: &Scan<String>) -> usize {
        let items = self.model.scan(scan);
        for (key, _) in &items {
            self.expiries.remove(key);
            self.model.remove(key);
        }
        items.len()
    }
}
