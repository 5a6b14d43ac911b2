//! The exact best logits of a head, most of whose rows are never read.
//!
//! **Computes** the k largest logits and their tokens, largest first, of equal ones the lower token first: the same
//! tokens, the same order and the same bits as the whole product followed by `top_k`. A coarse copy of the head gives
//! each row a score and a proved bound on how far its logit can be from it (`bound.rs`). The logits of the k best scores
//! are computed from the head itself; the smallest of them is a floor that the k-th best logit cannot be below. A row
//! whose score and bound together stay below that floor cannot be among the k best, nor tie with them; all others are
//! computed and ranked.
//!
//! **Layout** a [`GroupedMatrix`] beside the head, 4.5 or 8.5 bits a weight, and 12 bytes a row for the bound.
//!
//! **Shapes** head `V × C`, x `[C]`, one token; tokens and logits `[k]`, k <= V.
//!
//! **Numbers** see `bound.rs`; a token that is not finite or too large for the proof has all its rows computed.
//!
//! **Exactness** exact, whatever the bound lets through, and so the same bits everywhere. Scores and reaches have the
//! same bits everywhere too, so that the number of rows read is a property of head and token.
//!
//! **Cost** the coarse copy is read whole, 9·V·C/16 bytes in four bits, and of the head the rows that the bound lets
//! through; beyond half of the rows the head is read whole. Of a random head, with logits of standard deviation s, the
//! bound is near 0.09 · sqrt(C) · s in four bits and near 0.01 · sqrt(C) · s in eight: 1.4 s and 0.2 s for C = 256, 4.5
//! s and 0.5 s for C = 2560. A row is read if it is no farther than that below the k-th best. So four bits suffice
//! where the best is far from the crowd (from 8 s on for C = 2560) or C is small; a token of noise, whose best of 16
//! 384 is 4 s away, lets most rows through, and the four bits are lost. Eight bits suffice for both, and for forty
//! tokens.
//!
//! **Source** bounds by Cauchy-Schwarz for exact maximum inner product search: Ram and Gray, KDD 2012; Teflioudi,
//! Gemulla and Mykytiuk, LEMP, SIGMOD 2015. Coarse product as in [`crate::grouped`].
//!
//! **Variants** AVX-512 and AVX2: scores and reaches of eight and of four tiles far apart. Bounds and the search for
//! rows are plain code over `[V]`.
//!
//! **Tried and dropped** bounds row by row in a struct (the compiler makes no vectors of it).
//!
//! **Not done** a floor of lower bounds, which the logits of the best scores exceed by up to twice the bound; three
//! stages. Copies of fewer bits are [`planes`]. A copy of the directions that tokens prefer would say more, and needs
//! tokens to learn them from.

mod bound;
pub mod planes;

use crate::grouped::codes::Codes;
use crate::grouped::{Activations, GroupedMatrix, GroupedRows, Layout, PackError, Weights};
use crate::probe::{Arithmetic, Op, Shape, Work};
use crate::{Element, Kernels, Rng};
use bound::{Reads, RowBounds, TokenBound};
use half::bf16;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// Coarse weights, one token's codes, norms of its groups `[G]`, scores and reaches `[2, V]`.
pub(crate) type Variant = unsafe fn(Weights<'_>, Activations<'_>, &[f32], &mut [f32]);

/// Rows whose bounds are compared with the floor at a time: a multiple of every [`Head::ROWS_AT_ONCE`].
const STRIDE: usize = 64;

/// What exact logits are computed from.
pub trait Head {
    /// Rows are computed so many at a time.
    const ROWS_AT_ONCE: usize;
    /// Tokens, V.
    fn rows(&self) -> usize;
    /// Columns, C.
    fn cols(&self) -> usize;
    /// Bytes of one row.
    fn row_bytes(&self) -> usize;
    /// Whether the products are of the codes, and not of the activations themselves.
    fn reads_codes(&self) -> bool;
    /// The logits of some rows, from a multiple of [`Head::ROWS_AT_ONCE`] to another or to the end.
    fn logits(&self, kernels: &Kernels, x: &[f32], codes: Activations<'_>, rows: Range<usize>, out: &mut [f32]);
}

/// A head of f32, bf16 or f16 rows: its logits are those of [`Kernels::dense_matmul`].
#[derive(Clone, Copy, Debug)]
pub struct DenseHead<'a, E> {
    /// `[V, C]`.
    pub weights: &'a [E],
    /// Columns, C.
    pub cols: usize,
}

impl<E: Element> Head for DenseHead<'_, E> {
    const ROWS_AT_ONCE: usize = 1;

    fn rows(&self) -> usize {
        self.weights.len() / self.cols
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn row_bytes(&self) -> usize {
        self.cols * size_of::<E>()
    }

    fn reads_codes(&self) -> bool {
        false
    }

    fn logits(&self, kernels: &Kernels, x: &[f32], _: Activations<'_>, rows: Range<usize>, out: &mut [f32]) {
        let weights = &self.weights[rows.start * self.cols..rows.end * self.cols];
        kernels.dense_matmul(weights, x, self.cols, out);
    }
}

/// A head in groups: its logits are those of [`Kernels::grouped_matmul`].
impl Head for &GroupedMatrix {
    const ROWS_AT_ONCE: usize = Layout::TILE_ROWS;

    fn rows(&self) -> usize {
        GroupedMatrix::rows(self)
    }

    fn cols(&self) -> usize {
        GroupedMatrix::cols(self)
    }

    fn row_bytes(&self) -> usize {
        self.bytes() / GroupedMatrix::rows(self).next_multiple_of(Layout::TILE_ROWS).max(1)
    }

    fn reads_codes(&self) -> bool {
        true
    }

    fn logits(&self, kernels: &Kernels, _: &[f32], codes: Activations<'_>, rows: Range<usize>, out: &mut [f32]) {
        kernels.grouped_matmul(self.row_range(rows), codes, out);
    }
}

/// The coarse copy of a head, with what the bounds need of its rows.
#[derive(Clone, Debug)]
pub struct Screen {
    coarse: GroupedMatrix,
    bounds: RowBounds,
}

impl Screen {
    /// Screens for a head of `rows` rows that `fill` writes, `[cols]` each.
    ///
    /// # Errors
    /// A weight that is not finite or too large for the copy.
    ///
    /// # Panics
    /// If there are 2^20 columns or more.
    pub fn from_rows(
        rows: usize,
        cols: usize,
        layout: Layout,
        mut fill: impl FnMut(usize, &mut [f32]),
    ) -> Result<Screen, PackError> {
        assert!(cols < bound::MAX_COLUMNS, "{cols} columns are more than the bound is proved for");
        let coarse = GroupedMatrix::from_rows(rows, cols, layout, &mut fill)?;
        let (mut exact, mut copy) = (vec![0.0; cols], vec![0.0; cols]);
        let mut bounds = RowBounds::default();
        for r in 0..rows {
            fill(r, &mut exact);
            coarse.unpack_row(r, &mut copy);
            let scales = (0..cols).step_by(GroupedMatrix::GROUP).map(|c| coarse.get(r, c).1);
            bounds.push(&exact, &copy, scales);
        }
        Ok(Screen { coarse, bounds })
    }

    /// Screens for a dense head `[V, cols]`.
    ///
    /// # Errors
    /// A weight that is not finite or too large for the copy.
    pub fn of_dense<E: Element>(head: DenseHead<'_, E>, layout: Layout) -> Result<Screen, PackError> {
        Screen::from_rows(head.rows(), head.cols, layout, |r, out| {
            for (out, weight) in out.iter_mut().zip(&head.weights[r * head.cols..][..head.cols]) {
                *out = weight.widen();
            }
        })
    }

    /// Screens for a head in groups.
    ///
    /// # Errors
    /// A weight that is too large for the copy.
    pub fn of_grouped(head: &GroupedMatrix, layout: Layout) -> Result<Screen, PackError> {
        Screen::from_rows(head.rows(), head.cols(), layout, |r, out| head.unpack_row(r, out))
    }

    /// Bytes of the copy and of the bounds.
    pub fn bytes(&self) -> usize {
        self.coarse.bytes() + self.bounds.bytes()
    }

    /// The coarse copy itself.
    pub fn coarse(&self) -> GroupedRows<'_> {
        self.coarse.view()
    }
}

/// Room for one screening at a time, made once.
#[derive(Clone, Debug)]
pub struct Scratch {
    codes: Codes,
    norms: Vec<f32>,
    /// Scores and reaches `[2, V]`; then logits and what they cannot exceed.
    out: Vec<f32>,
    rows: Vec<u32>,
}

impl Scratch {
    /// For a head of `rows` rows and `cols` columns.
    pub fn new(rows: usize, cols: usize) -> Scratch {
        Scratch {
            codes: Codes::new(1, cols),
            norms: vec![0.0; Activations::stride_for(cols) / GroupedMatrix::GROUP],
            out: vec![0.0; 2 * rows],
            rows: vec![0; rows],
        }
    }
}

/// What a screening cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Rows of the head that were computed.
    pub rows: usize,
    /// Bytes that were read: of the coarse copy and its bounds, and of those rows.
    pub bytes: usize,
    /// Bytes of the whole head.
    pub head_bytes: usize,
}

impl Kernels {
    /// The k best tokens of a head for the activations x `[C]`, best first, and their logits: both `[k]`. See
    /// [`crate::screen`].
    ///
    /// # Panics
    /// If shapes disagree or the screen is not of a head of that shape.
    pub fn screened_top_k<H: Head>(
        &self,
        head: &H,
        screen: &Screen,
        x: &[f32],
        scratch: &mut Scratch,
        tokens: &mut [u32],
        logits: &mut [f32],
    ) -> Spent {
        let (rows, cols, k) = (head.rows(), head.cols(), tokens.len());
        assert_eq!((screen.coarse.rows(), screen.coarse.cols()), (rows, cols), "screen of a {rows}×{cols} head");
        assert_eq!(scratch.rows.len(), rows, "scratch for {rows} rows");
        assert_eq!(x.len(), cols, "x [{cols}]");
        assert_eq!(logits.len(), k, "logits of {k} tokens");
        assert!(k <= rows, "top {k} of {rows}");
        let head_bytes = rows * head.row_bytes();
        if k == 0 {
            return Spent { rows: 0, bytes: 0, head_bytes };
        }
        let Scratch { codes, norms, out, rows: candidates } = scratch;
        codes.fill(self, x, cols);
        let codes = codes.view();
        let reads = if head.reads_codes() { Reads::Codes } else { Reads::Activations(x) };
        let bound = TokenBound::new(reads, codes, norms, screen.bounds.largest());
        let mut count = rows;
        if let Some(bound) = bound {
            self.score(screen.coarse(), codes, norms, out);
            let (scores, uppers) = out.split_at_mut(rows);
            bound.uppers(&screen.bounds, scores, uppers);
            self.top_k(scores, tokens);
            let floor = self.floor(head, x, codes, tokens);
            count = 0;
            for (start, uppers) in (0..rows).step_by(STRIDE).zip(uppers.chunks(STRIDE)) {
                // Most runs have none, and vectors tell that.
                if !uppers.iter().fold(false, |any, upper| any | (*upper >= floor)) {
                    continue;
                }
                for (first, uppers) in (start..rows).step_by(H::ROWS_AT_ONCE).zip(uppers.chunks(H::ROWS_AT_ONCE)) {
                    if uppers.iter().any(|upper| *upper >= floor) {
                        for (candidate, row) in candidates[count..].iter_mut().zip(first..first + uppers.len()) {
                            *candidate = row as u32;
                        }
                        count += uppers.len();
                    }
                }
            }
        }
        let read = if bound.is_some() { screen.bytes() } else { 0 };
        if 2 * count >= rows {
            // Rows in streams are read faster than rows here and there.
            self.whole(head, x, codes, out, tokens, logits);
            return Spent { rows, bytes: read + head_bytes, head_bytes };
        }
        self.among(head, x, codes, &candidates[..count], out, tokens, logits);
        Spent { rows: count, bytes: read + count * head.row_bytes(), head_bytes }
    }

    /// The best of all rows. `out` has room for their logits.
    fn whole<H: Head>(
        &self,
        head: &H,
        x: &[f32],
        codes: Activations<'_>,
        out: &mut [f32],
        tokens: &mut [u32],
        logits: &mut [f32],
    ) {
        let out = &mut out[..head.rows()];
        head.logits(self, x, codes, 0..head.rows(), out);
        self.top_k(out, tokens);
        tokens.iter().zip(logits).for_each(|(token, logit)| *logit = out[*token as usize]);
    }

    /// The best of some rows, which ascend and fill [`Head::ROWS_AT_ONCE`]. `out` has room for their logits.
    #[expect(clippy::too_many_arguments, reason = "what `whole` takes, and the rows")]
    fn among<H: Head>(
        &self,
        head: &H,
        x: &[f32],
        codes: Activations<'_>,
        candidates: &[u32],
        out: &mut [f32],
        tokens: &mut [u32],
        logits: &mut [f32],
    ) {
        let mut done = 0;
        for run in candidates.chunk_by(|a, b| a + 1 == *b) {
            let (first, n) = (run[0] as usize, run.len());
            head.logits(self, x, codes, first..first + n, &mut out[done..done + n]);
            done += n;
        }
        // Candidates ascend, so that of equal logits the lower position is the lower token.
        self.top_k(&out[..done], tokens);
        for (token, logit) in tokens.iter_mut().zip(logits) {
            *logit = out[*token as usize];
            *token = candidates[*token as usize];
        }
    }

    /// Scores and reaches `[2, V]`.
    fn score(&self, coarse: GroupedRows<'_>, codes: Activations<'_>, norms: &[f32], out: &mut [f32]) {
        let variant = match coarse.layout() {
            Layout::Q8 => self.screen_q8,
            Layout::Q4 => self.screen_q4,
        };
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { variant(coarse.weights, codes, norms, out) }
    }

    /// The smallest logit of some tokens.
    fn floor<H: Head>(&self, head: &H, x: &[f32], codes: Activations<'_>, tokens: &[u32]) -> f32 {
        tokens.iter().fold(f32::INFINITY, |floor, token| floor.min(self.logit(head, x, codes, *token)))
    }

    /// The logit of one token.
    fn logit<H: Head>(&self, head: &H, x: &[f32], codes: Activations<'_>, token: u32) -> f32 {
        let mut some = [0.0; Layout::TILE_ROWS];
        let first = token as usize / H::ROWS_AT_ONCE * H::ROWS_AT_ONCE;
        let rows = first..(first + H::ROWS_AT_ONCE).min(head.rows());
        let some = &mut some[..rows.len()];
        head.logits(self, x, codes, rows, some);
        some[token as usize - first]
    }
}

/// The op, for [`OPS`](crate::probe::OPS): a bf16 head with a copy in four bits. A shape is V × C × k.
pub(crate) struct ScreenedTopK;

/// A head, its screen, a token and the places for the result.
pub(crate) struct Case {
    cols: usize,
    head: Vec<bf16>,
    screen: Screen,
    x: Vec<f32>,
    scratch: Scratch,
    tokens: Vec<u32>,
    logits: Vec<f32>,
    rows: usize,
}

impl Op for ScreenedTopK {
    const NAME: &'static str = "head/screen";
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let mut shapes = Vec::new();
        for r in [1, 15, 16, 17, 64, 65, 127, 300] {
            for (c, k) in [(1, 1), (31, r), (32, 1), (33, 2), (64, 7), (65, 1), (256, 40)] {
                shapes.push(Shape::new(r, c, k.min(r)));
            }
        }
        shapes.extend([Shape::new(2048, 256, 1), Shape::new(2048, 256, 40)]);
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        [(2048, 256, 1), (2048, 256, 40), (32064, 2560, 1)].map(|(r, c, t)| Shape::new(r, c, t)).to_vec()
    }

    fn admit(shape: Shape) -> Shape {
        let rows = shape.r.max(1);
        Shape::new(rows, shape.c.max(1), shape.t.clamp(1, rows))
    }

    /// A random head and a token that is noise and, for some seeds, the direction of one row: a sure prediction.
    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let head: Vec<bf16> = (0..shape.r * shape.c).map(|_| bf16::from_f32(rng.normal())).collect();
        let sure = [0.0, 1.0, 0.25][rng.below(3)];
        let row = rng.below(shape.r) * shape.c;
        let x = head[row..row + shape.c].iter().map(|w| w.to_f32() * sure + rng.normal() * 0.5).collect();
        let screen = Screen::of_dense(DenseHead { weights: &head, cols: shape.c }, Layout::Q4).expect("finite weights");
        Case {
            cols: shape.c,
            head,
            screen,
            x,
            scratch: Scratch::new(shape.r, shape.c),
            tokens: vec![u32::MAX; shape.t],
            logits: vec![f32::NAN; shape.t],
            rows: 0,
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        let Case { cols, head, screen, x, scratch, tokens, logits, rows } = case;
        let head = DenseHead { weights: head, cols: *cols };
        *rows = kernels.screened_top_k(&head, screen, x, scratch, tokens, logits).rows;
    }

    fn output(case: &Case) -> Vec<f32> {
        // Exact: numbers of rows are below 2^24.
        let tokens = case.tokens.iter().map(|token| *token as f32);
        tokens.chain(case.logits.iter().copied()).chain([case.rows as f32]).collect()
    }

    fn work(shape: &Shape) -> Work {
        let (r, c, k) = (shape.r as u64, shape.c as u64, shape.t as u64);
        Work { bytes: r * c * 9 / 16 + 12 * r + 2 * c * k + 4 * c, operations: 2 * r * c }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.screen_q4 as usize
    }
}
