//! The data folder of an instance: its lock, the files beside its storage, and whether storage was ever made in it.

use boot::identity::{FILE_NAME, Identity};
use boot::{Followed, followed};
use model::{Code, Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const LOCK_NAME: &str = "picodata.lock";
const LOG_EXTENSION: &str = "xlog";

/// A data folder that this process holds the lock of, until it ends.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// A file that is being written.
pub struct Incoming<'a> {
    folder: &'a Folder,
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Incoming<'_> {
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| self.folder.failed("writing a copy", &e))
    }

    /// The file is whole: gives it its name, durably.
    pub fn keep(self) -> Result<()> {
        let keep = || {
            self.file.sync_all()?;
            fs::rename(&self.temporary, &self.path)?;
            self.folder.sync()
        };
        keep().map_err(|e| self.folder.failed("keeping a copy", &e))
    }
}

impl Folder {
    /// Makes the folder when it is missing, and locks it.
    ///
    /// Errors: `Config` when it can not be made or another process runs on it.
    pub fn open(path: &str) -> Result<Self> {
        let failed = |what: &str, e: std::io::Error| {
            Error::new(Code::Config, format!("data_dir {path}: {what}: {e}"))
                .with_hint("data_dir takes a folder that this process may make or write to")
        };
        fs::create_dir_all(path).map_err(|e| failed("can not be made", e))?;
        let path = fs::canonicalize(path).map_err(|e| failed("can not be found", e))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK_NAME));
        let lock = lock.map_err(|e| failed("can not be written", e))?;
        // SAFETY: the descriptor is open for as long as `lock` lives.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let message = format!("data_dir {}: another process runs on this folder", path.display());
            return Err(
                Error::new(Code::Config, message).with_hint("stop it, or give this instance a data_dir of its own")
            );
        }
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity kept here; None in a folder that never was an instance's.
    pub fn identity(&self) -> Result<Option<Identity>> {
        match fs::read(self.path.join(FILE_NAME)) {
            Ok(bytes) => Identity::from_bytes(&bytes).map(Some),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed("reading the identity", &e)),
        }
    }

    /// Replaces the identity, whole or not at all, and durably.
    pub fn set_identity(&self, identity: &Identity) -> Result<()> {
        let bytes = identity.to_bytes()?;
        let temporary = self.path.join(format!("{FILE_NAME}.new"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, self.path.join(FILE_NAME))?;
            self.sync()
        };
        write().map_err(|e| self.failed("writing the identity", &e))
    }

    /// The note about whom the instance followed last; None where there is none that can be read.
    pub fn followed(&self) -> Option<Followed> {
        fs::read(self.path.join(followed::FILE_NAME)).ok().and_then(|bytes| Followed::from_bytes(&bytes))
    }

    /// The host's last log, if there is one: its name is a number, and grows.
    pub fn last_log(&self) -> Result<Option<PathBuf>> {
        let is_log = |path: &PathBuf| path.extension().is_some_and(|ext| ext == LOG_EXTENSION);
        Ok(self.files_of_storage()?.into_iter().filter(is_log).max())
    }

    /// Whether the host ever finished making its storage here.
    pub fn has_storage(&self) -> Result<bool> {
        let is_whole = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "snap" || ext == LOG_EXTENSION);
        Ok(self.files_of_storage()?.iter().any(is_whole))
    }

    /// A file of storage that is on its way here: it counts when it is kept.
    pub fn incoming(&self, name: &str) -> Result<Incoming<'_>> {
        let temporary = self.path.join(format!("{name}.inprogress"));
        let file = File::create(&temporary).map_err(|e| self.failed("making a file", &e))?;
        Ok(Incoming { folder: self, file, temporary, path: self.path.join(name) })
    }

    /// Deletes what an attempt that broke off has left of the host's storage.
    pub fn clear_storage(&self) -> Result<()> {
        for file in self.files_of_storage()? {
            fs::remove_file(&file).map_err(|e| self.failed("clearing", &e))?;
        }
        forget_followed(&self.path)
    }

    fn files_of_storage(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.path).map_err(|e| self.failed("listing", &e))?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| self.failed("listing", &e))?.path();
            if path
                .extension()
                .is_some_and(|ext| ["snap", LOG_EXTENSION, "inprogress", "vylog"].iter().any(|known| ext == *known))
            {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// Writes the host's logs through to the disk, whatever their mode.
    pub fn sync_logs(&self) -> Result<()> {
        for file in self.files_of_storage()? {
            if file.extension().is_some_and(|ext| ext == LOG_EXTENSION) {
                File::open(&file).and_then(|log| log.sync_all()).map_err(|e| self.failed("syncing a log", &e))?;
            }
        }
        Ok(())
    }

    fn sync(&self) -> std::io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn failed(&self, what: &str, e: &std::io::Error) -> Error {
        Error::new(Code::Storage, format!("data_dir {}: {what}: {e}", self.path.display()))
    }
}

/// Replaces the note about whom the instance in this folder follows, whole or not at all.
pub fn keep_followed(path: &Path, followed: &Followed) -> Result<()> {
    let bytes = followed.to_bytes()?;
    let (name, temporary) = (path.join(followed::FILE_NAME), path.join(format!("{}.new", followed::FILE_NAME)));
    let kept = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &name));
    kept.map_err(|e| Error::new(Code::Storage, format!("{} can not be written: {e}", name.display())))
}

/// Deletes that note, if there is one.
pub fn forget_followed(path: &Path) -> Result<()> {
    let name = path.join(followed::FILE_NAME);
    match fs::remove_file(&name) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(Error::new(Code::Storage, format!("{} can not be deleted: {e}", name.display())))
        }
        _ => Ok(()),
    }
}
