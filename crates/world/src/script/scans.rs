//! Steps over ranges.

use super::{Script, Step};
use crate::pen::{Pairs, ends, prefix_scan, taken};
use crate::value::Value;
use fluxmap_testkit::op::Scan;
use rand::Rng;
use rand::rngs::StdRng;
use std::ops::ControlFlow;
use std::sync::Arc;

impl Script<'_> {
    pub(super) fn scan(&mut self, rng: &mut StdRng) -> Step {
        let mut scan = self.pen.scan(rng);
        let prefix = rng.random_bool(0.3).then(|| self.pen.prefix(rng));
        if let Some(prefix) = prefix {
            scan = prefix_scan(prefix, scan.reverse, scan.limit);
        }
        if rng.random_bool(0.2) {
            let scan = Scan { reverse: false, ..scan };
            let stream = match prefix {
                Some(prefix) => self.tx.prefix_scan_stream(prefix),
                None => self.tx.range_stream(ends(&scan)),
            };
            let real = taken(stream, scan.limit)?;
            let model = self.model.scan(&scan);
            self.same(&format!("stream {scan:?}"), real, model);
            return Ok(());
        }
        let mut range = match prefix {
            Some(prefix) => self.tx.prefix(prefix)?,
            None => self.tx.range(ends(&scan))?,
        };
        let mut real = Pairs::new();
        while scan.limit.is_none_or(|limit| real.len() < limit) {
            let next = if scan.reverse { range.try_next_back()? } else { range.try_next()? };
            let Some((key, value)) = next else { break };
            real.push((key, value.id));
        }
        drop(range);
        let model = self.model.scan(&scan);
        self.same(&format!("scan {scan:?}"), real, model);
        Ok(())
    }

    /// Reads a range from both its ends.
    pub(super) fn walk(&mut self, rng: &mut StdRng) -> Step {
        let scan = self.pen.scan(rng);
        let mut range = self.tx.range(ends(&scan))?;
        let mut walk = self.model.walk(scan.lower.clone(), scan.upper.clone());
        for _ in 0..rng.random_range(1..5) {
            let reverse = rng.random();
            let next = if reverse { range.try_next_back()? } else { range.try_next()? };
            let real = next.map(|(key, value)| (key, value.id));
            let model = self.model.step(&mut walk, reverse);
            self.same(&format!("walk {scan:?}"), real, model);
        }
        Ok(())
    }

    pub(super) fn ends(&mut self, rng: &mut StdRng) -> Step {
        let reverse = rng.random();
        let real = if reverse { self.tx.last()? } else { self.tx.first()? };
        let model = self.model.scan(&Scan { reverse, limit: Some(1), ..Scan::all() }).pop();
        self.same("first or last", real.map(|(key, value)| (key, value.id)), model);
        Ok(())
    }

    pub(super) fn visit(&mut self, rng: &mut StdRng) -> Step {
        let scan = Scan { limit: None, ..self.pen.scan(rng) };
        let mut real = Pairs::new();
        let range = self.tx.range(ends(&scan))?;
        let show = |key: &String, value: &Arc<Value>| {
            real.push((key.clone(), value.id));
            ControlFlow::<()>::Continue(())
        };
        let _ = if scan.reverse { range.visit_back(show)? } else { range.visit(show)? };
        let model = self.model.scan(&scan);
        self.same(&format!("visit {scan:?}"), real, model);
        Ok(())
    }
}
