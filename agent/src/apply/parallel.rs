//! Waits for the kernel by several threads.

use std::{collections::BTreeMap, thread};

/// How many threads make sandboxes and furnish veths at a time. Most of their time they wait for the kernel.
const HANDS: usize = 8;

/// Does `work` for each item by a few threads (by none for one item), answers in order.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let mut answers: BTreeMap<usize, R> = BTreeMap::new();
    let hands = HANDS.min(items.len());
    thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..hands)
            .map(|hand| {
                scope.spawn(move || {
                    let mine = items.iter().enumerate().skip(hand).step_by(hands);
                    mine.map(|(index, item)| (index, work(item))).collect::<Vec<_>>()
                })
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(done) => answers.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    answers.into_values().collect()
}
