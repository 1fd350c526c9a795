//! Real processes that are killed at any instant. A child, which is this program again, commits
//! from several threads and reports over a pipe which commits have returned. After it has been
//! killed, its files are opened and compared with its reports. All rounds work on the same
//! directory, at both durability levels and with segments of several sizes.
//!
//! `scripts/power-cut.sh` runs the same child and the same check around the loss of a whole file
//! system.

#[path = "behaviour/common/mod.rs"]
mod common;

use common::report;
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError};
use fluxmap_testkit::workload::{Seed, scaled};
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use std::{env, fs, thread};

type Db = Database<Key, String>;

/// Commit `n` of a thread of a round writes three keys and increments the counter. Every tenth
/// commit also removes the keys of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
enum Key {
    Counter,
    Part { writer: Writer, n: u32, part: u8 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
struct Writer {
    round: u32,
    thread: u8,
}

const THREADS: u8 = 4;
/// A child that is not killed ends after this many commits of each thread.
const COMMITS: u32 = 2000;
const PARTS: u8 = 3;
/// The children that are killed in one directory. `FLUXMAP_SCALE` multiplies the directories.
const KILLS: u32 = 60;
/// The variable that makes this program a child: `round,level,segment size,pool size,directory`.
const CHILD: &str = "FLUXMAP_KILL_CHILD";
/// The variable that asks for the check of a directory: `level,directory`, with acknowledgements on
/// stdin.
const CHECK: &str = "FLUXMAP_KILL_CHECK";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Full,
    Relaxed,
}

/// The settings with which a database is opened.
#[derive(Clone, Copy, Debug)]
struct Settings {
    level: Level,
    segment_size: u64,
    pool_size: usize,
}

impl Settings {
    fn open(self, path: &Path) -> Result<Db, FluxError> {
        let options = PersistenceOptions {
            wal_pool_size: self.pool_size,
            wal_segment_size_bytes: self.segment_size,
            ..PersistenceOptions::new(path.to_owned())
        };
        let builder = Database::builder().type_names("kill::Key", "String");
        block_on(async {
            match self.level {
                Level::Full => builder.durability_full(options).build().await,
                Level::Relaxed => {
                    let builder = builder.durability_relaxed(options).flush_after_commits(200);
                    builder.flush_interval(Duration::from_millis(20)).build().await
                }
            }
        })
    }
}

fn value(writer: Writer, n: u32, part: u8) -> String {
    let length = (n as usize * 37 + usize::from(part) * 11) % 400;
    format!("{writer:?} {n} {part} {}", "v".repeat(length))
}

/// The number of the commit whose keys commit `n` removes.
fn removed_by(n: u32) -> Option<u32> {
    (n % 10 == 9).then(|| n - 5)
}

async fn commit(db: &Db, writer: Writer, n: u32) -> Result<(), FluxError> {
    db.transact(async |tx| {
        let count: u64 = tx.get(&Key::Counter)?.map_or(0, |count| count.parse().expect("a number"));
        tx.insert(Key::Counter, (count + 1).to_string())?;
        for part in 0..PARTS {
            tx.insert(Key::Part { writer, n, part }, value(writer, n, part))?;
            if let Some(old) = removed_by(n) {
                tx.remove(&Key::Part { writer, n: old, part })?;
            }
        }
        Ok(())
    })
    .await
}

/// The child's work. Does nothing when this runs as an ordinary test.
#[test]
fn child() {
    let Ok(asked) = env::var(CHILD) else { return };
    let mut fields = asked.splitn(5, ',');
    let mut field = || fields.next().expect("five fields");
    let round = field().parse().expect("a number");
    let level = if field() == "full" { Level::Full } else { Level::Relaxed };
    let segment_size = field().parse().expect("a number");
    let pool_size = field().parse().expect("a number");
    let settings = Settings { level, segment_size, pool_size };
    let db = settings.open(Path::new(field())).expect("the child can open it");
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let db = &db;
            scope.spawn(move || {
                for n in 0..COMMITS {
                    block_on(commit(db, Writer { round, thread }, n)).expect("a commit succeeds");
                    // Write the acknowledgement in one call, and on a line of its own, because the
                    // test harness prints to the same pipe.
                    let line = format!("\nack {round} {thread} {n}\n");
                    std::io::stdout().write_all(line.as_bytes()).expect("the pipe is open");
                }
            });
        }
    });
}

/// The last commit of each writer that has returned.
type Acks = BTreeMap<Writer, u32>;

fn parse_ack(line: &str) -> Option<(Writer, u32)> {
    // A line that the kill has cut off does not count.
    let mut numbers = line.strip_suffix('\n')?.strip_prefix("ack ")?.split(' ');
    let (round, thread) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some((Writer { round, thread }, numbers.next()?.parse().ok()?))
}

/// Opens the database and compares its whole content with the children's reports. Returns the last
/// commit that is there of each writer. With `survive`, all acknowledged commits must be there.
fn check(settings: Settings, path: &Path, acks: &Acks, survive: bool, what: &str) -> Acks {
    let db = settings.open(path).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut found: BTreeMap<Writer, BTreeMap<u32, u8>> = BTreeMap::new();
    let mut counter = 0;
    for (key, text) in db.snapshot().range(..) {
        match key {
            Key::Counter => counter = text.parse().expect("a number"),
            Key::Part { writer, n, part } => {
                assert_eq!(*text, value(writer, n, part), "{what}");
                *found.entry(writer).or_default().entry(n).or_default() += 1;
            }
        }
    }
    let mut last_of = Acks::new();
    for (writer, commits) in &found {
        let last = *commits.keys().next_back().expect("it has some");
        let removed: Vec<u32> = (0..=last).filter_map(removed_by).collect();
        let there: BTreeMap<u32, u8> =
            (0..=last).filter(|n| !removed.contains(n)).map(|n| (n, PARTS)).collect();
        assert_eq!(*commits, there, "{what}: {writer:?} is not whole up to {last}");
        last_of.insert(*writer, last);
    }
    let commits: u64 = last_of.values().map(|last| u64::from(*last) + 1).sum();
    assert_eq!(counter, commits, "{what}: commits and their count do not agree");
    for (writer, acknowledged) in acks.iter().filter(|_| survive) {
        let last = last_of.get(writer).copied();
        assert!(last >= Some(*acknowledged), "{what}: {writer:?} lost {acknowledged}, has {last:?}");
    }
    last_of
}

/// The check alone, for a script. Does nothing when this runs as an ordinary test.
#[test]
fn check_directory() {
    let Ok(asked) = env::var(CHECK) else { return };
    let (level, path) = asked.split_once(',').expect("two fields");
    let level = if level == "full" { Level::Full } else { Level::Relaxed };
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("acknowledgements");
    // Lines that the power cut has mangled do not count.
    let acks: Acks = text.split_inclusive('\n').filter_map(parse_ack).collect();
    let settings = Settings { level, segment_size: 4096, pool_size: 2 };
    let found = check(settings, Path::new(path), &acks, level == Level::Full, "after the cut");
    let sum = |acks: &Acks| acks.values().map(|last| u64::from(*last) + 1).sum::<u64>();
    report(&format!("check: {} commits acknowledged, {} there", sum(&acks), sum(&found)));
}

/// Starts a child, under the program `under` (strace, say) if one is given.
fn spawn(under: &[String], settings: Settings, round: u32, path: &Path) -> Child {
    let program = env::current_exe().expect("the path of this program");
    let mut words = under.to_vec();
    words.push(program.display().to_string());
    words.extend(["child", "--exact", "--nocapture", "--test-threads=1"].map(String::from));
    let level = if settings.level == Level::Full { "full" } else { "relaxed" };
    let Settings { segment_size, pool_size, .. } = settings;
    Command::new(&words[0])
        .args(&words[1..])
        .env(CHILD, format!("{round},{level},{segment_size},{pool_size},{}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child starts")
}

/// Reads a child's acknowledgements to the end, and signals each as it comes.
fn listen(child: &mut Child) -> (Receiver<()>, thread::JoinHandle<Acks>) {
    let stdout = child.stdout.take().expect("it is piped");
    let (heard, hear) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut acks = Acks::new();
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        while lines.read_line(&mut line).expect("the pipe can be read") > 0 {
            if let Some((writer, n)) = parse_ack(&line) {
                acks.insert(writer, n);
                // Nothing receives the signal once the child has been killed.
                let _ = heard.send(());
            }
            line.clear();
        }
        acks
    });
    (hear, reader)
}

/// The rounds on one directory.
struct Rounds {
    path: std::path::PathBuf,
    acks: Acks,
    /// The commits that were there after the last round.
    found: Acks,
    rng: StdRng,
}

impl Rounds {
    /// Lets a child write until `end` ends it, and checks everything.
    fn run(
        &mut self,
        round: u32,
        settings: Settings,
        under: &[String],
        end: impl FnOnce(&mut Child, Receiver<()>),
    ) {
        let mut child = spawn(under, settings, round, &self.path);
        let (hear, reader) = listen(&mut child);
        end(&mut child, hear);
        child.wait().expect("it has ended");
        let acks = reader.join().expect("the pipe has ended");
        let what = format!("round {round}, {settings:?}");
        for (writer, last) in &acks {
            assert_eq!(writer.round, round, "{what}: {last}");
        }
        self.acks.extend(&acks);
        let times = if round.is_multiple_of(5) { 3 } else { 1 };
        for time in 0..times {
            let found = check(settings, &self.path, &self.acks, true, &what);
            for (writer, last) in &found {
                let most = match writer.round == round && time == 0 {
                    // One commit may have been in progress.
                    true => acks.get(writer).map_or(0, |acknowledged| acknowledged + 1),
                    false => self.found[writer],
                };
                assert!(*last <= most, "{what}: {writer:?} has {last}, and at most {most} were begun");
            }
            self.found = found;
        }
    }
}

fn settings_of(round: u32) -> Settings {
    let level = if round.is_multiple_of(2) { Level::Full } else { Level::Relaxed };
    let (segment_size, pool_size) =
        [(4096, 1), (4096, 3), (64 << 10, 2), (16 << 20, 4)][round as usize / 2 % 4];
    Settings { level, segment_size, pool_size }
}

#[test]
fn killed_at_random_instants() {
    let seed = Seed::from_env();
    report(&format!("kill: {seed}"));
    for run in 0..scaled(1) {
        kill_at_random_instants(seed.rng(run));
    }
}

/// One directory, on which [`KILLS`] children work in turn.
fn kill_at_random_instants(rng: StdRng) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    let mut rounds = Rounds { path, acks: Acks::new(), found: Acks::new(), rng };
    for round in 0..KILLS {
        // Every seventh child is killed about when it opens the database.
        let least = if round % 7 == 3 { 0 } else { rounds.rng.random_range(1..100) };
        let delay = Duration::from_micros(rounds.rng.random_range(0..3000));
        rounds.run(round, settings_of(round), &[], |child, hear| {
            for _ in 0..least {
                if hear.recv().is_err() {
                    break;
                }
            }
            // Sleep only to reach a random instant; the test waits for nothing here.
            thread::sleep(delay);
            child.kill().expect("it can be killed");
        });
    }
    let sum = |acks: &Acks| acks.values().map(|last| u64::from(*last) + 1).sum::<u64>();
    let (acknowledged, there) = (sum(&rounds.acks), sum(&rounds.found));
    report(&format!("kill: {KILLS} rounds, {acknowledged} commits acknowledged, {there} recovered, 0 lost"));
    assert!(acknowledged > u64::from(KILLS) * 10, "the children got something done");
}

/// Kills a child at its `n`-th system call of a kind.
#[test]
fn killed_at_system_calls() {
    let works = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        report("kill: SKIPPED the rounds under strace, which is not there or may not trace");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    let mut rounds = Rounds { path, acks: Acks::new(), found: Acks::new(), rng: StdRng::seed_from_u64(1) };
    // `unlink` is left out, because segments are recycled, and none is removed in so short a life.
    let calls = ["pwrite64", "fdatasync", "rename", "fsync", "openat"];
    let mut killed = 0;
    let all = 15;
    for round in 0..all {
        let call = calls[round as usize % calls.len()];
        let n = if call == "openat" { 12 } else { 1 } + round / calls.len() as u32 * 4;
        let inject = format!("inject={call}:signal=SIGKILL:when={n}");
        let trace = format!("trace={call}");
        let under = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(String::from);
        // Use the smallest segments, so that the child renames often.
        let settings = Settings { segment_size: 4096, pool_size: 2, ..settings_of(round) };
        rounds.run(round, settings, &under, |child, _hear| {
            let status = child.wait().expect("it ends");
            killed += u32::from(!status.success());
        });
    }
    report(&format!("kill: {all} rounds under strace, {killed} killed at a system call"));
    assert!(killed >= all / 2, "strace kills");
    fs::metadata(&rounds.path).expect("the database is still there");
}
