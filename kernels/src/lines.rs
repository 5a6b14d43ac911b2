//! Storage in whole cache lines.

use std::ops::{Deref, DerefMut};

/// One cache line: 64 bytes, aligned to 64, so that a full vector never straddles two lines.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Line(pub [u8; 64]);

/// A zero-initialised allocation of whole cache lines. Large ones ask the operating system for huge pages: a packed
/// matrix is walked in many streams at once, and 4 KiB pages would spend the time on address translation.
#[derive(Clone, PartialEq, Eq)]
pub struct Lines(Vec<Line>);

/// Allocations from this size on ask for huge pages (two of the 2 MiB pages of x86-64).
const HUGE_BYTES: usize = 4 << 20;

impl Lines {
    /// `count` lines of zeros.
    ///
    /// # Panics
    /// As `Vec` does: if the size overflows `isize` or memory is exhausted. Callers bound sizes that come from outside.
    pub fn zeroed(count: usize) -> Lines {
        let mut lines: Vec<Line> = bytemuck::zeroed_vec(count);
        advise_huge_pages(bytemuck::cast_slice_mut(&mut lines));
        Lines(lines)
    }

    /// The lines as bytes.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    /// The lines as bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        &self.0
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        &mut self.0
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lines({} of 64 bytes)", self.0.len())
    }
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(bytes: &mut [u8]) {
    const PAGE: usize = 4096;
    if bytes.len() < HUGE_BYTES {
        return;
    }
    let start = bytes.as_mut_ptr().align_offset(PAGE);
    let len = (bytes.len() - start) / PAGE * PAGE;
    // SAFETY: the range lies inside the live allocation, its start is page-aligned, and MADV_HUGEPAGE changes no
    // contents. The call is a hint; its result does not matter.
    unsafe { libc::madvise(bytes.as_mut_ptr().add(start).cast(), len, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(bytes: &mut [u8]) {
    let _ = (bytes.len(), HUGE_BYTES);
}
