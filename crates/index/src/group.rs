//! The entries of a run, resolved a handful at a time, side by side.

use crate::cursor::Stretch;
use crate::prefetch;
use crate::reclaim::Guard;
use crate::version::Moment;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;

/// Enough chains to keep a core's outstanding cache misses busy.
const SIZE: usize = 16;

/// Resolves the entries of a stretch at a moment, and hands those that hold something to
/// `visit`, in groups, until it breaks.
///
/// One kind of cache miss at a time: first every entry of a group, which was asked for
/// while the group before was visited, then every version.
pub(crate) fn resolve<'g, K, T>(
    stretch: &Stretch<'_, 'g, K, T>,
    moment: Moment,
    pinned: &'g Guard<'_>,
    visit: &mut impl FnMut(&[(&'g K, &'g T)]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut newest = [None; SIZE];
    let mut pairs = [const { MaybeUninit::<(&'g K, &'g T)>::uninit() }; SIZE];
    stretch.ask_for(0, SIZE, pinned);
    for (group, passed) in stretch.entries.chunks(SIZE).zip((SIZE..).step_by(SIZE)) {
        stretch.ask_for(passed, SIZE, pinned);
        for (newest, entry) in newest.iter_mut().zip(group) {
            *newest = entry.chain.newest(pinned);
            if let Some(version) = newest {
                prefetch(&**version);
            }
        }
        let mut count = 0;
        for (newest, entry) in newest.iter().zip(group) {
            let visible = newest.and_then(|newest| newest.at(moment.timestamp, pinned));
            if let Some(value) = visible.and_then(|version| version.value_at(|| moment.time)) {
                pairs[count].write((&entry.key, value));
                count += 1;
            }
        }
        if count > 0 {
            // SAFETY: (I10) this function's own array, of which the first `count` were just
            // written; a `MaybeUninit` has the layout of what it holds.
            let pairs = unsafe { &*(std::ptr::from_ref(&pairs[..count]) as *const [(&'g K, &'g T)]) };
            visit(pairs)?;
        }
    }
    ControlFlow::Continue(())
}
