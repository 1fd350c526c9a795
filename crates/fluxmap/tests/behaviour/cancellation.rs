//! Work that is abandoned half way: futures dropped after each poll, and transactions, handles and
//! streams dropped in use. The store must then be wholly in the state before or wholly in the state
//! after the work, nothing may stay registered, and everything must go on working.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::thread;

use crate::common::bench::{Db, fresh, get, items, now, put, works_on};
use crate::common::rivals::{UNPROTECTED, on_another_thread};
use crate::common::{assert_nothing_pinned, commit, content};
use fluxmap::FluxError;
use fluxmap_testkit::polling::{poll_then_drop, yield_once};
use futures::StreamExt;
use futures::executor::block_on;

type Item = (&'static str, u64);
type Work = for<'d> fn(&'d Db) -> Pin<Box<dyn Future<Output = ()> + 'd>>;

/// Drops every async operation after each number of polls. The content must be as before or as
/// after the operation. If the future was ready, it must be as after; if the future was never
/// polled, as before.
#[test]
fn a_future_dropped_after_any_poll_has_done_all_or_nothing() {
    let works: [(&str, Work, &[Item]); 10] = [
        (
            "insert",
            |db| Box::pin(async { db.insert("x".into(), 1).await.expect("commits") }),
            &[("x", 1), ("y", 20)],
        ),
        (
            "remove",
            |db| Box::pin(async { assert!(db.remove("x").await.expect("commits").is_some()) }),
            &[("y", 20)],
        ),
        (
            "update",
            |db| Box::pin(async { assert!(db.update("x", |old| old + 1).await.expect("commits").is_some()) }),
            &[("x", 11), ("y", 20)],
        ),
        (
            "compare_and_swap",
            |db| {
                Box::pin(async {
                    let swapped = db.compare_and_swap("x".into(), Some(&10), None).await;
                    assert!(swapped.expect("commits"));
                })
            },
            &[("y", 20)],
        ),
        (
            "get_or_insert_with",
            |db| {
                Box::pin(async {
                    let made = db.get_or_insert_with("z".into(), || 30).await;
                    assert_eq!(*made.expect("commits"), 30);
                })
            },
            &[("x", 10), ("y", 20), ("z", 30)],
        ),
        (
            "commit",
            |db| {
                Box::pin(async {
                    let tx = db.begin();
                    let x = get(&tx, "x").expect("x is there");
                    put(&tx, "x", x + 1);
                    yield_once().await;
                    put(&tx, "z", 30);
                    tx.commit().await.expect("commits");
                })
            },
            &[("x", 11), ("y", 20), ("z", 30)],
        ),
        (
            "transact",
            |db| {
                Box::pin(async {
                    let done = db.transact(async |tx| {
                        let x = tx.get("x")?.map_or(0, |value| *value);
                        yield_once().await;
                        tx.insert("x".into(), x + 1)?;
                        yield_once().await;
                        tx.insert("z".into(), 30)
                    });
                    done.await.expect("commits");
                })
            },
            &[("x", 11), ("y", 20), ("z", 30)],
        ),
        (
            "Handle::commit",
            |db| {
                Box::pin(async {
                    let mut handle = db.handle();
                    handle.begin().expect("the handle is free");
                    handle.insert("z".into(), 30).await.expect("is buffered");
                    handle.savepoint("here").expect("is set");
                    yield_once().await;
                    handle.remove("x").await.expect("is buffered");
                    handle.commit().await.expect("commits");
                })
            },
            &[("y", 20), ("z", 30)],
        ),
        (
            "Handle::transaction",
            |db| {
                Box::pin(async {
                    let mut handle = db.handle();
                    let done = handle.transaction(|h| {
                        Box::pin(async move {
                            h.insert("z".into(), 30).await?;
                            yield_once().await;
                            h.remove("x").await?;
                            yield_once().await;
                            Ok::<_, FluxError>(())
                        })
                    });
                    done.await.expect("commits");
                })
            },
            &[("y", 20), ("z", 30)],
        ),
        (
            "vacuum",
            |db| {
                Box::pin(async {
                    db.vacuum().await.expect("vacuum succeeds");
                })
            },
            &[("x", 10), ("y", 20)],
        ),
    ];
    for (what, work, after) in works {
        for polls in 0.. {
            assert!(polls < 100, "{what} ends");
            let db = fresh();
            let before = content(&db);
            // Poll once more in each round, until the future comes to its end.
            let done = poll_then_drop(work(&db), polls).is_some();
            let now = content(&db);
            if done {
                assert_eq!(now, items(after), "{what} was done after {polls} polls");
            } else {
                assert!(now == before || now == items(after), "{what} after {polls} polls: {now:?}");
                assert!(polls > 0 || now == before, "{what} acted before it was polled");
            }
            works_on(&db);
            if done {
                break;
            }
        }
    }
}

/// Drops a transaction while it retries after repeated losses. Its writes in lost attempts must be
/// absent, the commits of its rivals must be there, and nothing may wait for it.
#[test]
fn a_retrying_transaction_can_be_dropped_at_any_poll() {
    const LOSSES: u64 = UNPROTECTED as u64;
    let (mut dropped, mut deepest) = (0, 0);
    for polls in 0..80 {
        let db = fresh();
        let (begun, acknowledged) = (Cell::new(0), Cell::new(0));
        let attempt = db.transact(async |tx| {
            let x = tx.get("x")?.map_or(0, |value| *value);
            tx.insert("mine".into(), x)?;
            yield_once().await;
            if begun.get() < LOSSES {
                begun.set(begun.get() + 1);
                on_another_thread(&db, "x", x + 1);
                acknowledged.set(acknowledged.get() + 1);
            }
            yield_once().await;
            Ok::<_, FluxError>(())
        });
        let done = poll_then_drop(attempt, polls);
        let x = *db.get("x").expect("a read succeeds").expect("x is there");
        assert!((10 + acknowledged.get()..=10 + begun.get()).contains(&x), "{x} after {polls} polls");
        now(&db, "mine", done.as_ref().map(|_| x));
        works_on(&db);
        match done {
            Some(result) => result.expect("it commits once it is left alone"),
            None => dropped += 1,
        }
        deepest = deepest.max(begun.get());
    }
    // Some were dropped in a later attempt, too.
    assert!(dropped > 10 && deepest >= 4, "{dropped} dropped, {deepest} attempts");
}

/// Dropping futures while other threads commit must lose nothing that was acknowledged, and add
/// nothing that was not begun.
#[test]
fn dropped_futures_among_busy_threads() {
    const ROUNDS: u64 = 300;
    let db = fresh();
    block_on(db.insert("x".into(), 0)).expect("an insert commits");
    let increment = |by_hand: bool| {
        let db = &db;
        async move {
            db.transact(async |tx| {
                let x = tx.get("x")?.map_or(0, |value| *value);
                if by_hand {
                    yield_once().await;
                }
                thread::yield_now();
                tx.insert("x".into(), x + 1)
            })
            .await
        }
    };
    let finished = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    block_on(increment(false)).expect("transact retries until it commits");
                }
            });
        }
        let polls = (0..ROUNDS).map(|round| round as usize % 4);
        let results = polls.filter_map(|polls| poll_then_drop(increment(true), polls));
        results.map(|result| result.expect("transact retries until it commits")).count()
    });
    let x = *db.get("x").expect("a read succeeds").expect("x is there");
    // A dropped future may have committed or not, so the sum is only bounded.
    let (least, most) = (2 * ROUNDS + finished as u64, 3 * ROUNDS);
    assert!((least..=most).contains(&x), "{x} is not within {least} and {most}");
    works_on(&db);
}

/// Transactions and handles that are dropped in the middle of their work roll back.
#[test]
fn what_is_dropped_is_rolled_back() {
    let db = fresh();
    let tx = db.begin();
    put(&tx, "x", 1);
    assert_eq!(db.memory_info().live_snapshots, 1, "a transaction holds its snapshot");
    drop(tx);
    now(&db, "x", Some(10));
    assert_nothing_pinned(&db);

    let mut handle = db.handle();
    handle.begin().expect("the handle is free");
    assert!(matches!(handle.begin(), Err(FluxError::TransactionAlreadyActive)));
    block_on(handle.insert("x".into(), 1)).expect("a write is buffered");
    handle.savepoint("here").expect("a savepoint is set");
    assert!(
        matches!(handle.rollback_to("there"), Err(FluxError::SavepointNotFound(name)) if name == "there")
    );
    assert_eq!(handle.get("x").expect("a read succeeds").as_deref(), Some(&1));
    drop(handle);
    now(&db, "x", Some(10));

    // A commit whose future is never polled counts as dropped, too.
    let tx = db.begin();
    put(&tx, "x", 1);
    drop(tx.commit());
    now(&db, "x", Some(10));
    works_on(&db);
}

/// A stream holds its snapshot while it lives and no longer, wherever in the walk it is dropped.
#[test]
fn a_dropped_stream_pins_nothing() {
    for taken in 0..4 {
        let db = fresh();
        let view = db.snapshot();
        let mut of_view = view.range_stream(..);
        let mut by_prefix = view.prefix_scan_stream("x");
        drop(view);
        assert!(db.memory_info().live_snapshots > 0, "a stream reads its snapshot");
        block_on(db.remove("y")).expect("a remove commits");
        block_on(db.vacuum()).expect("vacuum succeeds");
        let seen = (0..taken).map_while(|_| block_on(of_view.next()));
        let seen: Vec<String> = seen.map(|item| item.expect("a stream yields items").0).collect();
        assert_eq!(seen, ["x", "y"][..taken.min(2)], "the removed key is still there");
        drop(block_on(by_prefix.next()));
        drop((of_view, by_prefix));
        assert_nothing_pinned(&db);

        let tx = db.begin();
        let mut of_tx = tx.range_stream(..);
        for _ in 0..taken {
            drop(block_on(of_tx.next()));
        }
        drop(of_tx);
        put(&tx, "z", 1);
        commit(tx).expect("nothing else has changed");
        works_on(&db);
    }
}

/// A snapshot's stream outlives the snapshot and the database handle that it came from.
#[test]
fn a_snapshot_stream_stands_alone() {
    let db = fresh();
    let stream = db.snapshot().range_stream(..);
    block_on(db.insert("x".into(), 99)).expect("an insert commits");
    drop(db);
    let seen: Vec<_> = block_on(stream.map(|item| item.expect("an item")).collect());
    assert_eq!(
        seen.iter().map(|(key, value)| (key.as_str(), **value)).collect::<Vec<_>>(),
        [("x", 10), ("y", 20)]
    );
}

/// A transaction writes while it streams. The stream shows a write ahead of its position, and does
/// not show one behind it.
#[test]
fn writing_while_streaming_in_one_transaction() {
    let db = fresh();
    let tx = db.begin();
    let mut stream = tx.range_stream(..);
    let mut seen = Vec::new();
    while let Some(item) = block_on(stream.next()) {
        let (key, _) = item.expect("a stream yields items");
        if key == "x" {
            put(&tx, "a", 1);
            put(&tx, "xx", 2);
            tx.remove("y").expect("a remove succeeds");
            put(&tx, "z", 3);
        }
        seen.push(key);
    }
    drop(stream);
    assert_eq!(seen, ["x", "xx", "z"]);
    commit(tx).expect("nothing else has changed");
    assert_eq!(content(&db), items(&[("a", 1), ("x", 10), ("xx", 2), ("z", 3)]));
    works_on(&db);
}
