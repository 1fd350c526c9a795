//! The byte layout of the files. `docs/format.md` describes it for readers.
//!
//! All numbers are little-endian. Every file begins with a [`FileHeader`]. In a log segment,
//! [frames](FrameHeader) follow; in a checkpoint, blocks (see `checkpoint.rs`). Nothing in this module
//! accesses a file.

use crate::codec::Codec;
use fluxmap_index::{Time, Timestamp};

/// The number of a commit in the log. It is the commit timestamp: consecutive, from one.
pub(crate) type Lsn = Timestamp;

/// The format version that this module describes and writes. Since version 2, values may expire.
pub(crate) const FORMAT_VERSION: u16 = 2;
/// The oldest version that can still be read.
const OLDEST_VERSION: u16 = 1;

/// A position in the log: segments in order, offsets within them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segment,
    Checkpoint,
}

impl FileKind {
    fn magic(self) -> [u8; 8] {
        match self {
            FileKind::Segment => *b"FluxWAL\0",
            FileKind::Checkpoint => *b"FluxCKP\0",
        }
    }
}

/// The properties that all files of one database share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    pub(crate) codec: Codec,
    pub(crate) schema_version: u32,
    /// A random number, drawn when the database was created.
    pub(crate) database: u64,
    pub(crate) key_type: String,
    pub(crate) value_type: String,
    /// The shapes of both types, if the codec needs them and the file has them.
    pub(crate) shapes: Option<Shapes>,
}

/// The shapes of the types, for codecs that write no names: see `codec/shape.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shapes {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Of a shape that is longer, only the length and the checksum are stored.
const MAX_SHAPE: usize = 800;

/// Converts a shape to its form in a header.
pub(crate) fn clip_shape(shape: String) -> String {
    match shape.len() > MAX_SHAPE {
        true => format!("#{}:{:08x}", shape.len(), crc32c::crc32c(shape.as_bytes())),
        false => shape,
    }
}

/// The header of each file.
///
/// | at | size | |
/// |--:|--:|---|
/// | 0 | 8 | magic |
/// | 8 | 4 | CRC-32C of the magic and everything after this field |
/// | 12 | 2 | format version |
/// | 14 | 2 | length of the header |
/// | 16 | 1 | codec |
/// | 17 | 3 | zero |
/// | 20 | 4 | schema version |
/// | 24 | 8 | database |
/// | 32 | 8 | salt |
/// | 40 | 8 | segment: its number; checkpoint: the LSN up to which it covers |
/// | 48 | 8 | segment: the length it was made with; checkpoint: the segment in which the log goes on |
/// | 56 | 2 + n | key type: length, UTF-8 |
/// | | 2 + n | value type: length, UTF-8 |
/// | | 3 + n | any number of optional fields: tag, length (2 bytes), bytes |
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) kind: FileKind,
    pub(crate) identity: FileIdentity,
    /// Seeds the checksums of the rest of the file, so that bytes left by an earlier use of the file are
    /// not accepted.
    pub(crate) salt: u64,
    pub(crate) number: u64,
    /// In a segment: the length that it was made with. In a checkpoint: the segment in which the log
    /// continues.
    pub(crate) detail: u64,
    /// In a checkpoint: the latest time by which keys expired; 0 if it is not recorded, as in files of
    /// the unpublished version 0.4.
    pub(crate) time: Time,
}

/// Tags of optional header fields. Readers skip unknown ones.
const TIME: u8 = 1;
const SHAPES: u8 = 2;

/// The number of bytes that suffice to find a header's length.
pub(crate) const HEADER_PREFIX: usize = 16;
const HEADER_FIXED: usize = 56;
/// A type's name is cut to this length in the header.
const MAX_TYPE_NAME: usize = 1000;
/// The largest number in a file, so that adding to a number that was read cannot overflow.
const MAX_NUMBER: u64 = 1 << 62;
/// The longest header.
pub(crate) const MAX_HEADER: usize = HEADER_FIXED + 2 * (2 + MAX_TYPE_NAME);

/// The reason why bytes are not a valid header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// The bytes are not those that were written.
    Damaged(&'static str),
    /// Written by a version of FluxMap with another format.
    Version(u16),
}

impl FileHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_FIXED + 64);
        bytes.extend(self.kind.magic());
        bytes.extend([0; 4]);
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend([self.identity.codec.id(), 0, 0, 0]);
        bytes.extend(self.identity.schema_version.to_le_bytes());
        for number in [self.identity.database, self.salt, self.number, self.detail] {
            bytes.extend(number.to_le_bytes());
        }
        for name in [&self.identity.key_type, &self.identity.value_type] {
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend(name.as_bytes());
        }
        if self.time != 0 {
            push_optional(&mut bytes, TIME, &self.time.to_le_bytes());
        }
        if let Some(Shapes { key, value }) = &self.identity.shapes {
            let mut shapes = Vec::with_capacity(4 + key.len() + value.len());
            for shape in [key, value] {
                shapes.extend((shape.len() as u16).to_le_bytes());
                shapes.extend(shape.as_bytes());
            }
            push_optional(&mut bytes, SHAPES, &shapes);
        }
        let length = bytes.len() as u16;
        bytes[14..16].copy_from_slice(&length.to_le_bytes());
        let crc = header_crc(&bytes);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Returns the length of the header that begins with these bytes, if it is possible.
    fn length(prefix: &[u8]) -> Option<usize> {
        let length = usize::from(u16::from_le_bytes(prefix.get(14..16)?.try_into().ok()?));
        (HEADER_FIXED..=MAX_HEADER).contains(&length).then_some(length)
    }

    /// Decodes the header at the start of `bytes`; returns it with its length.
    pub(crate) fn decode(kind: FileKind, bytes: &[u8]) -> Result<(Self, usize), BadHeader> {
        let damaged = BadHeader::Damaged;
        if bytes.len() < HEADER_PREFIX {
            return Err(damaged("the file ends within its header"));
        }
        if bytes[..8] != kind.magic() {
            return Err(damaged("the file does not begin like one of its kind"));
        }
        let length = Self::length(bytes).ok_or(damaged("the length of the header is impossible"))?;
        let bytes = bytes.get(..length).ok_or(damaged("the file ends within its header"))?;
        let mut fields = FieldReader(&bytes[8..]);
        let crc = fields.u32();
        if crc != Some(header_crc(bytes)) {
            return Err(damaged("the checksum of the header does not match"));
        }
        // The version can be trusted only after the checksum.
        let version = fields.u16().unwrap_or_default();
        if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&version) {
            return Err(BadHeader::Version(version));
        }
        let header = Self::decode_fields(kind, fields);
        header.map(|header| (header, length)).ok_or(damaged("the fields of the header make no sense"))
    }

    /// Returns the salt and the number of a damaged header, unchecked.
    pub(crate) fn as_it_stands(bytes: &[u8]) -> Option<(u64, u64)> {
        let mut fields = FieldReader(bytes.get(32..)?);
        Some((fields.u64()?, fields.u64()?))
    }

    fn decode_fields(kind: FileKind, mut fields: FieldReader<'_>) -> Option<Self> {
        let _length = fields.u16()?;
        let codec = Codec::from_id(fields.u8()?)?;
        fields.take(3)?;
        let schema_version = fields.u32()?;
        let [database, salt, number, detail] = [fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?];
        if number > MAX_NUMBER || detail > MAX_NUMBER {
            return None;
        }
        let (key_type, value_type) = (fields.text()?, fields.text()?);
        let (mut time, mut shapes) = (0, None);
        while !fields.0.is_empty() {
            let (tag, length) = (fields.u8()?, usize::from(fields.u16()?));
            let mut field = FieldReader(fields.take(length)?);
            match tag {
                TIME => time = field.u64()?,
                SHAPES => shapes = Some(Shapes { key: field.text()?, value: field.text()? }),
                _ => {}
            }
        }
        let identity = FileIdentity { codec, schema_version, database, key_type, value_type, shapes };
        Some(FileHeader { kind, identity, salt, number, detail, time })
    }
}

/// Appends an optional field to a header, if there is room for it.
fn push_optional(header: &mut Vec<u8>, tag: u8, field: &[u8]) {
    if header.len() + 3 + field.len() <= MAX_HEADER {
        header.push(tag);
        header.extend((field.len() as u16).to_le_bytes());
        header.extend(field);
    }
}

/// Cuts a type's name to its form in a header.
pub(crate) fn clip_type_name(mut name: String) -> String {
    let end = (0..=MAX_TYPE_NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    name.truncate(end.unwrap_or(0));
    name
}

fn header_crc(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..8]), &header[12..])
}

/// The kind of a frame of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// It carries commits.
    Commits,
    /// It only records how far the log is synced.
    Synced,
    /// The log continues in the next segment.
    EndOfSegment,
    /// The database was closed, with everything synced.
    Closed,
}

impl FrameKind {
    fn id(self) -> u8 {
        match self {
            FrameKind::Commits => 1,
            FrameKind::Synced => 2,
            FrameKind::EndOfSegment => 3,
            FrameKind::Closed => 4,
        }
    }

    fn from_id(id: u8) -> Option<Self> {
        let all = [FrameKind::Commits, FrameKind::Synced, FrameKind::EndOfSegment, FrameKind::Closed];
        all.into_iter().find(|kind| kind.id() == id)
    }
}

/// The header of a frame: the bytes that were written to the log at once, under one checksum, so that a
/// torn write leaves one bad frame and not half of it.
///
/// | at | size | |
/// |--:|--:|---|
/// | 0 | 4 | CRC-32C of the segment's salt, the rest of the header and the payload |
/// | 4 | 4 | the lower half of the salt: where a frame may begin |
/// | 8 | 4 | length of the payload |
/// | 12 | 4 | commits in the payload |
/// | 16 | 8 | LSN of the first commit, here or to come |
/// | 24 | 8 | segment up to which the log was synced when this was written |
/// | 32 | 8 | offset in it |
/// | 40 | 1 | kind |
/// | 41 | 7 | zero |
///
/// The payload is a sequence of commits, each its length (4 bytes) and its
/// operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    pub(crate) commits: u32,
    pub(crate) first: Lsn,
    /// Everything before this position was durable when the frame was written. So a bad frame before it
    /// is damage, while a bad frame after it may be the result of a power loss.
    pub(crate) synced: Position,
}

/// The length of a frame's header.
pub(crate) const FRAME_HEADER: usize = 48;
/// The length of the prefix of each commit, which holds the commit's length.
pub(crate) const COMMIT_PREFIX: usize = 4;
/// The largest commit in the log, in bytes.
pub(crate) const MAX_COMMIT: usize = 1 << 30;

impl FrameHeader {
    /// Fills in the header at the start of `frame`. The payload is the rest of `frame`, followed by
    /// `rest`.
    pub(crate) fn seal(&self, salt: u64, frame: &mut [u8], rest: &[u8]) {
        let length = (frame.len() - FRAME_HEADER + rest.len()) as u32;
        frame[4..8].copy_from_slice(&(salt as u32).to_le_bytes());
        frame[8..12].copy_from_slice(&length.to_le_bytes());
        frame[12..16].copy_from_slice(&self.commits.to_le_bytes());
        frame[16..24].copy_from_slice(&self.first.to_le_bytes());
        frame[24..32].copy_from_slice(&self.synced.segment.to_le_bytes());
        frame[32..40].copy_from_slice(&self.synced.offset.to_le_bytes());
        frame[40..48].copy_from_slice(&[self.kind.id(), 0, 0, 0, 0, 0, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &frame[4..]);
        let crc = crc32c::crc32c_append(crc, rest);
        frame[..4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Parses a frame's header. It is sound only if the checksum, which covers the payload, is correct.
    pub(crate) fn parse(salt: u64, bytes: &[u8; FRAME_HEADER]) -> Option<Unchecked> {
        let mut fields = FieldReader(bytes);
        let (crc, mark, length, commits) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        if mark != salt as u32 {
            return None;
        }
        let first = fields.u64()?;
        let synced = Position { segment: fields.u64()?, offset: fields.u64()? };
        let kind = FrameKind::from_id(fields.u8()?)?;
        let begun = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &bytes[4..]);
        Some(Unchecked { frame: FrameHeader { kind, commits, first, synced }, length, crc, begun })
    }
}

/// A frame's header whose checksum has not been compared yet.
pub(crate) struct Unchecked {
    pub(crate) frame: FrameHeader,
    /// The length of the payload.
    pub(crate) length: u32,
    /// The expected checksum.
    pub(crate) crc: u32,
    /// The checksum of the header, to be continued over the payload.
    pub(crate) begun: u32,
}

/// Returns the commits in a frame's payload; an error if it is malformed, which a correct checksum rules
/// out.
pub(crate) fn commits(payload: &[u8]) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    let mut fields = FieldReader(payload);
    std::iter::from_fn(move || {
        if fields.0.is_empty() {
            return None;
        }
        let commit = fields.sized();
        if commit.is_none() {
            fields.0 = &[];
        }
        Some(commit.ok_or(Malformed))
    })
}

/// Malformed bytes with a correct checksum: the result of a bug, or of another program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// One operation of a commit, encoded.
///
/// | at | size | |
/// |--:|--:|---|
/// | 0 | 1 | 1: put; 2: delete; 3: put of a value that expires |
/// | | 8 | 3 only: when it expires, in milliseconds since 1970 |
/// | | 4 + n | key: length, bytes |
/// | | 4 + n | put: value: length, bytes |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogOperation<'b> {
    /// `expires` is zero if the value does not expire.
    Put {
        key: &'b [u8],
        value: &'b [u8],
        expires: Time,
    },
    Delete {
        key: &'b [u8],
    },
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const PUT_UNTIL: u8 = 3;

/// Appends a put or delete. `key` and `value` encode their parts.
pub(crate) fn push_operation<E>(
    commit: &mut Vec<u8>,
    expires: Time,
    key: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    value: Option<impl FnOnce(&mut Vec<u8>) -> Result<(), E>>,
) -> Result<(), E> {
    match (&value, expires) {
        (None, _) => commit.push(DELETE),
        (Some(_), 0) => commit.push(PUT),
        (Some(_), expires) => {
            commit.push(PUT_UNTIL);
            commit.extend(expires.to_le_bytes());
        }
    }
    push_sized(commit, key)?;
    value.map_or(Ok(()), |value| push_sized(commit, value))
}

/// Appends a part, encoded by `part`, after its length. The caller makes sure that the commit stays
/// below [`MAX_COMMIT`], so the length fits.
pub(crate) fn push_sized<E>(
    into: &mut Vec<u8>,
    part: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = into.len();
    into.extend([0; 4]);
    part(into)?;
    let length = (into.len() - start - 4) as u32;
    into[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Returns the operations of a commit.
pub(crate) fn operations(commit: &[u8]) -> impl Iterator<Item = Result<LogOperation<'_>, Malformed>> {
    let mut fields = FieldReader(commit);
    std::iter::from_fn(move || {
        if fields.0.is_empty() {
            return None;
        }
        let mut read = || match fields.u8()? {
            PUT => Some(LogOperation::Put { key: fields.sized()?, value: fields.sized()?, expires: 0 }),
            PUT_UNTIL => {
                let expires = fields.u64()?;
                Some(LogOperation::Put { key: fields.sized()?, value: fields.sized()?, expires })
            }
            DELETE => Some(LogOperation::Delete { key: fields.sized()? }),
            _ => None,
        };
        let operation = read();
        if operation.is_none() {
            fields.0 = &[];
        }
        Some(operation.ok_or(Malformed))
    })
}

/// Reads fields from the front of a byte slice.
pub(crate) struct FieldReader<'b>(pub(crate) &'b [u8]);

impl<'b> FieldReader<'b> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads a text, stored after its length in two bytes.
    pub(crate) fn text(&mut self) -> Option<String> {
        let length = usize::from(self.u16()?);
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    /// Reads a part, stored after its length in four bytes.
    pub(crate) fn sized(&mut self) -> Option<&'b [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn header() -> FileHeader {
        let identity = FileIdentity {
            codec: Codec::Postcard,
            schema_version: 7,
            database: 0x1122_3344_5566_7788,
            key_type: "String".into(),
            value_type: "Vec<u8>".into(),
            shapes: Some(Shapes { key: "text".into(), value: "[u8]".into() }),
        };
        FileHeader { kind: FileKind::Segment, identity, salt: 99, number: 12, detail: 0, time: 77 }
    }

    #[test]
    fn a_header_comes_back_and_no_byte_of_it_can_change_unseen() {
        let bytes = header().encode();
        assert_eq!(FileHeader::decode(FileKind::Segment, &bytes), Ok((header(), bytes.len())));
        assert!(FileHeader::decode(FileKind::Checkpoint, &bytes).is_err());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let read = FileHeader::decode(FileKind::Segment, &damaged);
            assert!(matches!(read, Err(BadHeader::Damaged(_))), "byte {at}: {read:?}");
            assert!(FileHeader::decode(FileKind::Segment, &bytes[..at]).is_err());
        }
    }

    #[test]
    fn fields_that_are_not_known_or_have_no_room_are_left_out() {
        let mut bytes = header().encode();
        push_optional(&mut bytes, 200, b"of a later version");
        let length = bytes.len() as u16;
        bytes[14..16].copy_from_slice(&length.to_le_bytes());
        let crc = header_crc(&bytes);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FileHeader::decode(FileKind::Segment, &bytes), Ok((header(), bytes.len())));

        let mut full = header();
        full.identity.key_type = "k".repeat(MAX_TYPE_NAME);
        full.identity.value_type = "v".repeat(MAX_TYPE_NAME);
        let (read, length) = FileHeader::decode(FileKind::Segment, &full.encode()).expect("it is sound");
        assert_eq!((read.identity.shapes, read.time, length), (None, 0, MAX_HEADER));
        assert_eq!(read.identity.value_type, full.identity.value_type);

        assert_eq!(clip_shape("{a:u8}".into()), "{a:u8}");
        let long = |name: &str| clip_shape(format!("{{{name}:u8}}").repeat(MAX_SHAPE));
        assert!(long("a").len() < 32 && long("a") != long("b") && long("a").starts_with('#'));
    }

    #[test]
    fn a_header_of_another_format_is_told_from_a_damaged_one() {
        let mut bytes = header().encode();
        bytes[12..14].copy_from_slice(&9_u16.to_le_bytes());
        let crc = header_crc(&bytes);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FileHeader::decode(FileKind::Segment, &bytes), Err(BadHeader::Version(9)));
    }

    fn read_frame(salt: u64, bytes: &[u8]) -> Option<(FrameHeader, &[u8])> {
        let (header, behind) = bytes.split_first_chunk()?;
        let Unchecked { frame, length, crc, begun } = FrameHeader::parse(salt, header)?;
        let payload = behind.get(..length as usize)?;
        (crc32c::crc32c_append(begun, payload) == crc).then_some((frame, payload))
    }

    #[test]
    fn a_frame_comes_back_and_no_byte_of_it_can_change_unseen() {
        let put = |bytes: &'static [u8]| {
            move |into: &mut Vec<u8>| {
                into.extend(bytes);
                Ok::<_, Infallible>(())
            }
        };
        let mut frame = vec![0; FRAME_HEADER];
        let _ = push_sized(&mut frame, |commit| {
            push_operation(commit, 0, put(b"key"), Some(put(b"value")))?;
            push_operation(commit, 77, put(b"brief"), Some(put(b"value")))?;
            push_operation(commit, 0, put(b"gone"), None::<fn(&mut Vec<u8>) -> Result<(), Infallible>>)
        });
        let synced = Position { segment: 3, offset: 4 };
        let header = FrameHeader { kind: FrameKind::Commits, commits: 1, first: 42, synced };
        header.seal(77, &mut frame, &[]);
        let mut parted = frame.clone();
        let rest = parted.split_off(FRAME_HEADER + 10);
        header.seal(77, &mut parted, &rest);
        assert_eq!([parted, rest].concat(), frame, "in two parts it is the same");

        let mut longer = frame.clone();
        longer.extend([1, 2, 3]);
        let (read, payload) = read_frame(77, &longer).expect("it is sound");
        assert_eq!((read, payload.len()), (header, frame.len() - FRAME_HEADER));
        let commit = commits(payload).next().expect("one").expect("sound");
        let read: Vec<_> = operations(commit).collect();
        let put = |key, expires| Ok(LogOperation::Put { key, value: b"value", expires });
        assert_eq!(read, [put(b"key", 0), put(b"brief", 77), Ok(LogOperation::Delete { key: b"gone" })]);

        assert!(read_frame(78, &frame).is_none(), "another salt");
        for at in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 1;
            assert!(read_frame(77, &damaged).is_none(), "byte {at}");
            assert!(read_frame(77, &frame[..at]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn long_type_names_are_cut_at_a_character() {
        let clipped = clip_type_name("ä".repeat(MAX_TYPE_NAME));
        assert_eq!(clipped.len(), MAX_TYPE_NAME);
        assert_eq!(clip_type_name("short".into()), "short");
    }
}
