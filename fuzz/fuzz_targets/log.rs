//! A log of hostile bytes, behind sound headers or not. The first byte says how much of it
//! is made to look right: its first bit the checksums of the frames, the second their
//! marks, the third the header, the fourth whether another segment follows.
#![no_main]

use fluxmap_fuzz::{base, header_end, open_and_compare, path_of, seal, seal_header, write_seeds};
use libfuzzer_sys::fuzz_target;

const FRAME_HEADER: usize = 48;

/// Makes frames of what there is, as far as their lengths go.
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
        // From the segment's number on; salt and database stay.
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
