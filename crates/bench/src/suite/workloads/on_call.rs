//! Doctors on call. A doctor who is on call for a shift has a key that begins with the shift's prefix. A
//! transaction looks at all doctors of a shift, and one may leave only if another stays (after Cahill,
//! Röhm and Fekete, "Serializable Isolation for Snapshot Databases", SIGMOD 2008).

use super::super::keys::numbered;
use super::Bench;
use crate::stores::value;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const SHIFTS: usize = 100;
const DOCTORS: usize = 5;

fn prefix(shift: usize) -> String {
    numbered("shift", 6, shift as u64, "/")
}

fn key(shift: usize, doctor: usize) -> String {
    numbered(&(prefix(shift) + "doctor"), 2, doctor as u64, "")
}

pub(super) fn run(bench: &Bench<'_>) -> Result<(), String> {
    let store = bench.store;
    for shift in 0..SHIFTS {
        for doctor in 0..DOCTORS / 2 {
            store.put(&key(shift, doctor), value(1));
        }
    }
    bench.measure("on-call", |thread| {
        let mut random = SmallRng::seed_from_u64(bench.seed(thread));
        Box::new(move || {
            let shift = random.random_range(0..SHIFTS);
            let own = key(shift, random.random_range(0..DOCTORS));
            Some(store.transact(&mut |tx| {
                let (mut on_call, mut is_on_call) = (0, false);
                tx.scan_prefix(&prefix(shift), &mut |doctor, _| {
                    on_call += 1;
                    is_on_call |= doctor == own;
                })?;
                match (is_on_call, on_call) {
                    // Leave an empty shift empty, so that the check finds it.
                    (_, 0) | (true, 1) => Ok(()),
                    (true, _) => tx.delete(&own),
                    (false, _) => tx.put(&own, value(1)),
                }
            }))
        })
    });
    for shift in 0..SHIFTS {
        if !(0..DOCTORS).any(|doctor| store.get(&key(shift, doctor)).is_some()) {
            return Err(format!("nobody is on call in shift {shift}"));
        }
    }
    Ok(())
}
