//! Opens a durable database: reads the newest checkpoint, then the log after it, and applies both in the
//! way of commits.
//!
//! Everything is read and checked before anything on disk is changed. Because files are made and
//! replaced in a fixed order, a crash can leave only these:
//!
//! - a checkpoint, the segment in which the log goes on, and those after it;
//! - segments before that one, which are no longer needed;
//! - drafts, which are incomplete and can be removed;
//! - the first segment alone, empty, if the creation of the database was interrupted.

use crate::checkpoint::{self, CheckpointReader, PairSource};
use crate::codec::{CodecError, Coder};
use crate::commit::Committer;
use crate::disk::OpenMode;
use crate::error::PersistenceError;
use crate::key::{Key, Value};
use crate::persistence::RecoveryInfo;
use crate::sync::{mpsc, thread, waiting};
use crate::txn::write_set::{Put, Write};
use crate::wal::LogWriter;
use crate::wal::directory::{
    CHECKPOINT, CHECKPOINT_DRAFT, Directory, NamedFile, SEGMENT_DRAFT, segment_name,
};
use crate::wal::format::{FileIdentity, FileKind, LogOperation, Lsn, Position, operations};
use crate::wal::limits::LogSize;
use crate::wal::pool::{Covered, Found, Pool};
use crate::wal::reader::{FrameAt, LogEnd, SegmentReader, replay};
use crate::wal::segment::{self, Segment};
use fluxmap_index::{Time, Timestamp, planted};
use std::cmp::Ordering;
use std::mem;
use std::sync::Arc;

type Result<T> = std::result::Result<T, PersistenceError>;

/// The expected properties of the files.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) directory: Directory,
    /// The identity except the database's number, which only the files know.
    pub(crate) identity: FileIdentity,
    pub(crate) log_size: LogSize,
    /// Whether to refuse files that were written with other fields than the types have now.
    pub(crate) check_fields: bool,
}

/// The result of recovery: a log that is ready for writing.
pub(crate) struct Recovered {
    pub(crate) identity: FileIdentity,
    pub(crate) pool: Pool,
    pub(crate) writer: LogWriter,
    pub(crate) info: RecoveryInfo,
}

/// The first segment of a new database.
const FIRST_SEGMENT: u64 = 1;

/// Reads the files into `committer`, which must be empty, or creates them. Keys that have no room under
/// the memory limit are added to `evicted`.
#[tracing::instrument(name = "recovery", skip_all, fields(path = %files.directory.path().display()))]
pub(crate) fn recover<K: Key, V: Value>(
    files: &Files,
    coder: &Coder<K, V>,
    committer: &Committer<K, V>,
    evicted: &mut Vec<K>,
) -> Result<Recovered> {
    let started = committer.host.now();
    let directory = &files.directory;
    let mut info = RecoveryInfo::default();
    let (identity, log_segment) = match CheckpointReader::open(directory)? {
        Some(mut checkpoint) => {
            let (found, path) = (&checkpoint.header.identity, checkpoint.file().path());
            files.identity.expect(found, path)?;
            if files.check_fields {
                files.identity.expect_shapes(found, path)?;
            }
            let header = checkpoint.header.clone();
            // Resume the expiry clock first: times to live that are given to values while loading count
            // from it.
            committer.expiry_clock.resume(header.time);
            load_checkpoint(&mut checkpoint, coder, committer, evicted, &mut info)?;
            // The next checkpoint records the current fields of the types.
            let shapes = files.identity.shapes.clone();
            (FileIdentity { shapes, ..header.identity }, header.detail)
        }
        None => {
            check_nothing_is_lost(directory)?;
            (create(files)?, FIRST_SEGMENT)
        }
    };
    info.created = info.checkpoint_bytes == 0;
    let tail = load_log(directory, &identity, log_segment, coder, committer, evicted, &mut info)?;
    // Everything has been read: evict what is still beyond the limit.
    committer.keep_limit(true, evicted);
    // The next salts must differ from those of earlier runs: see `Host::stir`.
    committer.host.stir(tail.salt ^ tail.last);
    info.torn_tail = tail.torn_tail(directory);
    // The existing files have been read and checked. Only from here on may they be changed.
    let (pool, writer) = open_log_end(files, tail, info.checkpoint_bytes)?;
    info.duration = committer.host.now().saturating_duration_since(started);
    tracing::info!(?info, "recovered");
    Ok(Recovered { identity, pool, writer, info })
}

/// Called if there is no checkpoint. Refuses everything but an empty directory and one in which a
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
fn create(files: &Files) -> Result<FileIdentity> {
    struct Nothing;

    impl PairSource for Nothing {
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

    let identity = FileIdentity { database: files.directory.random(), ..files.identity.clone() };
    let size = files.log_size.bounds(0).first_segment();
    segment::make(&files.directory, &identity, FIRST_SEGMENT, size, None)?;
    checkpoint::write_draft(&files.directory, &identity, &mut Nothing, FIRST_SEGMENT, |_| ())?;
    checkpoint::publish_draft(&files.directory)?;
    Ok(identity)
}

/// The writes of some commits, decoded, one write per key, with the timestamp of the last of them.
type Decoded<K, V> = (Timestamp, Vec<(K, Write<V>)>);

/// Operations of the log that are gathered and sorted before they are applied. Applied in key order,
/// they find the path through the index in cache: a million keys in the order of the log took three
/// times as long, in batches of a quarter of this size a tenth longer.
const BATCH: usize = 1 << 18;
/// The most bytes of the log in a batch: large values gain less from sorting.
const BATCH_BYTES: usize = 16 << 20;
/// A batch is at most this share of the memory limit.
const BATCH_SHARE: u64 = 16;
/// The number of decoded batches that may wait to be applied.
const BATCHES_AHEAD: usize = 1;
/// The number of operations applied in one step.
const STEP: usize = 256;

/// Receives decoded batches.
type DecodedSink<'s, K, V> = &'s mut dyn FnMut(Decoded<K, V>) -> Result<()>;

/// Reads and decodes on one thread and applies on another (both take about equally long), or does both
/// in turn, if the host has no threads.
fn pipeline<K: Key, V: Value, R: Send>(
    committer: &Committer<K, V>,
    evicted: &mut Vec<K>,
    decode: impl FnOnce(DecodedSink<'_, K, V>) -> Result<R> + Send,
) -> Result<R> {
    let mut apply = |(timestamp, writes): Decoded<K, V>| {
        let mut writes = writes.into_iter();
        while writes.len() > 0 {
            committer.replay_commit(timestamp, writes.by_ref().take(STEP));
        }
        committer.keep_limit(false, evicted);
    };
    if committer.host.is_driven() {
        return decode(&mut |batch| {
            apply(batch);
            Ok(())
        });
    }
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(BATCHES_AHEAD);
        let send = move |batch| waiting("a decoded batch to be applied", || sender.send(batch));
        let decoder = scope.spawn(move || decode(&mut |batch| send(batch).map_err(hung_up)));
        while let Ok(batch) = waiting("a decoded batch", || receiver.recv()) {
            apply(batch);
        }
        // A panic of user code while decoding continues on the thread that opens the database.
        decoder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The receiver has gone, which happens only if it panicked.
fn hung_up<T>(_: T) -> PersistenceError {
    PersistenceError::Unavailable("applying what was read has panicked".into())
}

fn load_checkpoint<K: Key, V: Value>(
    checkpoint: &mut CheckpointReader,
    coder: &Coder<K, V>,
    committer: &Committer<K, V>,
    evicted: &mut Vec<K>,
    info: &mut RecoveryInfo,
) -> Result<()> {
    let covered = checkpoint.header.number;
    pipeline(committer, evicted, |send| {
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
    identity: &FileIdentity,
    first: u64,
    coder: &Coder<K, V>,
    committer: &Committer<K, V>,
    evicted: &mut Vec<K>,
    info: &mut RecoveryInfo,
) -> Result<LogEnd> {
    let covered = info.checkpoint_commit;
    let share = committer.limit().map_or(u64::MAX, |limit| limit / BATCH_SHARE);
    let batch_bytes = share.min(BATCH_BYTES as u64);
    let tail = pipeline(committer, evicted, |send| {
        let (mut writes, mut bytes) = (Vec::new(), 0);
        let tail = replay(directory, identity, first, covered, |lsn, commit, at| {
            let decode = Decoder { coder, at };
            for operation in operations(commit) {
                writes.push(
                    match operation.map_err(|_| at.damaged("an operation in it makes no sense"))? {
                        LogOperation::Put { key, value, expires } => {
                            (decode.key(key)?, Some(decode.put(value, expires)?))
                        }
                        LogOperation::Delete { key } => (decode.key(key)?, None),
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

/// Keeps the last write to each key, in key order.
fn last_of_each<K: Key, V>(mut writes: Vec<(K, Write<V>)>) -> Vec<(K, Write<V>)> {
    // Reverse, so that later writes come first; the stable sort keeps that order among equal keys, and
    // `dedup_by` keeps the first.
    writes.reverse();
    writes.sort_by(|one, other| one.0.cmp(&other.0));
    writes.dedup_by(|later, earlier| later.0 == earlier.0);
    writes
}

/// Decodes keys and values of one frame or block.
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

/// Cuts off a torn tail, removes files that are not needed, and opens the end of the log for writing.
/// `checkpoint` is the size of the checkpoint in bytes.
fn open_log_end(files: &Files, tail: LogEnd, checkpoint: u64) -> Result<(Pool, LogWriter)> {
    let directory = &files.directory;
    let LogEnd { position, last, .. } = tail;
    let unmarked = tail.synced < position && position.offset > tail.start;
    directory.sync()?;
    for ended in &tail.ended {
        let file = directory.open(&segment_name(ended.number), OpenMode::Write)?;
        make_durable(&file, Position { segment: ended.number, offset: file.len()? }, tail.synced)?;
    }
    let name = segment_name(position.segment);
    let file = Arc::new(directory.open(&name, OpenMode::Write)?);
    make_durable(&file, position, tail.synced)?;
    // Remove the segments after a torn tail first, newest first: if a crash interrupts this, the log
    // still ends at the same place.
    let ready = match tail.later[..] {
        [next] if !tail.torn => Some(next),
        _ => None,
    };
    for number in tail.later.iter().rev().filter(|number| Some(**number) != ready) {
        directory.remove(&segment_name(*number))?;
        directory.sync()?;
    }
    if tail.torn && !planted("torn-tail-left") {
        // Otherwise a frame that was cut off could come to follow a new frame, and count as valid.
        file.write_zeros(position.offset..tail.size)?;
        file.sync()?;
    }
    let names = directory.names()?;
    for draft in [CHECKPOINT_DRAFT, SEGMENT_DRAFT] {
        if names.iter().any(|name| name == draft) {
            directory.remove(draft)?;
        }
    }
    // Collect the segments that the checkpoint covers.
    let oldest = tail.ended.first().map_or(position.segment, |ended| ended.number);
    let mut covered = Vec::new();
    for number in directory.segments()?.into_iter().filter(|number| *number < oldest) {
        let size = directory.open(&segment_name(number), OpenMode::Read)?.len()?;
        covered.push(Covered { number, size });
    }
    let ready = ready.map(|number| open_ready(directory, number)).transpose()?;
    let LogEnd { start, salt, size, .. } = tail;
    let active = Segment { number: position.segment, salt, start, size, file };
    let found =
        Found { ended: tail.ended.into(), active: (position.segment, size), ready, covered, checkpoint };
    let (pool, surplus) = Pool::new(files.log_size, found);
    for number in surplus {
        directory.remove(&segment_name(number))?;
    }
    Ok((pool, LogWriter::new(active, position.offset, last, unmarked)))
}

/// Makes a segment durable up to `end`. If a process was killed, the bytes that were read may be in the
/// page cache only. Syncing is not enough if an earlier sync of them has failed, because the kernel then
/// counts the pages as clean. So the bytes are written again.
fn make_durable(file: &NamedFile, end: Position, synced: Position) -> Result<()> {
    let start = match synced.segment.cmp(&end.segment) {
        _ if planted("recovery-trusts-the-cache") => return Ok(()),
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

/// The number of bytes of a segment that are written again at once.
const REWRITTEN_AT_ONCE: usize = 1 << 20;

/// Opens a segment that had been made ready in advance and is empty.
fn open_ready(directory: &Directory, number: u64) -> Result<Segment> {
    let file = directory.open(&segment_name(number), OpenMode::Write)?;
    // `replay` has checked the whole segment already.
    let (header, start) = file.read_header(FileKind::Segment)?;
    let size = file.len()?;
    Ok(Segment { number, salt: header.salt, start: start as u64, size, file: Arc::new(file) })
}
