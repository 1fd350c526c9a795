use super::*;
use fluxmap::db::{Buildable, DatabaseBuilder};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A century, the length of virtual time.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[test]
fn a_stall_that_would_hang_the_simulation_is_refused() {
    let mut simulation = Simulation::new(1);
    let before = simulation.machine().disk();
    simulation.crash_at_step(1, Crash::Power(Loss::Everything));
    simulation.run(std::future::pending::<()>()).expect("it crashes");
    for disk in [before, simulation.machine().disk()] {
        let refused = catch_unwind(AssertUnwindSafe(|| disk.stall(true)));
        let message = *refused.expect_err("it is refused").downcast::<&str>().expect("a message");
        assert!(message.contains("`Simulation::stall_one_in`"), "{message}");
        disk.stall(false);
        // A copy is not part of the simulation.
        disk.deep_clone().stall(true);
    }
    let main = count(simulation.machine(), Arc::default());
    assert_eq!(simulation.run(main).expect("the refusal stalls nothing"), Ended::Returned(Ok(3)));
}

#[test]
fn commits_to_a_slow_disk_take_virtual_time() {
    let elapsed = |stalls| {
        let mut simulation = Simulation::new(1);
        simulation.stall_one_in(stalls);
        let machine = simulation.machine();
        let main = async move {
            let own = machine.clone();
            let _ticker = machine.spawn("ticker", async move {
                loop {
                    own.sleep(SECOND / 10).await;
                }
            });
            let db = open(&machine).await?;
            for n in 0..10 {
                db.insert(n, n).await?;
            }
            Ok::<_, FluxError>(machine.now())
        };
        let Ok(Ended::Returned(Ok(elapsed))) = simulation.run(main) else { panic!("it returns") };
        elapsed
    };
    assert_eq!(elapsed(0), Duration::ZERO);
    assert!(elapsed(5) > SECOND / 2, "{:?}", elapsed(5));
}

/// The example of the README. `open` chooses the durability. Returns whether all promises were kept.
async fn process(
    machine: Machine,
    open: fn(&Machine) -> DatabaseBuilder<u64, u64, Buildable>,
    promised: Arc<Mutex<u64>>,
) -> Result<bool, FluxError> {
    let db = open(&machine).build().await?;
    let found = db.get(&0)?.map_or(0, |n| *n);
    let known = *promised.lock().expect("no panic");
    if found < known {
        return Ok(false);
    }
    for n in found + 1..=found + 5 {
        db.insert(0, n).await?;
        *promised.lock().expect("no panic") = n;
        machine.sleep(SECOND).await;
    }
    Ok(true)
}

/// The number of seeds that find a lost promise.
fn losses(open: fn(&Machine) -> DatabaseBuilder<u64, u64, Buildable>) -> usize {
    let is_lost = |seed: &u64| {
        let mut simulation = Simulation::new(*seed);
        simulation.stall_one_in(10);
        let promised = Arc::default();
        (1..=4).any(|life| {
            if life < 4 {
                simulation.crash_within(60);
            }
            let main = process(simulation.machine(), open, Arc::clone(&promised));
            match simulation.run(main).expect("it does not hang") {
                Ended::Returned(kept) => !kept.expect("it has no reason to fail"),
                Ended::Crashed { .. } => false,
            }
        })
    };
    (0..20).filter(is_lost).count()
}

#[test]
fn the_example_of_the_readme_finds_a_promise_that_is_lost() {
    assert_eq!(losses(|machine| machine.database("db")), 0);
    let found = losses(|machine| machine.relaxed_database("db").flush_interval(3 * SECOND));
    assert!(found > 5, "{found} of 20 seeds");
}

#[test]
fn a_database_of_the_machine_is_on_its_disk() {
    let mut simulation = Simulation::new(1);
    let main = count(simulation.machine(), Arc::default());
    simulation.run(main).expect("it ends");
    let files = simulation.machine().disk().files();
    assert!(files.keys().any(|path| path.starts_with("db")), "{files:?}");
    assert!(!std::path::Path::new("db").exists());
}

#[test]
fn the_limits_of_the_disk_outlast_a_return_but_not_a_crash() {
    let mut simulation = Simulation::new(1);
    let disk = simulation.machine().disk();
    disk.set_capacity(10);
    simulation.run(async {}).expect("it ends");
    let refused = simulation.run(count(simulation.machine(), Arc::default())).expect("it ends");
    assert!(matches!(refused, Ended::Returned(Err(_))), "{refused:?}");
    let calls = disk.calls();
    simulation.crash_at_step(1, Crash::Process);
    simulation.run(std::future::pending::<()>()).expect("it crashes");
    let main = count(simulation.machine(), Arc::default());
    assert_eq!(simulation.run(main).expect("it ends"), Ended::Returned(Ok(3)));
    // The old handle has stayed with the old disk.
    assert!(calls > 0 && disk.calls() == calls);
    assert!(simulation.machine().disk().calls() > 0);
}

/// Draws in two tasks. Returns the numbers and the trace without them.
fn drawn(seed: u64, times: usize) -> (Vec<u64>, Vec<String>, usize) {
    let mut simulation = Simulation::new(seed);
    let machine = simulation.machine();
    let main = async move {
        let own = machine.clone();
        let task = machine.spawn("drawing", async move {
            crate::polling::yield_once().await;
            (0..times).map(|_| own.random()).collect::<Vec<_>>()
        });
        let mut numbers = vec![machine.choose(10), machine.choose(0)];
        numbers.extend(task.await);
        numbers
    };
    let Ok(Ended::Returned(numbers)) = simulation.run(main) else { panic!("it returns") };
    let (draws, steps): (Vec<_>, Vec<_>) =
        simulation.trace().into_iter().partition(|step| step.contains(" drew "));
    assert!(draws.contains(&format!("main drew {}", numbers[0])), "{draws:?}");
    assert!(times == 0 || draws.contains(&format!("drawing drew {}", numbers[2])), "{draws:?}");
    (numbers, steps, draws.len())
}

#[test]
fn random_numbers_follow_from_the_seed_and_leave_the_order_of_tasks_alone() {
    let (numbers, steps, draws) = drawn(1, 3);
    assert_eq!(drawn(1, 3), (numbers.clone(), steps.clone(), draws));
    assert_eq!(draws, 5);
    assert!(numbers[0] < 10 && numbers[1] == 0);
    assert_eq!(drawn(1, 0).1, steps, "the same order, without numbers");
    let others: BTreeSet<_> = (0..20).map(|seed| drawn(seed, 3).0).collect();
    assert_eq!(others.len(), 20);
}

#[test]
fn a_sleep_of_any_length_ends_with_virtual_time() {
    let mut simulation = Simulation::new(1);
    let machine = simulation.machine();
    let slept = simulation.run(async move {
        machine.sleep(Duration::MAX).await;
        machine.sleep(Duration::ZERO).await;
        machine.now()
    });
    assert_eq!(slept.expect("it ends"), Ended::Returned(CENTURY));
}

#[test]
fn nothing_goes_on_after_the_end_of_virtual_time() {
    let mut simulation = Simulation::new(1);
    simulation.stall_one_in(10);
    let machine = simulation.machine();
    let stuck = simulation.run(async move {
        // A flush that is due after the end of time.
        let builder = machine.relaxed_database::<u64, u64>("db").flush_interval(200 * CENTURY);
        let db = builder.build().await?;
        db.insert(1, 1).await?;
        loop {
            machine.sleep(CENTURY / 4).await;
        }
        #[allow(unreachable_code)]
        Ok::<(), FluxError>(())
    });
    let stuck = stuck.expect_err("it cannot end");
    assert_eq!((stuck.why, stuck.now), (Why::NothingGoesOn, CENTURY));
    assert_eq!(stuck.tasks[0].label, "waits for a later time, but virtual time has ended");
    assert!(stuck.step < 100, "{stuck}");
}
