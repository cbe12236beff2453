//! Small numbers for threads.

use std::cell::RefCell;
use std::sync::{Arc, PoisonError, Weak};

use super::{Mutex, global, local};

/// The numbers below `next` that no thread has.
#[derive(Default)]
struct Numbers {
    next: usize,
    free: Vec<usize>,
}

global! {
    static NUMBERS: Arc<Mutex<Numbers>> = Arc::new(Mutex::new(Numbers::default()));
}

local! {
    static MINE: RefCell<Option<Number>> = RefCell::new(None);
}

/// What a thread has until it ends. In a model, what is global may have come to its end before.
struct Number {
    number: usize,
    numbers: Weak<Mutex<Numbers>>,
    at_end: fn(),
}

impl Drop for Number {
    fn drop(&mut self) {
        (self.at_end)();
        if let Some(numbers) = self.numbers.upgrade() {
            with(&numbers, |numbers| numbers.free.push(self.number));
        }
    }
}

fn with<R>(numbers: &Mutex<Numbers>, f: impl FnOnce(&mut Numbers) -> R) -> R {
    f(&mut numbers.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A number that no other thread has until the end of this one, at which `at_end` is called; `None` if that
/// is near. What the thread did that had the number before comes before this. For one user in each thread.
#[cold]
pub(crate) fn thread_number(at_end: fn()) -> Option<usize> {
    let numbers: &Arc<Mutex<Numbers>> = &NUMBERS;
    let number = with(numbers, |numbers| {
        numbers.free.pop().unwrap_or_else(|| {
            numbers.next += 1;
            numbers.next - 1
        })
    });
    let mine = Number {
        number,
        numbers: Arc::downgrade(numbers),
        at_end,
    };
    // Where that fails, it is given back at once.
    let kept = MINE.try_with(|place| place.replace(Some(mine)));
    kept.is_ok().then_some(number)
}
