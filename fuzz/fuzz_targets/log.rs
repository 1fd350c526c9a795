//! A log of hostile bytes, after sound headers or not. The bits of the first byte choose which parts
//! are corrected: the first bit the checksums of the frames, the second their marks, the third the
//! header. The fourth bit makes another segment follow.
#![no_main]

use fluxmap_fuzz::{base, header_end, open_and_compare, path_of, seal, seal_header, write_seeds};
use libfuzzer_sys::fuzz_target;

const FRAME_HEADER: usize = 48;

/// Corrects the checksums, and the lengths and marks if need be, of the frames that the bytes form.
fn seal_frames(bytes: &mut [u8], marks: bool) {
    let mut at = header_end(bytes);
    while at + FRAME_HEADER <= bytes.len() {
        if marks {
            bytes.copy_within(32..36, at + 4);
        }
        let room = bytes.len() - at - FRAME_HEADER;
        let asked =
            u32::from_le_bytes([bytes[at + 8], bytes[at + 9], bytes[at + 10], bytes[at + 11]]) as usize;
        let length = asked.min(room);
        bytes[at + 8..at + 12].copy_from_slice(&(length as u32).to_le_bytes());
        seal(bytes, at, at + FRAME_HEADER + length);
        at += FRAME_HEADER + length;
    }
}

fn segment(sound: &[u8], how: u8, hostile: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    let mut start = header_end(&bytes);
    if how & 4 != 0 {
        // The hostile bytes begin at the field of the segment's number. The salt and the database's
        // number before it stay as they are.
        start = 40;
    }
    let length = header_end(&bytes);
    bytes.truncate(start);
    bytes.extend(hostile);
    bytes.resize(bytes.len().max(length), 0);
    if how & 4 != 0 {
        seal_header(&mut bytes);
    }
    if how & 1 != 0 {
        seal_frames(&mut bytes, how & 2 != 0);
    }
    bytes
}

fuzz_target!(init: write_seeds("log", "wal.0000000001"), |data: &[u8]| {
    let Some((how, data)) = data.split_first() else { return };
    let mut files = base();
    let (first, second) = data.split_at(if how & 8 != 0 { data.len() / 2 } else { data.len() });
    for (name, hostile) in [("wal.0000000001", first), ("wal.0000000002", second)] {
        let path = path_of(name);
        if name == "wal.0000000001" || how & 8 != 0 {
            let bytes = segment(&files[&path], *how, hostile);
            files.insert(path, bytes);
        }
    }
    open_and_compare(&files);
});
