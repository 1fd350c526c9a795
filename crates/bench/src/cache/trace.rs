//! Traces of requests: text compressed with zstd, a decimal key on each line.

use ruzstd::decoding::StreamingDecoder;
use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The source of the traces. Their licence requires naming it wherever figures from them are published.
pub(crate) const SOURCE: &str = "Traces: cache2k benchmarks, CC BY 4.0, (c) headissue GmbH, Jens Wilke, \
                                 as carried by the Caffeine simulator; converted to dense ids.";

/// The requests of a trace, in order.
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) keys: Vec<u64>,
    /// The number of different keys.
    pub(crate) unique: usize,
}

impl Trace {
    /// Reads a trace file.
    pub(crate) fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let lines = BufReader::new(StreamingDecoder::new(BufReader::new(File::open(path)?))?).lines();
        let keys = lines.map(|line| Ok(line?.parse()?)).collect::<Result<Vec<u64>, Box<dyn Error>>>()?;
        let unique = keys.iter().collect::<HashSet<_>>().len();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let name = file.split('.').next().unwrap_or_default().to_string();
        Ok(Trace { name, keys, unique })
    }

    /// The number of entries that is `percent` per cent of the number of different keys.
    pub(crate) fn entries(&self, percent: f64) -> usize {
        ((self.unique as f64 * percent / 100.0).round() as usize).max(1)
    }
}
