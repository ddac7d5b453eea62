//! A stored tuple, kept alive by a reference count of the host.

use std::ptr::NonNull;
use tarantool::ffi::tarantool::{self as ffi, BoxTuple};

/// A tuple of the host. Cheap to clone and to hold across yields; it never changes.
pub struct Tuple(NonNull<BoxTuple>);

impl Tuple {
    /// Takes a reference to what a function of the host answered.
    ///
    /// # Safety
    /// `tuple` is null or a tuple that is alive now.
    pub unsafe fn from_host(tuple: *mut BoxTuple) -> Option<Tuple> {
        let tuple = NonNull::new(tuple)?;
        // SAFETY: alive by the caller's promise.
        unsafe { ffi::box_tuple_ref(tuple.as_ptr()) };
        Some(Tuple(tuple))
    }

    /// The host's pointer, valid while `self` is.
    pub fn as_ptr(&self) -> *mut BoxTuple {
        self.0.as_ptr()
    }

    /// Appends its MessagePack, an array, to `out`.
    pub fn copy_to(&self, out: &mut Vec<u8>) {
        // SAFETY: alive while `self` is.
        unsafe { append_bytes(self.as_ptr(), out) }
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.copy_to(&mut out);
        out
    }
}

impl Clone for Tuple {
    fn clone(&self) -> Self {
        // SAFETY: alive while `self` is.
        unsafe { ffi::box_tuple_ref(self.as_ptr()) };
        Tuple(self.0)
    }
}

impl Drop for Tuple {
    fn drop(&mut self) {
        // SAFETY: gives back the reference that this value took.
        unsafe { ffi::box_tuple_unref(self.as_ptr()) };
    }
}

/// Appends a tuple's MessagePack to `out`.
///
/// # Safety
/// `tuple` is alive.
pub(super) unsafe fn append_bytes(tuple: *const BoxTuple, out: &mut Vec<u8>) {
    // SAFETY: the host writes at most `len` bytes into the spare room, and answers how many there are.
    unsafe {
        let len = ffi::box_tuple_bsize(tuple);
        out.reserve(len);
        let written = ffi::box_tuple_to_buf(tuple, out.as_mut_ptr().add(out.len()).cast(), len);
        assert!(written == len as isize, "a tuple's size changed between two calls");
        out.set_len(out.len() + len);
    }
}
