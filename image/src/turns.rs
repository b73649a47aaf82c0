//! Layers on their way here. Of several pulls that want the same one, one brings it; the others wait, are told how far it is, and have it too.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{Listener, News, digest::Digest, staging::Staging};

/// So long a wait is at most before one looks whether anybody still wants the layer.
const LOOK: Duration = Duration::from_millis(100);

/// Who brings what.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    layers: Mutex<BTreeMap<Digest, Way>>,
    changed: Condvar,
}

/// How a layer stands.
#[derive(Debug)]
enum Way {
    /// So many bytes of it have come.
    Coming(Arc<AtomicU64>),
    /// Unpacked and verified, as long as a pull has a use for it.
    Ready(Weak<Staging>),
}

/// What to do about a layer.
pub(crate) enum Next<'a> {
    /// Bring it.
    Bring(Turn<'a>),
    /// Somebody did, this moment.
    Have(Arc<Staging>),
    /// Somebody does: so many bytes have come.
    Wait(u64),
}

/// The right to bring a layer, and the duty: who drops it without having it lets another try.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    layer: Digest,
    far: Arc<AtomicU64>,
}

impl Turns {
    pub fn next(&self, layer: &Digest) -> Next<'_> {
        let mut layers = self.lock();
        layers.retain(|_, way| !matches!(way, Way::Ready(staging) if staging.strong_count() == 0));
        match layers.get(layer) {
            Some(Way::Coming(far)) => return Next::Wait(far.load(Ordering::Relaxed)),
            Some(Way::Ready(staging)) => {
                if let Some(staging) = staging.upgrade() {
                    return Next::Have(staging);
                }
            }
            None => {}
        }
        let far = Arc::new(AtomicU64::new(0));
        layers.insert(layer.clone(), Way::Coming(far.clone()));
        Next::Bring(Turn {
            turns: self,
            layer: layer.clone(),
            far,
        })
    }

    /// Until something changed, or a moment.
    pub fn wait(&self) {
        let layers = self.lock();
        drop(self.changed.wait_timeout(layers, LOOK));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Way>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// A listener who also lets those who wait know how far it is.
    pub fn told_by<'a>(&'a self, listener: &'a dyn Listener) -> impl Listener + 'a {
        Told {
            listener,
            far: &self.far,
        }
    }

    /// The layer is here, for all who want it.
    pub fn done(self, staging: &Arc<Staging>) {
        let ready = Way::Ready(Arc::downgrade(staging));
        self.turns.lock().insert(self.layer.clone(), ready);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut layers = self.turns.lock();
        if matches!(layers.get(&self.layer), Some(Way::Coming(_))) {
            layers.remove(&self.layer);
        }
        self.turns.changed.notify_all();
    }
}

struct Told<'a> {
    listener: &'a dyn Listener,
    far: &'a AtomicU64,
}

impl Listener for Told<'_> {
    fn hear(&self, news: News) {
        if let News::Progress { done, .. } = &news {
            self.far.store(*done, Ordering::Relaxed);
        }
        self.listener.hear(news);
    }

    fn is_gone(&self) -> bool {
        self.listener.is_gone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn one_brings_and_the_others_have_it_until_nobody_needs_it() {
        let scratch = Scratch::new("turns");
        let (turns, layer) = (Turns::default(), Digest::of(b"layer"));
        let Next::Bring(turn) = turns.next(&layer) else {
            panic!("nobody brings it yet")
        };
        assert!(matches!(turns.next(&layer), Next::Wait(0)));
        assert!(
            matches!(turns.next(&Digest::of(b"other")), Next::Bring(_)),
            "each layer has its turn"
        );
        drop(turn);
        let Next::Bring(turn) = turns.next(&layer) else {
            panic!("who gave up lets another try")
        };
        let staging = Arc::new(Staging::new(scratch.path()).unwrap());
        turn.done(&staging);
        assert!(matches!(turns.next(&layer), Next::Have(_)));
        drop(staging);
        assert!(matches!(turns.next(&layer), Next::Bring(_)));
    }
}
