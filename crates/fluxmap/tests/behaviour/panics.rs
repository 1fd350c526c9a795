//! Closures and bodies that panic or fail. The transaction rolls back, nothing stays registered,
//! and the database, the handle and the runtime go on working.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::common::bench::{fresh, get, items, now, put, works_on};
use crate::common::{assert_nothing_pinned, commit, content};
use fluxmap::FluxError;
use fluxmap_testkit::polling::yield_once;
use futures::executor::block_on;

/// Panics without printing anything.
fn planted() -> ! {
    resume_unwind(Box::new("planted"))
}

/// Asserts that `work` panics, with the planted panic.
#[track_caller]
fn panics<T>(work: impl FnOnce() -> T) {
    let panic = catch_unwind(AssertUnwindSafe(work)).err().expect("it panics");
    assert_eq!(panic.downcast_ref(), Some(&"planted"));
}

/// A panic in the body of `transact` rolls back and leaves the database usable, whether it comes
/// before or after writes, around an await, or in a second attempt.
#[test]
fn a_panicking_body_rolls_back() {
    for stage in 0..4 {
        let db = fresh();
        let attempts = Cell::new(0);
        panics(|| {
            block_on(db.transact(async |tx| {
                attempts.set(attempts.get() + 1);
                if stage == 0 {
                    planted();
                }
                let x = tx.get("x")?.map_or(0, |value| *value);
                tx.insert("x".into(), x + 1)?;
                tx.remove("y")?;
                if stage == 1 {
                    planted();
                }
                yield_once().await;
                if stage == 2 || attempts.get() == 2 {
                    planted();
                }
                db.insert("x".into(), 10).await
            }))
        });
        assert_eq!(content(&db), items(&[("x", 10), ("y", 20)]), "stage {stage}");
        works_on(&db);
    }
}

/// A body that returns an error of its own is rolled back and not retried, and the caller gets the
/// error.
#[test]
fn a_failing_body_rolls_back() {
    #[derive(Debug, PartialEq)]
    enum Failure {
        Mine,
        Store,
    }
    impl From<FluxError> for Failure {
        fn from(_: FluxError) -> Self {
            Failure::Store
        }
    }
    let db = fresh();
    let attempts = Cell::new(0);
    let failed = block_on(db.transact(async |tx| {
        attempts.set(attempts.get() + 1);
        tx.insert("x".into(), 1)?;
        Err::<(), _>(Failure::Mine)
    }));
    assert_eq!((failed, attempts.get()), (Err(Failure::Mine), 1));
    works_on(&db);
    let db = fresh();
    let mut handle = db.handle();
    let failed = block_on(handle.transaction(|h| {
        Box::pin(async move {
            h.insert("x".into(), 1).await?;
            Err::<(), _>(Failure::Mine)
        })
    }));
    assert_eq!(failed, Err(Failure::Mine));
    now(&db, "x", Some(10));
    handle.begin().expect("the handle is free");
    handle.rollback().expect("it was in a transaction");
    works_on(&db);
}

/// A panic in the body of `Handle::transaction` rolls back. The handle goes on working, and a later
/// commit has nothing to commit.
#[test]
fn a_handle_survives_a_panicking_body() {
    let db = fresh();
    let mut handle = db.handle();
    panics(|| {
        block_on(handle.transaction(|h| {
            Box::pin(async move {
                h.insert("x".into(), 1).await?;
                yield_once().await;
                if h.contains_key("x")? {
                    planted();
                }
                Ok::<_, FluxError>(())
            })
        }))
    });
    assert!(matches!(block_on(handle.commit()), Err(FluxError::NoActiveTransaction)));
    now(&db, "x", Some(10));
    block_on(handle.insert("z".into(), 1)).expect("an insert commits");
    now(&db, "z", Some(1));
    works_on(&db);
}

/// A task that panics harms no other task.
#[test]
fn a_panicking_task_rolls_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("a runtime starts");
    let db = fresh();
    let task = {
        let db = db.clone();
        runtime.spawn(async move {
            db.transact(async |tx| {
                tx.insert("x".into(), 1)?;
                yield_once().await;
                if tx.contains_key("x")? {
                    planted();
                }
                Ok::<_, FluxError>(())
            })
            .await
        })
    };
    assert!(runtime.block_on(task).expect_err("the task panics").is_panic());
    // A task that is aborted rolls back as well.
    let task = runtime.spawn({
        let db = db.clone();
        async move {
            db.transact(async |tx| {
                tx.insert("x".into(), 1)?;
                std::future::pending::<()>().await;
                Ok::<_, FluxError>(())
            })
            .await
        }
    });
    task.abort();
    assert!(runtime.block_on(task).expect_err("the task is aborted").is_cancelled());
    drop(runtime);
    now(&db, "x", Some(10));
    works_on(&db);
}

/// A panic in a closure that computes a value writes nothing. If it happens in a transaction, the
/// transaction can still be used and committed.
#[test]
fn a_panicking_closure_writes_nothing() {
    let db = fresh();
    panics(|| db.get_with("x", |_| planted()));
    panics(|| block_on(db.update("x", |_| planted())));
    panics(|| block_on(db.get_or_insert_with("z".into(), || planted())));
    assert_eq!(content(&db), items(&[("x", 10), ("y", 20)]));
    assert_nothing_pinned(&db);

    let tx = db.begin();
    put(&tx, "kept", 1);
    panics(|| tx.update("x", |_| planted()));
    panics(|| tx.get_or_insert_with("z".into(), || planted()));
    panics(|| {
        let items = tx.range(..).expect("a range succeeds");
        items.for_each(|(key, _)| {
            if key == "x" {
                planted()
            }
        });
    });
    assert_eq!((get(&tx, "x"), get(&tx, "z")), (Some(10), None));
    put(&tx, "y", 21);
    commit(tx).expect("nothing else has changed");
    assert_eq!(content(&db), items(&[("kept", 1), ("x", 10), ("y", 21)]));
    works_on(&db);
}
