//! `run --watch`: says when a file of the application has changed.
//!
//! It looks, once a second, instead of being told: a ConfigMap's symlink swap, an editor's rename and a file
//! on a network all look alike to whoever opens the path and reads, and there is no watch to lose. A change
//! counts once two looks in a row find the same: nobody reloads half of a file, or half of several.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::failure::{Failure, Outcome};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// A file changed this lately may change again within the same tick of its clock: its bytes are compared.
const FRESH_NS: i128 = 3_000_000_000;

/// What tells one state of a file from another. `None`: it cannot be read now.
type Mark = Option<(u64, u64, i64, i64, u64, u64)>;

/// The watching thread, as the control thread sees it.
pub(crate) struct Watch {
    files: Sender<Watched>,
}

/// Files and their state when they were read: what happens from there on is a change.
struct Watched {
    files: Vec<PathBuf>,
    marks: Vec<Mark>,
}

impl Watched {
    fn now(files: Vec<PathBuf>) -> Self {
        Self { marks: marks(&files, &[]), files }
    }
}

impl Watch {
    /// Starts the thread; `changed` is told of each change, and returns false when nobody listens any more.
    ///
    /// # Errors
    /// One line when no thread can be made.
    pub(crate) fn start(files: Vec<PathBuf>, changed: impl Fn() -> bool + Send + 'static) -> Outcome<Self> {
        let (send, receive) = channel();
        let watched = Watched::now(files);
        let look = move || watch(watched, &receive, &changed);
        thread::Builder::new()
            .name("watch".into())
            .stack_size(128 << 10)
            .spawn(look)
            .map_err(|e| Failure::line(format!("cannot watch files: {e}")))?;
        Ok(Self { files: send })
    }

    /// From now on these.
    pub(crate) fn set(&self, files: Vec<PathBuf>) {
        // A thread that has ended watches nothing.
        let _ = self.files.send(Watched::now(files));
    }
}

fn watch(watched: Watched, changes: &Receiver<Watched>, changed: &dyn Fn() -> bool) {
    let Watched { mut files, marks: mut settled } = watched;
    let mut last = settled.clone();
    loop {
        clock::sleep(LOOK);
        if let Some(other) = changes.try_iter().last() {
            Watched { files, marks: settled } = other;
            last.clone_from(&settled);
        }
        let now = marks(&files, &last);
        if now == last && now != settled && now.iter().all(Option::is_some) {
            settled.clone_from(&now);
            if !changed() {
                return;
            }
        }
        last = now;
    }
}

fn marks(files: &[PathBuf], before: &[Mark]) -> Vec<Mark> {
    files.iter().enumerate().map(|(at, file)| mark(file, before.get(at).copied().flatten())).collect()
}

/// The state of a file, symlinks followed. Its bytes are read again only where the rest cannot be trusted.
fn mark(file: &Path, before: Mark) -> Mark {
    let meta = fs::metadata(file).ok()?;
    let (dev, ino, sec, nsec, len) = (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len());
    let mtime = i128::from(sec) * 1_000_000_000 + i128::from(nsec);
    let is_old = clock::wall_ns() - mtime > FRESH_NS;
    if let Some((d, i, s, n, l, hash)) = before
        && is_old
        && (d, i, s, n, l) == (dev, ino, sec, nsec, len)
    {
        return Some((dev, ino, sec, nsec, len, hash));
    }
    let text = crate::app::read(file).ok()?;
    Some((dev, ino, sec, nsec, len, lang::digest(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_swapped_and_edited_files_have_other_marks() {
        let folder = std::env::temp_dir().join(format!("towpath-watch-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        for version in ["..1", "..2"] {
            fs::create_dir_all(folder.join(version)).unwrap();
            fs::write(folder.join(version).join("app.adn"), version).unwrap();
        }
        let at = |name: &str| folder.join(name);
        // As a ConfigMap has it: app.adn -> ..data/app.adn, ..data -> ..1
        std::os::unix::fs::symlink("..1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/app.adn", at("app.adn")).unwrap();
        let first = mark(&at("app.adn"), None);
        assert!(first.is_some());
        assert_eq!(mark(&at("app.adn"), first), first);
        std::os::unix::fs::symlink("..2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        let second = mark(&at("app.adn"), first);
        assert!(second.is_some() && second != first);
        // In its place, of the same length, within one tick of the clock.
        fs::write(at("..2/app.adn"), "..3").unwrap();
        let third = mark(&at("app.adn"), second);
        assert_ne!(third, second);
        fs::remove_file(at("..data")).unwrap();
        assert_eq!(mark(&at("app.adn"), third), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
