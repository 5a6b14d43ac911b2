//! The machine's `libopenblas`, found by its loader.

/// What is called of the library.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Library {
    sgemm: Sgemm,
    sgemv: Sgemv,
}

/// `cblas_sgemm`: order, two transpositions, M, N, K, alpha, A, its leading dimension, B, its, beta, C, its.
type Sgemm =
    unsafe extern "C" fn(i32, i32, i32, i32, i32, i32, f32, *const f32, i32, *const f32, i32, f32, *mut f32, i32);
/// `cblas_sgemv`: order, transposition, M, N, alpha, A, its leading dimension, x, its step, beta, y, its step.
type Sgemv = unsafe extern "C" fn(i32, i32, i32, i32, f32, *const f32, i32, *const f32, i32, f32, *mut f32, i32);

/// CblasRowMajor, CblasNoTrans and CblasTrans.
const ROW_MAJOR: i32 = 101;
const AS_IS: i32 = 111;
const TRANSPOSED: i32 = 112;

impl Library {
    /// `out = w · x^T`: w `[R, cols]`, x `[T, cols]`, out `[R, T]`, none empty.
    pub(crate) fn product(&self, weights: &[f32], x: &[f32], cols: usize, out: &mut [f32]) {
        let size = |n: usize| i32::try_from(n).expect("sizes that CBLAS can express");
        let (rows, tokens) = (weights.len() / cols, x.len() / cols);
        assert!(weights.len() == rows * cols && x.len() == tokens * cols && out.len() == rows * tokens);
        let (r, c, t) = (size(rows), size(cols), size(tokens));
        let (w, x, out) = (weights.as_ptr(), x.as_ptr(), out.as_mut_ptr());
        // SAFETY: the functions have the types that CBLAS gives them, and the sizes are those of the slices, which were
        // checked above; with beta 0 the result is written, not read.
        unsafe {
            if tokens == 1 {
                (self.sgemv)(ROW_MAJOR, AS_IS, r, c, 1.0, w, c, x, 1, 0.0, out, 1);
            } else {
                (self.sgemm)(ROW_MAJOR, AS_IS, TRANSPOSED, r, t, c, 1.0, w, c, x, c, 0.0, out, t);
            }
        }
    }
}

/// The library, loaded by the first call; `None` where there is none.
#[cfg(unix)]
pub(crate) fn get() -> Option<&'static Library> {
    use std::sync::OnceLock;
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    LIBRARY.get_or_init(load).as_ref()
}

/// Other systems have other loaders.
#[cfg(not(unix))]
pub(crate) fn get() -> Option<&'static Library> {
    None
}

#[cfg(unix)]
fn load() -> Option<Library> {
    use std::ffi::{CStr, c_void};
    use std::mem::transmute;
    const NAMES: [&CStr; 3] = [c"libopenblas.so.0", c"libopenblas.so", c"libopenblas.dylib"];
    let open = |name: &CStr| {
        // SAFETY: the name ends in a zero; the library's initialisers are those of a system library.
        unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) }
    };
    let handle = NAMES.into_iter().map(open).find(|handle| !handle.is_null())?;
    let symbol = |name: &CStr| -> Option<*mut c_void> {
        // SAFETY: the handle is that of a library which is never closed; the name ends in a zero.
        let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    };
    let (sgemm, sgemv) = (symbol(c"cblas_sgemm")?, symbol(c"cblas_sgemv")?);
    if let Some(address) = symbol(c"openblas_set_num_threads") {
        // SAFETY: this is the type that OpenBLAS gives the function.
        let set_threads: unsafe extern "C" fn(i32) = unsafe { transmute(address) };
        // SAFETY: any number of threads from 1 on is valid.
        unsafe { set_threads(1) };
    }
    // SAFETY: these are the types that CBLAS gives the functions; LP64 builds, whose name this is, have 32-bit sizes.
    unsafe {
        Some(Library { sgemm: transmute::<*mut c_void, Sgemm>(sgemm), sgemv: transmute::<*mut c_void, Sgemv>(sgemv) })
    }
}
