//! Reads of the host's own structures, which have no function: trusted ones where the places were verified, and ones that
//! can not fault, to verify them.

/// How memory is read.
pub trait Memory {
    /// # Safety
    /// The address holds a `T`, unless the implementation finds that out by itself.
    unsafe fn read<T: Copy + Default>(&self, address: usize) -> Option<T>;
}

/// Plain loads.
pub struct Trusted;

impl Memory for Trusted {
    #[inline]
    unsafe fn read<T: Copy + Default>(&self, address: usize) -> Option<T> {
        // SAFETY: by the caller's promise.
        Some(unsafe { (address as *const T).read_unaligned() })
    }
}

/// Reads by the kernel, which answers an error where there is nothing.
pub struct Untrusted;

impl Memory for Untrusted {
    unsafe fn read<T: Copy + Default>(&self, address: usize) -> Option<T> {
        let mut value = T::default();
        let len = size_of::<T>();
        let local = libc::iovec { iov_base: (&raw mut value).cast(), iov_len: len };
        let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: len };
        // SAFETY: copies at most `len` bytes into `value`, which any bytes are valid for.
        let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
        (copied == len as isize).then_some(value)
    }
}
