use super::*;
use std::collections::BTreeSet;

impl<K: Ord, T> List<K, T> {
    /// Asserts the order of blocks and keys, I8 for the list, and that each upper
    /// level has the blocks of its height, in order. Returns all entries.
    pub(crate) fn check(&self, pinned: &Guard<'_>) -> BTreeSet<NonNull<Entry<K, T>>> {
        let mut entries = BTreeSet::new();
        let mut blocks = Vec::new();
        let mut last: Option<&K> = None;
        let mut next = Some(self.head(pinned));
        while let Some(block) = next {
            let run = block.run(pinned);
            assert_eq!(block.low.is_none(), blocks.is_empty(), "only the first has no lower end");
            assert!(!block.is_unlinked());
            assert!(run.state().len() > 0 || block.low.is_none(), "an empty block must be unlinked");
            assert!(run.state().len() <= RUN_CAPACITY);
            assert!(block.low.as_ref().is_none_or(|low| last.is_none_or(|last| last < low)));
            assert!(!run.state().is_moving());
            for (index, (_, head)) in run.pairs().into_iter().enumerate() {
                let entry = run.entry(index, pinned);
                if let Some(prefix) = (self.prefix)(&entry.key) {
                    assert!(run.common().place(&prefix).is_eq(), "the lead has another prefix");
                    assert_eq!(head, run.common().suffix(&prefix));
                }
                assert!(block.low.as_ref().is_none_or(|low| *low <= entry.key));
                assert!(last.is_none_or(|last| *last < entry.key));
                assert!(!entry.is_unlinked());
                assert!(entries.insert(NonNull::from(entry)));
                last = Some(&entry.key);
            }
            blocks.push(block);
            next = block.next(0, pinned);
        }
        for level in 1..MAX_HEIGHT {
            let mut expected = blocks.iter().filter(|block| block.height() > level);
            let mut next = Some(self.head(pinned));
            while let Some(block) = next {
                assert!(expected.next().is_some_and(|expected| ptr::eq(*expected, block)));
                next = block.next(level, pinned);
            }
            assert!(expected.next().is_none(), "a block that is not linked in all its levels");
        }
        entries
    }

    /// How many blocks there are.
    pub(crate) fn blocks(&self) -> usize {
        let mut count = 0;
        let mut next = self.head.as_ptr();
        while !next.is_null() {
            count += 1;
            // SAFETY: (I9) linked.
            next = unsafe { &*next }.next_pointer(0);
        }
        count
    }
}
