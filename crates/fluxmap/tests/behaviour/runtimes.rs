//! The library needs no runtime in particular. One suite runs under tokio with several threads,
//! tokio with one thread, `futures::executor::block_on` alone, and one `block_on` per OS thread.
//! Other tests check what the compiler must accept: futures and streams that can be spawned.

use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::thread;

use crate::common::{assert_nothing_pinned, content, open};
use fluxmap::{Database, FluxError, Snapshot, Transaction};
use fluxmap_testkit::polling::yield_once;
use futures::executor::block_on;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use tokio::runtime::Builder;

const ACCOUNTS: u64 = 10;
const TOTAL: u64 = ACCOUNTS * 100;
const TRANSFERS: u64 = 100;

type Bank = Database<u64, u64>;
type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Moves money between accounts, and yields in the middle of each transaction.
async fn teller(db: Bank, number: u64) {
    for round in 0..TRANSFERS {
        let (from, to) = ((number + round) % ACCOUNTS, (number + round * 7 + 1) % ACCOUNTS);
        let moved = db.transact(async |tx| {
            let balance = *tx.get(&from)?.expect("no account closes");
            yield_once().await;
            if from == to || balance == 0 {
                return Ok::<_, FluxError>(());
            }
            tx.insert(from, balance - 1)?;
            tx.update(&to, |balance| balance + 1)?;
            Ok(())
        });
        moved.await.expect("transact retries until it commits");
    }
}

/// The same through a handle, which leaves retries to its user.
async fn clerk(db: Bank, number: u64) {
    let mut handle = db.handle();
    for round in 0..TRANSFERS {
        let (from, to) = ((number * 3 + round) % ACCOUNTS, (number + round * 3 + 1) % ACCOUNTS);
        loop {
            let moved = handle.transaction(|h| {
                Box::pin(async move {
                    let balance = *h.get(&from)?.expect("no account closes");
                    yield_once().await;
                    if from != to && balance > 0 {
                        h.insert(from, balance - 1).await?;
                        h.update(&to, |balance| balance + 1).await?;
                    }
                    Ok::<_, FluxError>(())
                })
            });
            match moved.await {
                Ok(()) => break,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            yield_once().await;
        }
    }
}

/// Adds up all balances by streams of all kinds, and yields between items.
async fn auditor(db: Bank) {
    for _ in 0..TRANSFERS / 4 {
        let mut of_snapshot = db.snapshot().range_stream(..);
        let mut sum = 0;
        while let Some(item) = of_snapshot.next().await {
            sum += *item.expect("a stream yields items").1;
            yield_once().await;
        }
        assert_eq!(sum, TOTAL, "a snapshot's stream");

        let tx = db.begin();
        let mut of_tx = tx.range_stream(..);
        let mut sum = 0;
        while let Some((_, balance)) = of_tx.try_next().await.expect("a stream yields items") {
            sum += *balance;
            yield_once().await;
        }
        drop(of_tx);
        assert_eq!(sum, TOTAL, "a transaction's stream");
        tx.commit().await.expect("a reader commits");

        let handle = db.handle();
        let items = handle.range_stream(&0, &ACCOUNTS).map(|item| *item.expect("an item").1);
        assert_eq!(items.fold(0, async |sum, balance| sum + balance).await, TOTAL, "a handle's stream");
        db.vacuum().await.expect("vacuum succeeds");
    }
}

async fn opened() -> Bank {
    let db = Bank::builder().build().await.expect("an empty database opens");
    let handle = db.handle();
    for account in 0..ACCOUNTS {
        handle.insert(account, 100).await.expect("an insert commits");
    }
    db
}

fn jobs(db: &Bank) -> Vec<Job> {
    vec![
        Box::pin(teller(db.clone(), 0)),
        Box::pin(teller(db.clone(), 1)),
        Box::pin(clerk(db.clone(), 2)),
        Box::pin(auditor(db.clone())),
        Box::pin(auditor(db.clone())),
    ]
}

fn closed(db: &Bank) {
    let balances = content(db);
    assert_eq!(balances.len() as u64, ACCOUNTS);
    assert_eq!(balances.iter().map(|(_, balance)| balance).sum::<u64>(), TOTAL);
    assert_nothing_pinned(db);
}

async fn spawned() {
    let db = opened().await;
    let tasks: Vec<_> = jobs(&db).into_iter().map(tokio::spawn).collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    closed(&db);
    db.close().await.expect("the database closes");
}

#[test]
fn the_suite_under_tokio_with_several_threads() {
    let runtime = Builder::new_multi_thread().worker_threads(3).build();
    runtime.expect("a runtime starts").block_on(spawned());
}

#[test]
fn the_suite_under_tokio_with_one_thread() {
    let runtime = Builder::new_current_thread().build();
    runtime.expect("a runtime starts").block_on(spawned());
}

/// One thread polls all jobs in turn without a runtime, so none may block while another job has yet
/// to be polled.
#[test]
fn the_suite_without_a_runtime() {
    block_on(async {
        let db = opened().await;
        join_all(jobs(&db)).await;
        closed(&db);
        db.close().await.expect("the database closes");
    });
}

#[test]
fn the_suite_on_plain_threads() {
    let db = block_on(opened());
    thread::scope(|scope| {
        for job in jobs(&db) {
            scope.spawn(|| block_on(job));
        }
    });
    closed(&db);
    block_on(db.close()).expect("the database closes");
}

/// A body that borrows values of its task can be spawned, also with borrowed look-ups and an error
/// type of the user's own.
#[test]
fn a_body_that_borrows_locals_can_be_spawned() {
    #[derive(Debug)]
    enum Failure {
        NoSuchAccount,
        Store(FluxError),
    }
    impl From<FluxError> for Failure {
        fn from(error: FluxError) -> Self {
            Failure::Store(error)
        }
    }
    let runtime = Builder::new_multi_thread().worker_threads(2).build().expect("a runtime starts");
    let db: Database<String, u64> = open();
    let tasks: Vec<_> = ["alice", "bob"]
        .into_iter()
        .map(|name| {
            let db = db.clone();
            runtime.spawn(async move {
                let name = String::from(name);
                let missing = db.transact(async |tx| match tx.get(&name)? {
                    Some(value) => Ok(*value),
                    None => Err(Failure::NoSuchAccount),
                });
                let missing = missing.await;
                let mut seen = Vec::new();
                let seen = &mut seen;
                let written = db
                    .transact(async |tx| {
                        tx.insert(name.clone(), name.len() as u64)?;
                        yield_once().await;
                        tx.get(name.as_str())
                    })
                    .await;
                seen.extend(written.map(|value| value.map(|value| *value)));
                (missing, seen.clone())
            })
        })
        .collect();
    for (task, length) in tasks.into_iter().zip([5, 3]) {
        let (missing, seen) = runtime.block_on(task).expect("no task panics");
        match missing {
            Err(Failure::NoSuchAccount) => {}
            Ok(value) => panic!("found {value}"),
            Err(Failure::Store(error)) => panic!("{error}"),
        }
        assert_eq!(seen, [Some(length)]);
    }
}

fn send<T: Send>(value: T) -> T {
    value
}

fn sync<T: Sync>() {}

fn owned<T: Send + 'static>(value: T) -> T {
    value
}

/// Every value that a user may hold across an await is `Send`, and the owned ones are `'static`.
/// This test mostly checks that the code compiles, and then that it runs.
#[test]
fn futures_and_streams_are_send() {
    sync::<Database<String, u64>>();
    sync::<Transaction<String, u64>>();
    sync::<Snapshot<String, u64>>();
    sync::<FluxError>();

    let db: Database<String, u64> = owned(open());
    let work = async {
        send(db.insert("a".into(), 1)).await?;
        send(db.remove("a")).await?;
        send(db.update("a", |old| old + 1)).await?;
        send(db.compare_and_swap("a".into(), None, Some(2))).await?;
        send(db.get_or_insert_with("a".into(), || 3)).await?;
        send(db.vacuum()).await?;
        send(db.transact(async |tx| tx.insert("b".into(), 1))).await?;

        let tx = owned(db.begin());
        send(tx.range_stream("a".."c")).try_for_each(async |_| Ok(())).await?;
        send(tx.prefix_scan_stream("a")).try_for_each(async |_| Ok(())).await?;
        send(tx.range("a"..)?).for_each(drop);
        owned(tx.commit()).await?;

        let view = owned(db.snapshot());
        owned(view.range_stream("a".."c")).try_for_each(async |_| Ok(())).await?;
        owned(view.prefix_scan_stream("a")).try_for_each(async |_| Ok(())).await?;
        send(view.range("a"..)).for_each(drop);

        let mut handle = send(db.handle());
        send(handle.range_stream(&"a".into(), &"c".into())).try_for_each(async |_| Ok(())).await?;
        send(handle.prefix_scan_stream("a")).try_for_each(async |_| Ok(())).await?;
        send(handle.insert("c".into(), 1)).await?;
        send(handle.remove("c")).await?;
        send(handle.transaction(|h| Box::pin(async move { h.insert("c".into(), 1).await }))).await?;
        handle.begin()?;
        send(handle.commit()).await?;
        Ok::<_, FluxError>(())
    };
    block_on(send(work)).expect("all of it succeeds");
    assert_eq!(content(&db), [("a".to_owned(), 2), ("b".to_owned(), 1), ("c".to_owned(), 1)]);
}

/// The same holds for generic types of which only the bounds are known.
#[test]
fn futures_are_send_for_all_types() {
    async fn jobs<K, V>(db: Database<K, V>, key: K, value: V) -> Result<(), FluxError>
    where
        K: Ord + Hash + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        db.insert(key.clone(), value.clone()).await?;
        db.transact(async |tx| {
            yield_once().await;
            tx.insert(key.clone(), value.clone())
        })
        .await?;
        db.snapshot().range_stream(..).try_for_each(async |_| Ok(())).await
    }
    fn spawnable<K, V>(db: Database<K, V>, key: K, value: V) -> Job
    where
        K: Ord + Hash + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        Box::pin(async { jobs(db, key, value).await.expect("all of it succeeds") })
    }
    let db: Database<(u8, String), Vec<u8>> = open();
    block_on(spawnable(db.clone(), (1, "k".into()), vec![1]));
    assert_eq!(db.count(..).expect("a count succeeds"), 1);
}

/// Keys need only the documented bounds; values need not even be `Clone`.
#[test]
fn any_type_can_be_stored() {
    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
    enum Key {
        Point { x: i32, y: i32 },
        Named(Box<str>),
    }
    struct Opaque(fn(u64) -> u64);

    let db: Database<Key, Opaque> = open();
    let point = Key::Point { x: -1, y: 1 };
    let named = Key::Named("n".into());
    block_on(db.transact(async |tx| {
        tx.insert(named.clone(), Opaque(|n| n + 1))?;
        tx.insert(point.clone(), Opaque(|n| n * 2))
    }))
    .expect("it commits");
    assert_eq!(db.get_with(&point, |value| (value.0)(21)).expect("a read succeeds"), Some(42));
    let first = db.first().expect("first succeeds").expect("there are two");
    assert!(first.0 == point, "variants are ordered as they are declared");
    assert_eq!(db.count(point..=named).expect("a count succeeds"), 2);
}
