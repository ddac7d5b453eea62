//! The process begins again: the same program, arguments and folder, with nothing in memory.
//!
//! How it was begun is remembered when the module is loaded, because `box.cfg` changes the folder and the host writes a title
//! over its arguments.

use model::{Code, Error};
use std::ffi::{CString, c_int, c_void};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// How the process was begun.
struct Beginning {
    program: CString,
    arguments: Vec<CString>,
    folder: PathBuf,
}

/// Not of a thread: it is needed when those are gone.
static BEGINNING: OnceLock<Beginning> = OnceLock::new();

/// Whether the process begins again when the host ends it with an error.
static IS_TIRELESS: AtomicBool = AtomicBool::new(false);
/// The pause before that.
const TIRELESS_PAUSE_US: u32 = 1_000_000;

/// Remembers how this process was begun. On the tx thread, before `box.cfg`.
pub fn remember() {
    if let Some(beginning) = read() {
        let _ = BEGINNING.set(beginning);
    }
}

fn read() -> Option<Beginning> {
    let program = CString::new(std::fs::read_link("/proc/self/exe").ok()?.into_os_string().into_vec()).ok()?;
    let line = std::fs::read("/proc/self/cmdline").ok()?;
    let words = line.strip_suffix(&[0])?.split(|byte| *byte == 0);
    let arguments = words.map(|word| CString::new(word).ok()).collect::<Option<Vec<_>>>()?;
    Some(Beginning { program, arguments, folder: std::env::current_dir().ok()? })
}

/// Begins again. All files and connections of this process are closed by that, its locks and threads are gone, and it
/// keeps its number. Returns only when that was not possible.
pub fn begin_again() -> Error {
    let failed = |what: &str| {
        let cause = std::io::Error::last_os_error();
        Error::new(Code::Storage, format!("the process can not begin again: {what}: {cause}"))
            .with_hint("stop it and start it again")
    };
    let Some(beginning) = BEGINNING.get() else {
        return Error::new(Code::Storage, "the process can not begin again: it is not known how it was begun")
            .with_hint("stop it and start it again");
    };
    if close_on_exec().is_none() || std::env::set_current_dir(&beginning.folder).is_err() {
        return failed("preparing for it");
    }
    let mut arguments: Vec<*const libc::c_char> = beginning.arguments.iter().map(|word| word.as_ptr()).collect();
    arguments.push(std::ptr::null());
    // SAFETY: strings that end in 0, the last pointer is null; the mask is set up before it is used.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut mask);
        libc::pthread_sigmask(libc::SIG_SETMASK, &mask, std::ptr::null_mut());
        libc::execv(beginning.program.as_ptr(), arguments.as_ptr());
    }
    failed("execv")
}

/// Has the process begin again, after a pause, when the host ends it with an error status: it does so where storage can not
/// be opened. Asked to end, it ends.
pub fn set_tireless(is_tireless: bool) {
    unsafe extern "C" {
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
    IS_TIRELESS.store(is_tireless, Ordering::Relaxed);
    if is_tireless && !IS_REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: the module stays loaded as long as the process lives.
        unsafe { on_exit(at_exit, std::ptr::null_mut()) };
    }
}

extern "C" fn at_exit(status: c_int, _: *mut c_void) {
    if status != 0 && IS_TIRELESS.load(Ordering::Relaxed) {
        // SAFETY: only waits; the host runs nothing any more.
        unsafe { libc::usleep(TIRELESS_PAUSE_US) };
        begin_again();
    }
}

/// Marks every file but the three standard ones to be closed by `execv`.
fn close_on_exec() -> Option<()> {
    for entry in std::fs::read_dir("/proc/self/fd").ok()? {
        let number: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        if number > 2 {
            // SAFETY: sets a flag of a descriptor; one that is closed meanwhile answers an error, which is fine.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Some(())
}
