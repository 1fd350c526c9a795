//! Rivals: commits that are not the body's own, because another task makes them.

use std::thread;

use futures::channel::oneshot;
use futures::executor::block_on;

use super::bench::Db;

/// Attempts of a transaction that any rival may overtake, before it is given priority.
pub(crate) const UNPROTECTED: u32 = 4;

/// Puts a value under a key on another task, and waits, as tasks do, until that has committed.
pub(crate) async fn on_another_task(db: &Db, key: &str, value: u64) {
    let (db, key) = (db.clone(), key.to_owned());
    let (sender, receiver) = oneshot::channel();
    let rival = thread::spawn(move || {
        block_on(db.insert(key, value)).expect("an insert commits");
        // Else what it is to be told has been dropped, which is the test's affair.
        drop(db);
        let _ = sender.send(());
    });
    receiver.await.expect("the rival commits");
    rival.join().expect("the rival ends");
}

/// Puts a value under a key on another thread, and blocks this one until that has committed.
pub(crate) fn on_another_thread(db: &Db, key: &str, value: u64) {
    let insert = || block_on(db.insert(key.to_owned(), value)).expect("an insert commits");
    thread::scope(|scope| scope.spawn(insert).join()).expect("the rival commits");
}
