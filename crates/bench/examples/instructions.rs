//! Does one kind of operation again and again on a single thread, so that instructions can be counted.
//! `scripts/instructions.sh` runs this program under callgrind, once with and once without the operations,
//! and divides the difference.
//!
//! Arguments: the operation, the number of keys, the number of other open transactions, and the number
//! of repetitions.

use fluxmap::{Database, FluxError, Transaction};
use futures::executor::block_on;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt::Write;
use std::hint::black_box;
use std::ops::ControlFlow;

type Db = Database<String, Vec<u8>>;

/// Makes a key. The string gets its whole capacity at once: the cost of growing a string depends on the
/// state of the heap, which differs between operations, so it would not cancel out in the difference.
fn key(number: usize) -> String {
    let mut key = String::with_capacity(24);
    write!(key, "user{number:016}").expect("a string takes it");
    key
}

fn number(value: &[u8]) -> i64 {
    value.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))
}

fn value(number: i64) -> Vec<u8> {
    let mut value = vec![b'v'; 100];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// Moves one unit from one account to another.
async fn transfer(tx: &mut Transaction<String, Vec<u8>>, from: &str, to: &str) -> Result<(), FluxError> {
    let [left, right] = tx.get_many([from, to])?.map(|found| found.map_or(0, |value| number(&value)));
    tx.insert(from.to_string(), value(left - 1))?;
    tx.insert(to.to_string(), value(right + 1))
}

/// Visits the keys with a prefix, and removes `own` if it is among them, or else inserts it.
fn on_call(tx: &Transaction<String, Vec<u8>>, prefix: &str, own: &str) -> Result<(), FluxError> {
    let mut is_there = false;
    let _ = tx.prefix(prefix)?.visit(|key, _| {
        is_there |= key == own;
        ControlFlow::<()>::Continue(())
    })?;
    match is_there {
        true => tx.remove(own).map(drop),
        false => tx.insert(own.to_string(), value(1)),
    }
}

fn operate(db: &Db, what: &str, keys: usize, count: usize, random: &mut SmallRng) {
    // Draw the same numbers for every operation, so that drawing cancels out in the difference.
    let mut done = 0;
    for turn in 0..count {
        let (one, other) = (key(random.random_range(0..keys)), key(random.random_range(0..keys)));
        match what {
            "nothing" => {}
            "get" => done += usize::from(black_box(db.get(&one)).expect("a read").is_some()),
            "snapshot" => drop(black_box(db.snapshot())),
            "begin" => drop(black_box(db.begin())),
            "snapshot-get" => done += usize::from(db.snapshot().get(&one).expect("a read").is_some()),
            "update" => block_on(db.insert(one, value(1))).expect("a commit"),
            "insert" => block_on(db.insert(one + "x", value(1))).expect("a commit"),
            "transact" => {
                let body = async |tx: &mut Transaction<_, _>| tx.insert(one.clone(), value(1));
                block_on(db.transact(body)).expect("a commit");
            }
            "transfer" => {
                let (one, other) = (one.as_str(), other.as_str());
                block_on(db.transact(async move |tx| transfer(tx, one, other).await)).expect("a commit");
            }
            "reads-1" | "reads-4" | "reads-16" | "reads-64" | "reads-256" => {
                let reads: usize = what[6..].parse().expect("a number");
                let tx = db.begin();
                for read in 0..reads {
                    black_box(tx.get(&key((read * 7919 + turn * 31) % keys))).expect("a read");
                }
                tx.insert(one, value(1)).expect("a write");
                block_on(tx.commit()).expect("a commit");
            }
            "writes-1" | "writes-2" | "writes-4" | "writes-16" | "writes-64" | "writes-256" => {
                let writes: usize = what[7..].parse().expect("a number");
                let tx = db.begin();
                for write in 0..writes {
                    tx.insert(key((write * 7919 + turn * 31) % keys), value(1)).expect("a write");
                }
                block_on(tx.commit()).expect("a commit");
            }
            "visit" => {
                let mut left = 100;
                let scanned = db.snapshot().range(one.as_str()..).visit(|_, value| {
                    done += usize::from(number(value) != 0);
                    left -= 1;
                    if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                let _ = black_box(scanned.expect("a scan"));
            }
            "on-call" => {
                // One key has the prefix, and a second one while `own` is there.
                let (prefix, own) = (one.as_str(), format!("{one}!"));
                let body = async |tx: &mut Transaction<_, _>| on_call(tx, prefix, &own);
                block_on(db.transact(body)).expect("a commit");
            }
            "scan" => done += db.snapshot().range(one.as_str()..).take(100).count(),
            other => panic!("no operation {other}"),
        }
    }
    black_box(done);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, keys, open, count] = arguments.as_slice() else {
        panic!("operation, keys, open transactions, count");
    };
    let [keys, open, count] = [keys, open, count].map(|number| number.parse::<usize>().expect("a number"));
    let db: Db = block_on(Database::new_in_memory()).expect("the defaults are valid");
    for number in 0..keys {
        block_on(db.insert(key(number), value(1000))).expect("a commit");
    }
    let open: Vec<_> = (0..open)
        .map(|number| {
            // Commit first, so that each open transaction has a different timestamp.
            block_on(db.insert(key(number % keys), value(1000))).expect("a commit");
            db.begin()
        })
        .collect();
    let mut random = SmallRng::seed_from_u64(7);
    operate(&db, what, keys, count, &mut random);
    drop(open);
}
