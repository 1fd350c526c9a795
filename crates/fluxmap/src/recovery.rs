//! Opening a durable database: the newest checkpoint, then the log after it, through
//! the same function that applies commits.
//!
//! Everything is read and checked before anything on disk is changed. What a crash may
//! leave is one of these, by the order in which files are made and replaced:
//!
//! - a checkpoint, the segment in which the log goes on, and those after it;
//! - segments before that one, which are needed no more;
//! - drafts, which are worth nothing;
//! - of a database whose creation was interrupted, the first segment alone, empty.

use crate::checkpoint::{self, Pairs, Reader};
use crate::codec::{CodecError, Coder};
use crate::commit::Committer;
use crate::disk::OpenMode;
use crate::error::PersistenceError;
use crate::key::{Key, Value};
use crate::persistence::RecoveryInfo;
use crate::sync::{mpsc, thread};
use crate::txn::write_set::{Put, Write};
use crate::wal::Writer;
use crate::wal::directory::{
    CHECKPOINT, CHECKPOINT_DRAFT, Directory, NamedFile, SEGMENT_DRAFT, segment_name,
};
use crate::wal::format::{FileKind, Identity, Lsn, Operation, Position, operations};
use crate::wal::limits::LogSize;
use crate::wal::pool::{Covered, Found, Pool};
use crate::wal::reader::{FrameAt, SegmentReader, Tail, replay};
use crate::wal::segment::{self, Segment};
use fluxmap_index::{Time, Timestamp};
use std::cmp::Ordering;
use std::mem;
use std::sync::Arc;

type Result<T> = std::result::Result<T, PersistenceError>;

/// What the files are to be like.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) directory: Directory,
    /// All but the number of the database, which is in the files.
    pub(crate) identity: Identity,
    pub(crate) log_size: LogSize,
    /// Whether types whose fields are not those that the files were written with are refused.
    pub(crate) check_fields: bool,
}

/// A log that is ready to be written to.
pub(crate) struct Recovered {
    pub(crate) identity: Identity,
    pub(crate) pool: Pool,
    pub(crate) writer: Writer,
    pub(crate) info: RecoveryInfo,
}

/// The first segment of a new database.
const FIRST_SEGMENT: u64 = 1;

/// Reads what is on disk into `committer`, which must be empty, or creates the files. Keys
/// that a memory limit has no room for are added to `gone`.
#[tracing::instrument(name = "recovery", skip_all, fields(path = %files.directory.path().display()))]
pub(crate) fn recover<K: Key, V: Value>(
    files: &Files,
    coder: &Coder<K, V>,
    committer: &Committer<K, V>,
    gone: &mut Vec<K>,
) -> Result<Recovered> {
    let started = committer.host.now();
    let directory = &files.directory;
    let mut info = RecoveryInfo::default();
    let (identity, log_segment) = match Reader::open(directory)? {
        Some(mut checkpoint) => {
            let (found, path) = (&checkpoint.header.identity, checkpoint.file().path());
            files.identity.expect(found, path)?;
            if files.check_fields {
                files.identity.expect_shapes(found, path)?;
            }
            let header = checkpoint.header.clone();
            committer.hand.resume(header.time);
            load_checkpoint(&mut checkpoint, coder, committer, gone, &mut info)?;
            // What is written from now on is written with these.
            let shapes = files.identity.shapes.clone();
            (Identity { shapes, ..header.identity }, header.detail)
        }
        None => {
            check_nothing_is_lost(directory)?;
            (create(files)?, FIRST_SEGMENT)
        }
    };
    info.created = info.checkpoint_bytes == 0;
    let tail = load_log(directory, &identity, log_segment, coder, committer, gone, &mut info)?;
    committer.keep_limit(true, gone);
    committer.host.stir(tail.salt ^ tail.last);
    info.torn_tail = tail.torn_tail(directory);
    let (pool, writer) = go_on(files, tail, info.checkpoint_bytes)?;
    info.duration = committer.host.now().saturating_duration_since(started);
    tracing::info!(?info, "recovered");
    Ok(Recovered { identity, pool, writer, info })
}

/// There is no checkpoint. Refuses anything but an empty directory and one in which a
/// database was just being created.
pub(crate) fn check_nothing_is_lost(directory: &Directory) -> Result<()> {
    let why = "there are segments of a log that was not its beginning, or that has commits";
    let missing = || Err(PersistenceError::Missing { path: directory.path_of(CHECKPOINT), why });
    for number in directory.segments()? {
        if number != FIRST_SEGMENT || !SegmentReader::open(directory, number)?.is_empty()? {
            return missing();
        }
    }
    Ok(())
}

/// Creates the files of a new database: the first segment, then an empty checkpoint.
fn create(files: &Files) -> Result<Identity> {
    struct Nothing;

    impl Pairs for Nothing {
        fn timestamp(&self) -> Lsn {
            0
        }

        fn time(&self) -> Time {
            0
        }

        fn fill(&mut self, _block: &mut Vec<u8>) -> Result<u32> {
            Ok(0)
        }
    }

    let identity = Identity { database: files.directory.random(), ..files.identity.clone() };
    let size = files.log_size.bounds(0).first_segment();
    segment::make(&files.directory, &identity, FIRST_SEGMENT, size, None)?;
    checkpoint::write_draft(&files.directory, &identity, &mut Nothing, FIRST_SEGMENT, |_| ())?;
    checkpoint::publish_draft(&files.directory)?;
    Ok(identity)
}

/// What some commits have written up to one of them, decoded: each key once.
type Decoded<K, V> = (Timestamp, Vec<(K, Write<V>)>);

/// Operations of the log that are gathered and sorted before they are applied. In order,
/// they find the way through the index warm: a million keys in the order of the log took
/// three times as long, in batches of a quarter of this a tenth longer.
const BATCH: usize = 1 << 18;
/// Bytes of the log that are gathered at most: of large values, fewer are worth sorting.
const BATCH_BYTES: usize = 16 << 20;
/// The part of a memory limit that such a batch may be.
const BATCH_SHARE: u64 = 16;
/// Batches that may wait to be applied.
const BATCHES_AHEAD: usize = 1;
/// Operations that are applied in one step.
const STEP: usize = 256;

/// Takes what was decoded.
type Sink<'s, K, V> = &'s mut dyn FnMut(Decoded<K, V>) -> Result<()>;

/// Reads and decodes on one thread, and applies on another, which is about as much
/// work; or does it in turn, if there are no threads.
fn pipeline<K: Key, V: Value, R: Send>(
    committer: &Committer<K, V>,
    gone: &mut Vec<K>,
    decode: impl FnOnce(Sink<'_, K, V>) -> Result<R> + Send,
) -> Result<R> {
    let mut apply = |(timestamp, writes): Decoded<K, V>| {
        let mut writes = writes.into_iter();
        while writes.len() > 0 {
            committer.restore(timestamp, writes.by_ref().take(STEP));
        }
        committer.keep_limit(false, gone);
    };
    if committer.host.is_driven() {
        return decode(&mut |batch| {
            apply(batch);
            Ok(())
        });
    }
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(BATCHES_AHEAD);
        let decoder = scope.spawn(move || decode(&mut |batch| sender.send(batch).map_err(hung_up)));
        receiver.into_iter().for_each(&mut apply);
        // A panic of the types' own code goes on where the database is opened.
        decoder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The other side has gone, which it does by panicking only.
fn hung_up<T>(_: T) -> PersistenceError {
    PersistenceError::Unavailable("applying what was read has panicked".into())
}

fn load_checkpoint<K: Key, V: Value>(
    checkpoint: &mut Reader,
    coder: &Coder<K, V>,
    committer: &Committer<K, V>,
    gone: &mut Vec<K>,
    info: &mut RecoveryInfo,
) -> Result<()> {
    let covered = checkpoint.header.number;
    pipeline(committer, gone, |send| {
        let path = checkpoint.file().path().to_owned();
        while let Some(block) = checkpoint.next_block()? {
            let at = FrameAt { path: &path, offset: block.offset };
            let decode = Decoder { coder, at };
            let mut writes = Vec::new();
            for pair in block.pairs() {
                let pair = pair.map_err(|_| at.damaged("the pairs in it make no sense"))?;
                writes.push((decode.key(pair.key)?, Some(decode.put(pair.value, pair.expires)?)));
            }
            send((covered, writes))?;
        }
        Ok(())
    })?;
    committer.settle(covered);
    info.checkpoint_commit = covered;
    info.checkpoint_pairs = checkpoint.pairs();
    info.checkpoint_bytes = checkpoint.length();
    info.last_commit = covered;
    Ok(())
}

fn load_log<K: Key, V: Value>(
    directory: &Directory,
    identity: &Identity,
    first: u64,
    coder: &Coder<K, V>,
    committer: &Committer<K, V>,
    gone: &mut Vec<K>,
    info: &mut RecoveryInfo,
) -> Result<Tail> {
    let covered = info.checkpoint_commit;
    let share = committer.limit().map_or(u64::MAX, |limit| limit / BATCH_SHARE);
    let batch_bytes = share.min(BATCH_BYTES as u64);
    let tail = pipeline(committer, gone, |send| {
        let (mut writes, mut bytes) = (Vec::new(), 0);
        let tail = replay(directory, identity, first, covered, |lsn, commit, at| {
            let decode = Decoder { coder, at };
            for operation in operations(commit) {
                writes.push(
                    match operation.map_err(|_| at.damaged("an operation in it makes no sense"))? {
                        Operation::Put { key, value, expires } => {
                            (decode.key(key)?, Some(decode.put(value, expires)?))
                        }
                        Operation::Delete { key } => (decode.key(key)?, None),
                    },
                );
            }
            bytes += commit.len() as u64;
            if writes.len() >= BATCH || bytes >= batch_bytes {
                bytes = 0;
                send((lsn, last_of_each(mem::take(&mut writes))))?;
            }
            Ok(())
        })?;
        send((tail.last, last_of_each(writes)))?;
        Ok(tail)
    })?;
    committer.settle(tail.last);
    info.records = tail.commits;
    info.bytes = tail.bytes;
    info.last_commit = tail.last;
    Ok(tail)
}

/// The last write to each key, in the order of the keys.
fn last_of_each<K: Key, V>(mut writes: Vec<(K, Write<V>)>) -> Vec<(K, Write<V>)> {
    // Later ones first; the sort keeps that for equal keys.
    writes.reverse();
    writes.sort_by(|one, other| one.0.cmp(&other.0));
    writes.dedup_by(|later, earlier| later.0 == earlier.0);
    writes
}

/// Decodes what stands in one frame or block.
struct Decoder<'d, K, V> {
    coder: &'d Coder<K, V>,
    at: FrameAt<'d>,
}

impl<K: Key, V: Value> Decoder<'_, K, V> {
    fn key(&self, bytes: &[u8]) -> Result<K> {
        self.coder.decode_key(bytes).map_err(|source| self.undecodable("key", source))
    }

    fn put(&self, value: &[u8], expires: Time) -> Result<Put<V>> {
        let value = self.coder.decode_value(value).map_err(|source| self.undecodable("value", source))?;
        Ok(Put { value: Arc::new(value), expires })
    }

    fn undecodable(&self, what: &'static str, source: CodecError) -> PersistenceError {
        let source = Box::new(source);
        let FrameAt { path, offset } = self.at;
        PersistenceError::Undecodable { what, path: path.to_owned(), offset, source }
    }
}

/// Cuts off what is torn, clears away what is not needed, and opens the end of the log, behind
/// a checkpoint of so many bytes.
fn go_on(files: &Files, tail: Tail, checkpoint: u64) -> Result<(Pool, Writer)> {
    let directory = &files.directory;
    let Tail { position, last, .. } = tail;
    let unmarked = tail.synced < position && position.offset > tail.start;
    directory.sync()?;
    for ended in &tail.ended {
        let file = directory.open(&segment_name(ended.number), OpenMode::Write)?;
        make_durable(&file, Position { segment: ended.number, offset: file.len()? }, tail.synced)?;
    }
    let name = segment_name(position.segment);
    let file = Arc::new(directory.open(&name, OpenMode::Write)?);
    make_durable(&file, position, tail.synced)?;
    // What comes after a torn tail goes first, newest first: whatever of this a crash
    // interrupts, the log breaks at the same place.
    let ready = match tail.later[..] {
        [next] if !tail.torn => Some(next),
        _ => None,
    };
    for number in tail.later.iter().rev().filter(|number| Some(**number) != ready) {
        directory.remove(&segment_name(*number))?;
        directory.sync()?;
    }
    if tail.torn {
        // Else a frame that was cut off could come to follow a new one, and count.
        file.write_zeros(position.offset..tail.size)?;
        file.sync()?;
    }
    let names = directory.names()?;
    for draft in [CHECKPOINT_DRAFT, SEGMENT_DRAFT] {
        if names.iter().any(|name| name == draft) {
            directory.remove(draft)?;
        }
    }
    // Segments that the checkpoint covers.
    let oldest = tail.ended.first().map_or(position.segment, |ended| ended.number);
    let mut covered = Vec::new();
    for number in directory.segments()?.into_iter().filter(|number| *number < oldest) {
        let size = directory.open(&segment_name(number), OpenMode::Read)?.len()?;
        covered.push(Covered { number, size });
    }
    let ready = ready.map(|number| open_ready(directory, number)).transpose()?;
    let Tail { start, salt, size, .. } = tail;
    let active = Segment { number: position.segment, salt, start, size, file };
    let found =
        Found { ended: tail.ended.into(), active: (position.segment, size), ready, covered, checkpoint };
    let (pool, surplus) = Pool::new(files.log_size, found);
    for number in surplus {
        directory.remove(&segment_name(number))?;
    }
    Ok((pool, Writer::new(active, position.offset, last, unmarked)))
}

/// Makes sure that a segment is durable up to `end`. What was read may be in the page
/// cache only, if a process was killed; and syncing that is not enough if a sync of it
/// has failed before, because its pages count as clean then. So it is written again.
fn make_durable(file: &NamedFile, end: Position, synced: Position) -> Result<()> {
    let start = match synced.segment.cmp(&end.segment) {
        Ordering::Less => 0,
        Ordering::Equal => synced.offset,
        Ordering::Greater => return Ok(()),
    };
    let mut piece = vec![0; REWRITTEN_AT_ONCE.min(end.offset.saturating_sub(start) as usize)];
    let mut at = start;
    while at < end.offset {
        let length = piece.len().min((end.offset - at) as usize);
        let filled = file.read_at(&mut piece[..length], at)?;
        if filled == 0 {
            break;
        }
        file.write_at(&piece[..filled], at)?;
        at += filled as u64;
    }
    file.sync()
}

/// Bytes of a segment that are written again at once.
const REWRITTEN_AT_ONCE: usize = 1 << 20;

/// A segment that had been made ready, with nothing in it.
fn open_ready(directory: &Directory, number: u64) -> Result<Segment> {
    let file = directory.open(&segment_name(number), OpenMode::Write)?;
    // All of it has been looked at before.
    let (header, start) = file.read_header(FileKind::Segment)?;
    let size = file.len()?;
    Ok(Segment { number, salt: header.salt, start: start as u64, size, file: Arc::new(file) })
}
