//! How much memory a value takes.

use std::mem::size_of_val;
use std::sync::Arc;

/// How many bytes a key or value takes, with what it owns on the heap.
///
/// ```
/// use fluxmap::mem::MemSize;
///
/// struct Player {
///     name: String,
///     score: u64,
/// }
///
/// impl MemSize for Player {
///     fn mem_size(&self) -> usize {
///         size_of::<Self>() + self.name.capacity()
///     }
/// }
///
/// let player = Player { name: String::with_capacity(100), score: 7 };
/// assert!(player.mem_size() > 100);
/// ```
pub trait MemSize {
    /// Bytes, the value itself included.
    fn mem_size(&self) -> usize;
}

macro_rules! flat {
    ($($flat:ty),*) => {
        $(impl MemSize for $flat {
            fn mem_size(&self) -> usize {
                size_of::<Self>()
            }
        })*
    };
}

flat!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char, ());

impl MemSize for str {
    fn mem_size(&self) -> usize {
        size_of_val(self)
    }
}

impl MemSize for String {
    fn mem_size(&self) -> usize {
        size_of::<Self>() + self.capacity()
    }
}

impl<T: MemSize> MemSize for Vec<T> {
    fn mem_size(&self) -> usize {
        let spare = (self.capacity() - self.len()) * size_of::<T>();
        size_of::<Self>() + spare + self.iter().map(MemSize::mem_size).sum::<usize>()
    }
}

impl<T: MemSize> MemSize for Option<T> {
    fn mem_size(&self) -> usize {
        let inner = self.as_ref().map_or(0, |value| value.mem_size() - size_of::<T>());
        size_of::<Self>() + inner
    }
}

impl<T: MemSize + ?Sized> MemSize for Box<T> {
    fn mem_size(&self) -> usize {
        size_of::<Self>() + (**self).mem_size()
    }
}

impl<T: MemSize + ?Sized> MemSize for Arc<T> {
    fn mem_size(&self) -> usize {
        // The two reference counts stand in front of the value.
        size_of::<Self>() + 2 * size_of::<usize>() + (**self).mem_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owned_on_the_heap_counts() {
        assert_eq!(7_u64.mem_size(), 8);
        assert_eq!(String::with_capacity(100).mem_size(), 24 + 100);
        let names = vec!["ab".to_string(), String::new()];
        assert_eq!(names.mem_size(), 24 + 24 + 2 + 24);
        let mut spare: Vec<u32> = Vec::with_capacity(10);
        spare.push(1);
        assert_eq!(spare.mem_size(), 24 + 40);
        assert_eq!(Some("ab".to_string()).mem_size(), 24 + 2);
        assert_eq!(Box::new(1_u16).mem_size(), 8 + 2);
        assert_eq!(Arc::<str>::from("abc").mem_size(), 16 + 3 + 16 - 8 + 8);
    }
}
