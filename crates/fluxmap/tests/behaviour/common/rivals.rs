//! Rivals: conflicting commits that another task or thread makes, not the transaction's body.

use std::thread;

use futures::channel::oneshot;
use futures::executor::block_on;

use super::bench::Db;

/// The number of attempts in which any rival may overtake a transaction, before it gets a lease.
pub(crate) const UNPROTECTED: u32 = 4;

/// Puts a value under a key on another task, and waits asynchronously until that has committed.
pub(crate) async fn on_another_task(db: &Db, key: &str, value: u64) {
    let (db, key) = (db.clone(), key.to_owned());
    let (sender, receiver) = oneshot::channel();
    let rival = thread::spawn(move || {
        block_on(db.insert(key, value)).expect("an insert commits");
        drop(db);
        // Sending fails only if the receiver is gone, that is, if the test has dropped the body.
        let _ = sender.send(());
    });
    receiver.await.expect("the rival commits");
    rival.join().expect("the rival ends");
}

/// Puts a value under a key on another thread, and blocks this thread until that has committed.
pub(crate) fn on_another_thread(db: &Db, key: &str, value: u64) {
    let insert = || block_on(db.insert(key.to_owned(), value)).expect("an insert commits");
    thread::scope(|scope| scope.spawn(insert).join()).expect("the rival commits");
}
