//! Tests of the simulation itself: the tasks that it runs, their order, and the ways in which a run ends.

use super::*;

/// The machine: its disk, its databases, its clock and its random numbers.
mod machine;

use fluxmap::{Database, FluxError};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

type Db = Database<u64, u64>;

async fn open(machine: &Machine) -> Result<Db, FluxError> {
    machine.database("db").build().await
}

/// Three tasks that take several steps each. `said` records the order of the steps.
async fn chat(machine: Machine, said: Arc<Mutex<Vec<u32>>>) {
    let tasks = [1, 2, 3].map(|speaker| {
        let (own, said) = (machine.clone(), Arc::clone(&said));
        machine.spawn(format!("speaker {speaker}"), async move {
            for _ in 0..5 {
                said.lock().expect("no panic").push(speaker);
                crate::polling::yield_once().await;
                own.sleep(SECOND).await;
            }
        })
    });
    for task in tasks {
        task.await;
    }
}

fn said(seed: u64) -> (Vec<u32>, Vec<String>) {
    let mut simulation = Simulation::new(seed);
    let said = Arc::default();
    let main = chat(simulation.machine(), Arc::clone(&said));
    assert_eq!(simulation.run(main).expect("it ends"), Ended::Returned(()));
    assert_eq!(simulation.machine().now(), 5 * SECOND, "all sleep at the same time");
    let said = said.lock().expect("no panic").clone();
    (said, simulation.trace())
}

#[test]
fn a_seed_stands_for_one_order_and_others_for_others() {
    let orders: BTreeSet<_> = (0..30).map(|seed| said(seed).0).collect();
    assert!(orders.len() > 20, "{} orders", orders.len());
    for seed in 0..5 {
        assert_eq!(said(seed), said(seed));
    }
}

#[test]
fn a_program_in_which_nothing_goes_on_says_who_waits_for_what() {
    let mut simulation = Simulation::new(1);
    let machine = simulation.machine();
    let stuck = simulation.run(async move {
        machine.spawn_detached("reader", machine.clone().silent());
        drop(machine.spawn("nameless", std::future::pending::<()>()));
        machine.spawn("other", std::future::pending::<()>()).await;
    });
    let stuck = stuck.expect_err("it cannot end");
    assert_eq!(stuck.why, Why::NothingGoesOn);
    let shown = stuck.to_string();
    let here = file!();
    for expected in [
        "nothing can go on (FLUXMAP_SEED=1, life 1".to_owned(),
        format!("reader ({here}"),
        "polled 1 times) waits for an answer".to_owned(),
        "waits to be woken".to_owned(),
        "waits for the task other".to_owned(),
        "build it with `Machine::database`".to_owned(),
    ] {
        assert!(shown.contains(&expected), "{expected:?} in {shown}");
    }
}

impl Machine {
    async fn silent(self) -> Result<(), FluxError> {
        self.label("an answer", std::future::pending()).await
    }
}

#[test]
fn a_program_that_goes_round_in_circles_is_stopped() {
    let mut simulation = Simulation::new(1);
    simulation.limit_steps(500);
    let machine = simulation.machine();
    let stuck = simulation.run(async move {
        let _sleeper = machine.spawn("sleeper", {
            let machine = machine.clone();
            async move { machine.sleep(3 * SECOND).await }
        });
        loop {
            crate::polling::yield_once().await;
        }
    });
    let stuck = stuck.expect_err("it does not end");
    assert_eq!(stuck.why, Why::TooManySteps { limit: 500 });
    let labels: Vec<_> = stuck.tasks.iter().map(|task| (&*task.name, &*task.label)).collect();
    assert_eq!(labels, [("main", "can go on"), ("sleeper", "waits for the time 3s")]);
}

#[test]
fn time_passes_beside_work_only_if_it_is_to() {
    let elapsed = |stalls| {
        let mut simulation = Simulation::new(1);
        simulation.stall_one_in(stalls);
        let machine = simulation.machine();
        let main = async move {
            let _task = machine.spawn("sleeper", {
                let machine = machine.clone();
                async move { machine.sleep(SECOND).await }
            });
            for _ in 0..200 {
                crate::polling::yield_once().await;
            }
            machine.now()
        };
        simulation.run(main).expect("it ends")
    };
    assert_eq!(elapsed(0), Ended::Returned(Duration::ZERO));
    assert_eq!(elapsed(10), Ended::Returned(SECOND));
}

/// Counts up to three more. `counted` is the last count whose commit was acknowledged.
async fn count(machine: Machine, counted: Arc<Mutex<u64>>) -> Result<u64, FluxError> {
    let db = open(&machine).await?;
    let mut n = db.get(&0)?.map_or(0, |n| *n);
    let promised = *counted.lock().expect("no panic");
    assert!(n >= promised, "{promised} was promised, and {n} is there");
    for _ in 0..3 {
        n += 1;
        machine.sleep(SECOND).await;
        db.insert(0, n).await?;
        *counted.lock().expect("no panic") = n;
    }
    Ok(n)
}

#[test]
fn a_crash_is_possible_at_every_step_and_every_call_and_the_next_process_goes_on() {
    let plans: [fn(&mut Simulation, u64, Crash); 2] = [Simulation::crash_at_step, Simulation::crash_at_call];
    for plan in plans {
        for crash in [Crash::Process, Crash::Power(Loss::Everything), Crash::Power(Loss::Random(7))] {
            let mut at = 1;
            loop {
                let mut simulation = Simulation::new(at);
                let counted = Arc::new(Mutex::new(0));
                plan(&mut simulation, at, crash);
                let first = simulation.run(count(simulation.machine(), Arc::clone(&counted)));
                let is_over = match first.expect("it does not hang") {
                    Ended::Crashed { .. } => false,
                    Ended::Returned(result) => result.is_ok(),
                };
                // The second process crashes as well, at another place.
                plan(&mut simulation, at / 2 + 1, crash);
                let second = simulation.run(count(simulation.machine(), Arc::clone(&counted)));
                second.expect("it does not hang");
                let third = simulation.run(count(simulation.machine(), Arc::clone(&counted)));
                assert!(matches!(third, Ok(Ended::Returned(Ok(3..=9)))), "{third:?}");
                if is_over {
                    break;
                }
                at += 1;
            }
            assert!(at > 10, "there are several places: {at}");
        }
    }
}

#[test]
fn the_tasks_of_a_process_end_with_it() {
    let mut simulation = Simulation::new(1);
    let alive = Arc::new(());
    let machine = simulation.machine();
    let held = Arc::clone(&alive);
    simulation.crash_at_step(30, Crash::Process);
    let crashed = simulation.run(async move {
        let own = machine.clone();
        let _ticker = machine.spawn("ticker", async move {
            loop {
                own.sleep(SECOND).await;
                let _held = &held;
            }
        });
        std::future::pending::<()>().await;
    });
    assert_eq!(crashed.expect("it crashes"), Ended::Crashed { returned: None });
    assert_eq!(Arc::strong_count(&alive), 1);
    assert_eq!(simulation.run(async { 5 }).expect("it runs"), Ended::Returned(5));
}

#[test]
fn a_process_that_crashes_as_its_databases_close_has_returned() {
    let (mut closing, mut at) = (0, 1);
    loop {
        let mut simulation = Simulation::new(at);
        simulation.crash_at_call(at, Crash::Process);
        match simulation.run(count(simulation.machine(), Arc::default())).expect("it does not hang") {
            Ended::Crashed { returned: Some(Ok(3)) } => closing += 1,
            Ended::Crashed { .. } => {}
            Ended::Returned(counted) => {
                assert_eq!(counted, Ok(3));
                break;
            }
        }
        at += 1;
    }
    assert!(closing > 0, "none of {at} calls is one of closing");
}

/// Two detached tasks. The first fails after two seconds, the second never does.
async fn with_failing_task(machine: Machine) {
    let own = machine.clone();
    machine.spawn_detached("client", async move {
        own.sleep(2 * SECOND).await;
        Err::<(), _>("out of apples")
    });
    machine.spawn_detached("quiet", async { Ok::<_, FluxError>(7) });
    machine.sleep(3 * SECOND).await;
}

#[test]
fn the_error_of_a_detached_task_is_kept_until_the_next_life() {
    let mut simulation = Simulation::new(1);
    let main = with_failing_task(simulation.machine());
    assert_eq!(simulation.run(main).expect("it ends"), Ended::Returned(()));
    let [failed] = &simulation.failed()[..] else { panic!("one task fails: {:?}", simulation.failed()) };
    assert_eq!(failed.to_string(), "client: out of apples");
    assert_eq!(failed.spawned.file(), file!());
    assert!(simulation.trace().contains(&"client failed: out of apples".to_owned()));

    let main = with_failing_task(simulation.machine());
    let stuck = simulation.run(async move {
        main.await;
        std::future::pending::<()>().await;
    });
    let stuck = stuck.expect_err("it cannot end");
    assert_eq!(stuck.failed.len(), 1, "the one of this life");
    assert!(stuck.to_string().contains(") has ended with an error: out of apples"), "{stuck}");

    assert_eq!(simulation.run(async {}).expect("it ends"), Ended::Returned(()));
    assert_eq!(simulation.failed(), []);
}

#[test]
fn errors_that_follow_from_a_crash_are_no_failures_of_tasks() {
    // Each task opens a database, which fails at the call at which the machine crashes.
    let mut crashes = 0;
    for call in 1..20 {
        let mut simulation = Simulation::new(call);
        simulation.crash_at_call(call, Crash::Process);
        let machine = simulation.machine();
        let ended = simulation.run(async move {
            let own = machine.clone();
            machine.spawn_detached("early", async { Err::<(), _>("an error of its own") });
            machine.sleep(SECOND).await;
            machine.spawn_detached("opening", async move { open(&own).await });
            machine.sleep(SECOND).await;
        });
        crashes += u64::from(matches!(ended, Ok(Ended::Crashed { .. })));
        let failed: Vec<_> = simulation.failed().into_iter().map(|failed| failed.name).collect();
        assert_eq!(failed, ["early"], "a crash at call {call}");
    }
    assert!(crashes > 3, "{crashes} crashes");
}

#[test]
fn a_panic_in_a_task_is_one_of_the_test() {
    let mut simulation = Simulation::new(1);
    let machine = simulation.machine();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        simulation.run(async move {
            machine.spawn("failing", async { panic!("an assertion") }).await;
        })
    }));
    let message = *panicked.expect_err("it panics").downcast::<&str>().expect("a message");
    assert_eq!(message, "an assertion");
}
