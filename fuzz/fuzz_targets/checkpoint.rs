//! A checkpoint of hostile bytes, after a sound header or not. The bits of the first byte choose
//! which parts are corrected: the first bit the checksums of the blocks, the second their numbers,
//! the third the header.
#![no_main]

use fluxmap_fuzz::{base, header_end, open_and_compare, path_of, seal, seal_header, write_seeds};
use libfuzzer_sys::fuzz_target;

const BLOCK_HEADER: usize = 24;

/// Corrects the checksums, and the lengths and numbers if need be, of the blocks that the bytes form.
fn seal_blocks(bytes: &mut [u8], numbers: bool) {
    let mut at = header_end(bytes);
    let mut number = 0_u64;
    while at + BLOCK_HEADER <= bytes.len() {
        if numbers {
            bytes[at + 8..at + 16].copy_from_slice(&number.to_le_bytes());
        }
        let room = bytes.len() - at - BLOCK_HEADER;
        let asked = u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]) as usize;
        let length = asked.min(room);
        bytes[at + 4..at + 8].copy_from_slice(&(length as u32).to_le_bytes());
        seal(bytes, at, at + BLOCK_HEADER + length);
        at += BLOCK_HEADER + length;
        number += 1;
    }
}

fuzz_target!(init: write_seeds("checkpoint", "snapshot.db"), |data: &[u8]| {
    let Some((how, hostile)) = data.split_first() else { return };
    let mut files = base();
    let path = path_of("snapshot.db");
    let mut bytes = files[&path].clone();
    let length = header_end(&bytes);
    // With the third bit, the hostile bytes begin at the field of the covered commit. The salt and the
    // database's number before it stay as they are.
    bytes.truncate(if how & 4 != 0 { 40 } else { length });
    bytes.extend(hostile);
    bytes.resize(bytes.len().max(length), 0);
    if how & 4 != 0 {
        seal_header(&mut bytes);
    }
    if how & 1 != 0 {
        seal_blocks(&mut bytes, how & 2 != 0);
    }
    files.insert(path, bytes);
    open_and_compare(&files);
});
