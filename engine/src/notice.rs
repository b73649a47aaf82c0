//! Notices that files in a directory change, by inotify: one instance of it for the whole daemon, as a user may have few.

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::{
    io::unix::AsyncFd,
    sync::watch,
    task::{JoinHandle, spawn},
};

/// What is noticed: something is written, renamed, made or gone.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Who is told of changes, by directory.
#[derive(Default)]
pub(crate) struct Notices {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    inotify: Option<Arc<AsyncFd<Descriptor>>>,
    reader: Option<JoinHandle<()>>,
    /// By watch descriptor.
    listeners: HashMap<i32, watch::Sender<()>>,
}

/// What tokio can wait for.
struct Descriptor(Inotify);

/// As long as this lives, changes are told.
pub(crate) struct Notice {
    changes: watch::Receiver<()>,
    watched: WatchDescriptor,
    state: Weak<Mutex<State>>,
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Notices {
    /// Tells of changes in a directory from now on. Fails when the kernel has no watch left (`fs.inotify.max_user_watches`).
    pub fn of(&self, directory: &Path) -> std::io::Result<Notice> {
        let mut state = lock(&self.state);
        let inotify = match &state.inotify {
            Some(inotify) => inotify.clone(),
            None => {
                let new = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
                // SAFETY: the descriptor belongs to what is registered, which gives it to nobody and closes it last.
                let new = Arc::new(unsafe { AsyncFd::register(Descriptor(new)) }?);
                state.reader = Some(spawn(tell(new.clone(), Arc::downgrade(&self.state))));
                state.inotify = Some(new.clone());
                new
            }
        };
        // a directory that is watched already has the same descriptor again
        let watched = inotify.get_ref().0.add_watch(directory, CHANGES)?;
        let sender = state
            .listeners
            .entry(watched.as_raw())
            .or_insert_with(|| watch::Sender::new(()));
        Ok(Notice {
            changes: sender.subscribe(),
            watched,
            state: Arc::downgrade(&self.state),
        })
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        if let Some(reader) = lock(&self.state).reader.take() {
            reader.abort();
        }
    }
}

impl Notice {
    /// What has changed so far is known; the next change counts.
    pub fn mark(&mut self) {
        self.changes.mark_unchanged();
    }

    /// Something has changed since [`mark`](Self::mark).
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // nobody tells any more: the directory is gone, or the daemon ends
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        let Some(state) = self.state.upgrade() else { return };
        let mut state = lock(&state);
        let raw = self.watched.as_raw();
        // this one's receiver still counts
        if state
            .listeners
            .get(&raw)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            state.listeners.remove(&raw);
            if let Some(inotify) = &state.inotify {
                // fine when the directory, and its watch with it, is gone
                let _ = inotify.get_ref().0.rm_watch(self.watched);
            }
        }
    }
}

async fn tell(inotify: Arc<AsyncFd<Descriptor>>, state: Weak<Mutex<State>>) {
    loop {
        let Ok(mut ready) = inotify.readable().await else {
            return;
        };
        let events = inotify.get_ref().0.read_events();
        ready.clear_ready();
        let Some(state) = state.upgrade() else { return };
        let state = lock(&state);
        for event in events.into_iter().flatten() {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                state.listeners.values().for_each(|sender| sender.send_modify(|()| {}));
            } else if let Some(sender) = state.listeners.get(&event.wd.as_raw()) {
                sender.send_modify(|()| {});
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_of_a_directory_are_told_to_all_who_asked() {
        let directory = std::env::temp_dir().join(format!("sluice-engine-notice-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let notices = Notices::default();
        let (mut one, mut other) = (notices.of(&directory).unwrap(), notices.of(&directory).unwrap());
        one.mark();
        std::fs::write(directory.join("file"), "x").unwrap();
        one.changed().await;
        other.changed().await;
        drop(one);
        other.mark();
        std::fs::rename(directory.join("file"), directory.join("file.1")).unwrap();
        other.changed().await;
        drop(other);
        assert!(lock(&notices.state).listeners.is_empty());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
