//! What the operating system is asked about pages of memory: their size, huge ones, and the memory nodes that they lie on.
//!
//! All of it is advice. A system that refuses, as containers often do, leaves memory where it is: slower at worst, never
//! wrong.
//!
//! **Nodes** A machine with several sockets (or with one that is cut in several nodes) reads what lies near it faster than
//! the rest. Linux places a page on the node of the thread that first touches it, so caches and scratch memory are near who
//! uses them, but weights all lie near the thread that loaded them, and every other node reads them through one memory
//! controller. The members of a team take blocks of rows as they come, so no row belongs to one thread; weights are
//! therefore interleaved: page after page on node after node, so that all controllers serve all threads alike. Matrices
//! below [`LARGE_BYTES`] lie whole where the thread was that packed them; all threads take part in that.
//!
//! **Not done** Rows pinned to the threads of a node, or a copy of the weights for each node: the first needs a plan that
//! knows nodes, the second twice the memory. Mapped files lie where the page cache put them. The gain of interleaving has
//! not been measured: no machine with several nodes was at hand, and with one node nothing is asked for.

/// Allocations from this size on ask for huge pages (two of the 2 MiB pages of x86-64), and weights for interleaving.
const LARGE_BYTES: usize = 4 << 20;

/// Bytes of an ordinary page, where the system tells.
pub fn page_bytes() -> Option<usize> {
    system::page_bytes()
}

/// Asks for huge pages where the allocation is large.
pub(crate) fn advise_huge(bytes: &mut [u8]) {
    if bytes.len() >= LARGE_BYTES {
        system::advise_huge(bytes);
    }
}

/// Asks that the pages of a large allocation take turns on the nodes of the machine, those that are already touched too.
pub(crate) fn interleave(bytes: &mut [u8]) {
    if bytes.len() >= LARGE_BYTES {
        system::interleave(bytes);
    }
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod system {
    use std::sync::OnceLock;

    /// A bit for each node that Linux can have.
    pub(super) type Nodes = [u64; 16];

    /// Bits of [`Nodes`]; the kernel takes a mask to be one bit shorter than it is told.
    const BITS: usize = 16 * 64 + 1;
    /// `MPOL_F_MEMS_ALLOWED` of linux/mempolicy.h.
    const MEMS_ALLOWED: usize = 1 << 2;
    /// `MPOL_MF_MOVE`: pages that are already somewhere else move.
    const MOVE: usize = 1 << 1;

    pub(super) fn page_bytes() -> Option<usize> {
        // SAFETY: the call reads no memory of ours.
        usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok().filter(|bytes| *bytes > 0)
    }

    pub(super) fn advise_huge(bytes: &mut [u8]) {
        let pages = whole_pages(bytes);
        // SAFETY: the range lies inside a live allocation that is borrowed mutably, its start is page-aligned, and
        // MADV_HUGEPAGE changes no contents. The call is a hint; its result does not matter.
        unsafe { libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_HUGEPAGE) };
    }

    pub(super) fn interleave(bytes: &mut [u8]) {
        static ALLOWED: OnceLock<Nodes> = OnceLock::new();
        let nodes = ALLOWED.get_or_init(allowed);
        if nodes.iter().map(|word| word.count_ones()).sum::<u32>() > 1 {
            // A refusal (no right to it in a container, a kernel built without it) leaves the pages where they are.
            interleave_over(whole_pages(bytes), nodes);
        }
    }

    /// The nodes that this process may have memory of; none where the system does not tell.
    pub(super) fn allowed() -> Nodes {
        let mut nodes: Nodes = [0; 16];
        let (no_mode, no_address) = (0usize, 0usize);
        // SAFETY: the kernel writes at most BITS - 1 bits, which is what `nodes` has; the other pointer is null, which it
        // allows.
        let failed = unsafe {
            libc::syscall(libc::SYS_get_mempolicy, no_mode, nodes.as_mut_ptr(), BITS, no_address, MEMS_ALLOWED)
        };
        if failed == 0 { nodes } else { [0; 16] }
    }

    /// Whether the system did it. The policy stays with the addresses: should the allocator use them again for something
    /// else, that lies interleaved too, which does no harm.
    pub(super) fn interleave_over(pages: &mut [u8], nodes: &Nodes) -> bool {
        let (address, mode) = (pages.as_mut_ptr(), libc::MPOL_INTERLEAVE as usize);
        // SAFETY: the range lies inside a live allocation that is borrowed mutably and starts at a page; the kernel reads
        // BITS - 1 bits of the mask, which is what it has. Contents do not change where pages move.
        let failed = unsafe { libc::syscall(libc::SYS_mbind, address, pages.len(), mode, nodes.as_ptr(), BITS, MOVE) };
        failed == 0
    }

    /// The pages that lie wholly in a range of bytes.
    pub(super) fn whole_pages(bytes: &mut [u8]) -> &mut [u8] {
        let page = page_bytes().unwrap_or(4096);
        let start = bytes.as_ptr().align_offset(page).min(bytes.len());
        let len = (bytes.len() - start) / page * page;
        &mut bytes[start..start + len]
    }
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
mod system {
    pub(super) fn page_bytes() -> Option<usize> {
        None
    }

    pub(super) fn advise_huge(_: &mut [u8]) {}

    pub(super) fn interleave(_: &mut [u8]) {}
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[cfg(test)]
mod tests {
    use super::system::{allowed, interleave_over, whole_pages};
    use super::*;

    #[test]
    fn whole_pages_lie_inside_and_leave_less_than_a_page_on_either_side() {
        let page = page_bytes().expect("Linux tells");
        assert!(page.is_power_of_two() && page >= 4096);
        let mut bytes = vec![0u8; 5 * page];
        for (from, to) in [(0, 5 * page), (1, 5 * page), (page - 1, 3 * page + 7), (3, 9), (0, 0)] {
            let range = &mut bytes[from..to];
            let (start, end) = (range.as_ptr() as usize, range.as_ptr() as usize + range.len());
            let pages = whole_pages(range);
            let first = pages.as_ptr() as usize;
            assert!(pages.len().is_multiple_of(page) && first >= start && first + pages.len() <= end);
            if !pages.is_empty() {
                assert!(first.is_multiple_of(page) && first - start < page && end - first - pages.len() < page);
            }
        }
    }

    /// Asks the kernel itself, over the nodes that there are, be it one: a wrong argument would be refused as invalid.
    #[test]
    fn interleaving_is_understood_and_changes_no_contents() {
        let nodes = allowed();
        let mut bytes: Vec<u8> = (0..LARGE_BYTES + 5).map(|i| (i * 31 % 251) as u8).collect();
        let before = bytes.clone();
        if nodes == [0; 16] || !interleave_over(whole_pages(&mut bytes), &nodes) {
            let error = std::io::Error::last_os_error();
            let refused = [libc::EPERM, libc::ENOSYS];
            assert!(error.raw_os_error().is_some_and(|code| refused.contains(&code)), "{error}");
            return;
        }
        let mut mode = -1i32;
        let at_address = 1usize << 1; // MPOL_F_ADDR
        let pages = whole_pages(&mut bytes).as_ptr();
        // SAFETY: the kernel writes one int; the mask is null, which it allows.
        let failed =
            unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, 0usize, 0usize, pages, at_address) };
        assert_eq!((failed, mode), (0, libc::MPOL_INTERLEAVE));
        assert!(bytes == before);
        interleave(&mut bytes);
        assert!(bytes == before);
    }
}
