//! Products of ternary weights {-1, 0, 1} and int8 activations.
//!
//! A layout is a module: its drawing, its `Format`, its variants and its line in [`Layout`]. All compute
//! `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]`: the sum in integers, then one conversion to `f32` and one
//! multiplication, so that layouts agree bit for bit with each other as well (an op that declares a tolerance aside).

mod format;
mod guest;
pub mod i2;
pub mod i2_rows;
mod matrix;
#[cfg(target_arch = "x86_64")]
pub(crate) mod panel;
pub(crate) mod product;
pub mod t5;
pub mod tl2;
pub mod tmac;
pub mod tmac8;

use crate::{Kernels, Line};

pub use guest::{GuestLayout, GuestProduct};
pub use matrix::{Layout, TernaryMatrix, TernaryRows};

/// Quantised activations of T tokens: what a ternary product reads.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    /// Codes in -128..=127, `[T, stride]`; columns from the matrix's width to `stride` are zero.
    pub codes: &'a [i8],
    /// Distance between two tokens' rows in `codes`: the matrix's width rounded up to [`Activations::GROUP`].
    pub stride: usize,
    /// The sum of each token's codes, `[T]`.
    pub sums: &'a [i32],
    /// What each token's integer result is multiplied by, `[T]`: weight scale over activation scale.
    pub scales: &'a [f32],
    /// What [`Kernels::ternary_tables`] made of the codes, [`Kernels::ternary_table_lines`] long.
    pub tables: &'a [Line],
}

impl Activations<'_> {
    /// Codes are padded to a multiple of this many columns.
    pub const GROUP: usize = 64;

    /// `columns` rounded up to [`Activations::GROUP`].
    pub const fn stride_for(columns: usize) -> usize {
        columns.div_ceil(Activations::GROUP) * Activations::GROUP
    }
}

/// The weights as a variant sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights<'a> {
    /// Rows to compute; the last tile may be part empty.
    pub(crate) rows: usize,
    /// Groups of columns.
    pub(crate) groups: usize,
    /// `[tiles, groups, lines of a group]`.
    pub(crate) lines: &'a [Line],
}

/// How one ISA level computes the products of a layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Method {
    /// Weights, activations, out `[rows, T]`.
    pub(crate) matmul: unsafe fn(Weights<'_>, Activations<'_>, &mut [f32]),
    /// What makes the lookup tables that `matmul` reads, if it does.
    pub(crate) tables: Option<Tables>,
}

impl Method {
    /// A product that reads codes alone.
    pub(crate) const fn plain(matmul: unsafe fn(Weights<'_>, Activations<'_>, &mut [f32])) -> Method {
        Method { matmul, tables: None }
    }

    /// A product that reads lookup tables.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "the scalar products look nothing up"))]
    pub(crate) const fn lookup(matmul: unsafe fn(Weights<'_>, Activations<'_>, &mut [f32]), tables: Tables) -> Method {
        Method { matmul, tables: Some(tables) }
    }
}

/// Lookup tables of the activations: they are the same for all rows, so that threads share them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    /// Lines for so many groups of columns and so many tokens.
    pub(crate) lines: fn(usize, usize) -> usize,
    /// Codes `[T, stride]`, stride (at least 1), groups of columns, tables.
    pub(crate) make: unsafe fn(&[i8], usize, usize, &mut [Line]),
}

/// Sums stay below 2^31 for rows of fewer columns than this; each layout's module says how.
const MAX_COLUMNS: usize = 1 << 21;

/// The checks before a method of a table is called.
impl Method {
    fn table_lines(&self, layout: Layout, columns: usize, tokens: usize) -> usize {
        let groups = columns.div_ceil(layout.format().group_columns);
        self.tables.map_or(0, |tables| (tables.lines)(groups, tokens))
    }

    fn make_tables(&self, layout: Layout, columns: usize, codes: &[i8], tables: &mut [Line]) {
        let stride = Activations::stride_for(columns);
        let tokens = codes.len() / stride.max(1);
        assert_eq!(codes.len(), tokens * stride, "codes of {tokens} tokens of {columns} columns");
        assert_eq!(tables.len(), self.table_lines(layout, columns, tokens), "lines of tables of {tokens} tokens");
        let Some(method) = self.tables.filter(|_| !tables.is_empty()) else { return };
        // SAFETY: methods lie in tables of kernels, and such a table exists only if the CPU has its features.
        unsafe { (method.make)(codes, stride, columns.div_ceil(layout.format().group_columns), tables) }
    }

    fn product(&self, weights: TernaryRows<'_>, x: Activations<'_>, out: &mut [f32]) {
        let (rows, columns, tokens) = (weights.rows(), weights.cols, x.scales.len());
        assert_eq!(x.stride, Activations::stride_for(columns), "stride of codes for {columns} columns");
        assert_eq!(x.codes.len(), tokens * x.stride, "codes of {tokens} tokens");
        assert_eq!(x.sums.len(), tokens, "sums of {tokens} tokens");
        assert_eq!(out.len(), rows * tokens, "out [{rows}, {tokens}]");
        let lines = self.table_lines(weights.layout, columns, tokens);
        assert_eq!(x.tables.len(), lines, "lines of tables of {tokens} tokens");
        assert!(columns < MAX_COLUMNS, "{columns} columns could overflow 32-bit sums");
        if out.is_empty() {
            return;
        }
        // SAFETY: methods lie in tables of kernels, and such a table exists only if the CPU has its features.
        unsafe { (self.matmul)(weights.weights, x, out) }
    }
}

impl Kernels {
    fn ternary(&self, layout: Layout) -> &Method {
        match layout {
            Layout::I2 => &self.ternary_i2,
            Layout::I2Rows => &self.ternary_i2_rows,
            Layout::T5 => &self.ternary_t5,
            Layout::Tmac => &self.ternary_tmac,
            Layout::Tl2 => &self.ternary_tl2,
        }
    }

    /// Lines of lookup tables that [`Kernels::ternary_matmul`] wants for a layout, a matrix of so many columns and so many
    /// tokens: 0 where it reads the codes themselves.
    pub fn ternary_table_lines(&self, layout: Layout, columns: usize, tokens: usize) -> usize {
        self.ternary(layout).table_lines(layout, columns, tokens)
    }

    /// Makes the lookup tables of T tokens for products in `layout` with matrices of `columns` columns. Codes
    /// `[T, stride]`; tables [`Kernels::ternary_table_lines`] long. Does nothing where that is 0.
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn ternary_tables(&self, layout: Layout, columns: usize, codes: &[i8], tables: &mut [Line]) {
        self.ternary(layout).make_tables(layout, columns, codes, tables);
    }

    /// `out[r, t] = (w · q)[r, t] * scales[t]`; out `[R, T]`. See [`crate::ternary`].
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn ternary_matmul(&self, weights: TernaryRows<'_>, x: Activations<'_>, out: &mut [f32]) {
        self.ternary(weights.layout).product(weights, x, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Lines, Rng};

    #[test]
    fn every_packed_byte_means_the_same_on_every_isa() {
        // Every byte in every place of a line, those that are never written too: byte i of line g is g + i mod 256.
        for layout in [Layout::Tmac, Layout::Tl2] {
            let format = layout.format();
            let (groups, rows, columns) = (256, format.tile_rows, 256 * format.group_columns);
            let mut lines = Lines::zeroed(groups * format.group_lines);
            for (g, line) in lines.iter_mut().enumerate() {
                for (i, byte) in line.0.iter_mut().enumerate() {
                    *byte = (g + i) as u8;
                }
            }
            let weights = Weights { rows, groups, lines: &lines };
            let mut rng = Rng::new(3);
            for tokens in [1, 2, 3, 5] {
                let stride = Activations::stride_for(columns);
                let codes: Vec<i8> = (0..tokens * stride).map(|_| rng.below(256) as u8 as i8).collect();
                let sums: Vec<i32> = codes.chunks(stride).map(|row| row.iter().map(|q| i32::from(*q)).sum()).collect();
                let x = Activations { codes: &codes, stride, sums: &sums, scales: &vec![1.0; tokens], tables: &[] };
                let product = |isa| {
                    let kernels = Kernels::for_isa(isa).expect("available");
                    let mut tables = Lines::zeroed(kernels.ternary_table_lines(layout, columns, tokens));
                    kernels.ternary_tables(layout, columns, &codes, &mut tables);
                    let mut out = vec![f32::NAN; rows * tokens];
                    // SAFETY: the table exists, so the CPU has the variant's features; the shapes agree.
                    unsafe {
                        (kernels.ternary(layout).matmul)(weights, Activations { tables: &tables, ..x }, &mut out)
                    };
                    out
                };
                for isa in Isa::available() {
                    assert_eq!(product(isa), product(Isa::Scalar), "{layout}, {tokens} tokens on {isa}");
                }
            }
        }
    }
}
