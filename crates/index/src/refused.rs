//! Programs that the compiler must refuse. Each would have undefined behaviour if it
//! compiled, and only the marked line keeps it from compiling.
//!
//! A value must not outlive the reader that found it:
//!
//! ```compile_fail,E0505
//! let (index, _writer) = fluxmap_index::Index::<u32, String>::new(0.25);
//! let reader = index.reader();
//! let found = reader.get_at(7, &7, 1);
//! drop(reader); // here
//! println!("{found:?}");
//! ```
//!
//! Pairs that a scan visited must not outlive the reader either:
//!
//! ```compile_fail,E0505
//! use fluxmap_index::{Direction, Span};
//!
//! struct All;
//! impl Span<u32> for All {
//!     fn is_before(&self, _: &u32) -> bool { false }
//!     fn is_after(&self, _: &u32) -> bool { false }
//! }
//!
//! let (index, _writer) = fluxmap_index::Index::<u32, String>::new(0.25);
//! let reader = index.reader();
//! let mut met = Vec::new();
//! reader.scan(&All, Direction::Forward, 1, |_, _| {}, |pairs| {
//!     met.extend_from_slice(pairs);
//!     std::ops::ControlFlow::Continue(())
//! });
//! drop(reader); // here
//! println!("{met:?}");
//! ```
//!
//! A reader must not outlive its index, nor a batch its reader:
//!
//! ```compile_fail,E0505
//! let (index, writer) = fluxmap_index::Index::<u32, String>::new(0.25);
//! let reader = index.reader();
//! drop(index); // here
//! reader.get_at(7, &7, 1);
//! ```
//!
//! ```compile_fail,E0505
//! let (index, mut writer) = fluxmap_index::Index::<u32, String>::new(0.25);
//! let reader = index.reader();
//! let mut batch = reader.batch(1);
//! drop(reader); // here
//! writer.stage(&mut batch).publish(1, &mut ());
//! ```
//!
//! While a batch is staged, the writer must do nothing else:
//!
//! ```compile_fail,E0499
//! let (index, mut writer) = fluxmap_index::Index::<u32, String>::new(0.25);
//! let reader = index.reader();
//! let mut batch = reader.batch(1);
//! let staged = writer.stage(&mut batch);
//! writer.trim(&fluxmap_index::Horizon::default(), 1); // here
//! staged.publish(1, &mut ());
//! ```
//!
//! If keys or values must stay on one thread, so must the index, its writer and its
//! garbage:
//!
//! ```compile_fail,E0277
//! use std::rc::Rc;
//!
//! let (index, _writer) = fluxmap_index::Index::<Rc<u32>, u32>::new(0.25);
//! std::thread::spawn(move || index.reader()); // here
//! ```
//!
//! ```compile_fail,E0277
//! use std::cell::Cell;
//!
//! let (_index, writer) = fluxmap_index::Index::<u32, Cell<u32>>::new(0.25);
//! std::thread::spawn(move || drop(writer)); // here
//! ```
//!
//! ```compile_fail,E0277
//! use std::rc::Rc;
//!
//! let (_index, mut writer) = fluxmap_index::Index::<u32, Rc<u32>>::new(0.25);
//! let freed = writer.collect_all();
//! std::thread::spawn(move || drop(freed)); // here
//! ```
//!
//! A key or value must not borrow data that is dropped before the index:
//!
//! ```compile_fail,E0597
//! let (index, mut writer) = fluxmap_index::Index::<u32, &str>::new(0.25);
//! {
//!     let short = String::from("short"); // here
//!     let reader = index.reader();
//!     let mut batch = reader.batch(1);
//!     batch.push(7, 7, Some(short.as_str()));
//!     writer.stage(&mut batch).publish(1, &mut ());
//! }
//! ```
