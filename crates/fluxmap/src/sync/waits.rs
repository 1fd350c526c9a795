//! Notes of the waits of each thread of a model, shown when the model hangs.
//!
//! A thread takes a note before it waits, of what it waits for and of the line of code, and drops the note
//! when it goes on. An execution that fails leaves the stacks of its threads as they are, so the notes of
//! the threads that hung are still there when the execution has ended, and [`report`] shows them.

use std::any::type_name;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::Location;

/// The object of a wait.
enum Awaited {
    /// A mutex, by its address and the type of the data in it.
    Lock(usize, &'static str),
    /// Anything else, described.
    Event(String),
}

struct Wait {
    id: u64,
    task: usize,
    what: Awaited,
    at: &'static Location<'static>,
}

struct Hold {
    address: usize,
    task: usize,
    at: &'static Location<'static>,
}

#[derive(Default)]
struct Notes {
    last_id: u64,
    waits: Vec<Wait>,
    holds: Vec<Hold>,
    names: BTreeMap<usize, String>,
}

// The standard library's, because the notes outlive the execution: all its threads run on one thread of the
// system.
std::thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
}

impl Notes {
    /// Returns the running thread, whose name it notes.
    fn task(&mut self) -> usize {
        let task = shuttle::current::get_current_task().map_or(usize::MAX, usize::from);
        let name = || shuttle::thread::current().name().unwrap_or("a thread without a name").to_owned();
        self.names.entry(task).or_insert_with(name);
        task
    }

    fn named(&self, task: usize) -> String {
        let name = self.names.get(&task).map_or("a thread", String::as_str);
        format!("{name} (task {task})")
    }
}

/// Forgets all notes: an execution begins.
pub fn clear() {
    NOTES.with_borrow_mut(|notes| *notes = Notes::default());
}

/// Returns a line for each thread that waits, in the order in which the threads were started.
pub fn report() -> Vec<String> {
    NOTES.with_borrow(|notes| {
        let mut waits: Vec<&Wait> = notes.waits.iter().collect();
        waits.sort_by_key(|wait| (wait.task, wait.id));
        let line = |wait: &Wait| {
            let waits = format!("{} waits for", notes.named(wait.task));
            match &wait.what {
                Awaited::Event(event) => format!("{waits} {event} at {}", place(wait.at)),
                Awaited::Lock(address, of) => {
                    let holder = notes.holds.iter().find(|hold| hold.address == *address);
                    let held = holder.map_or(", which nobody holds".into(), |hold| {
                        format!(", which {} took at {}", notes.named(hold.task), place(hold.at))
                    });
                    format!("{waits} the lock of {} at {}{held}", short(of), place(wait.at))
                }
            }
        };
        waits.into_iter().map(line).collect()
    })
}

/// Notes, while `wait` runs, that the calling thread waits for an event.
#[track_caller]
pub fn waiting<T>(event: &str, wait: impl FnOnce() -> T) -> T {
    let noted = Noted::event(event.to_owned(), Location::caller());
    let result = wait();
    drop(noted);
    result
}

/// A wait that goes on until this is dropped.
pub(crate) struct Noted(u64);

impl Noted {
    pub(crate) fn event(event: String, at: &'static Location<'static>) -> Self {
        Noted::begin(Awaited::Event(event), at)
    }

    /// A wait for the mutex at this address, which guards a `T`.
    pub(crate) fn lock<T>(address: usize, at: &'static Location<'static>) -> Self {
        Noted::begin(Awaited::Lock(address, type_name::<T>()), at)
    }

    /// A wait for a change of the `T` that a mutex guards.
    pub(crate) fn condition<T>(at: &'static Location<'static>) -> Self {
        Noted::event(format!("a change of {}", short(type_name::<T>())), at)
    }

    fn begin(what: Awaited, at: &'static Location<'static>) -> Self {
        NOTES.with_borrow_mut(|notes| {
            notes.last_id += 1;
            let (id, task) = (notes.last_id, notes.task());
            notes.waits.push(Wait { id, task, what, at });
            Noted(id)
        })
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        NOTES.with_borrow_mut(|notes| notes.waits.retain(|wait| wait.id != self.0));
    }
}

/// A mutex that is locked until this is dropped.
pub(crate) struct Holding(usize);

impl Holding {
    pub(crate) fn begin(address: usize, at: &'static Location<'static>) -> Self {
        NOTES.with_borrow_mut(|notes| {
            let task = notes.task();
            notes.holds.push(Hold { address, task, at });
        });
        Holding(address)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        NOTES.with_borrow_mut(|notes| notes.holds.retain(|hold| hold.address != self.0));
    }
}

/// A place at which futures wait. A future keeps it, and notes what it waits for when it is pending.
pub(crate) struct Pending {
    at: &'static Location<'static>,
    noted: Option<Noted>,
}

impl Pending {
    /// The place of the caller.
    #[track_caller]
    pub(crate) fn here() -> Self {
        Pending { at: Location::caller(), noted: None }
    }

    /// Notes that the future waits for `event` until it is dropped.
    pub(crate) fn note(&mut self, event: impl FnOnce() -> String) {
        // Drop the note of the poll before first: another task may poll the future now.
        self.noted = None;
        self.noted = Some(Noted::event(event(), self.at));
    }
}

/// Returns a place in the code without the detour through the crate that compiles it.
fn place(at: &Location<'_>) -> String {
    format!("{}:{}", at.file().replace("shuttle/../", ""), at.line())
}

/// Returns the name of a type with the module that it is in, and its parameters without.
fn short(name: &str) -> String {
    let mut short = String::new();
    let mut modules = 1;
    for path in name.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
        let begin = path.rmatch_indices("::").nth(modules).map_or(0, |(at, _)| at + 2);
        short.push_str(&path[begin..]);
        modules = 0;
    }
    short
}
