//! Several things at a time; the first that fails ends the others.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    error::ImageError,
    registry::{Listener, News},
};

/// A listener who also learns that one of several failed.
pub(crate) struct Together<'a> {
    listener: &'a dyn Listener,
    failed: AtomicBool,
}

impl<'a> Together<'a> {
    pub fn new(listener: &'a dyn Listener) -> Self {
        Self {
            listener,
            failed: AtomicBool::new(false),
        }
    }

    /// Does `work` on all `items`, `workers` at a time; what came of them, in no order.
    pub fn each<T: Send, R: Send>(
        &self,
        items: Vec<T>,
        workers: usize,
        work: impl Fn(T) -> Result<R, ImageError> + Sync,
    ) -> Result<Vec<R>, ImageError> {
        let workers = workers.clamp(1, items.len().max(1));
        let (queue, done, trouble) = (Mutex::new(items.into_iter()), Mutex::new(Vec::new()), Mutex::new(None));
        let go_on = || {
            loop {
                let next = lock(&queue).next();
                let Some(item) = next.filter(|_| !self.failed.load(Ordering::Relaxed)) else {
                    return;
                };
                match work(item) {
                    Ok(result) => lock(&done).push(result),
                    Err(why) => {
                        // the first is the reason; the others end because of it
                        lock(&trouble).get_or_insert(why);
                        self.failed.store(true, Ordering::Relaxed);
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(go_on);
            }
            go_on();
        });
        match trouble.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => Err(why),
            None => Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl Listener for Together<'_> {
    fn hear(&self, news: News) {
        self.listener.hear(news);
    }

    fn is_gone(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.listener.is_gone()
    }
}

/// Nothing here is left half-done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Listener for Nobody {
        fn hear(&self, _: News) {}

        fn is_gone(&self) -> bool {
            false
        }
    }

    #[test]
    fn all_are_done_and_the_first_failure_is_the_reason() {
        let together = Together::new(&Nobody);
        let mut squares = together
            .each((0..100).collect(), 7, |number: u32| Ok(number * number))
            .unwrap();
        squares.sort_unstable();
        assert_eq!(squares.len(), 100);
        assert_eq!(squares[99], 99 * 99);
        assert!(!together.is_gone());

        let fail = |number: u32| match number {
            3 => Err(ImageError::Failed("three".into())),
            number => Ok(number),
        };
        assert_eq!(
            together.each((0..1000).collect(), 1, fail).unwrap_err().to_string(),
            "three"
        );
        assert!(together.is_gone());
    }
}
