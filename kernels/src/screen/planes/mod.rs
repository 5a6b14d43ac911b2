//! The exact best logits of a head through two planes of two bits: half of the bytes that one plane of four would read.
//!
//! **Computes** what [`Kernels::screened_top_k`] computes, the same tokens, order and bits as the whole product followed by
//! `top_k`, in three steps. A plane of two bits a weight gives every row a score and a proved bound (`bound.rs`); the
//! exact logits of a few best scores give a floor. Rows that may reach it are read in a second plane of two bits, which
//! holds what the first one left, and get a score and a bound nearer to the logit, and with them a higher floor. Rows
//! that may still reach it are computed from the head itself.
//!
//! **Layout** beside the head: the row m that rows have in common, their mean; of each row w - c m in levels -3, -1, 1, 3
//! times a scale, as codes 0..=3 of [`crate::ternary::i2`]'s layout; what that leaves, likewise, in
//! [`crate::ternary::i2_rows`]' layout, where a row lies by itself; six bf16 numbers. C/2 + 12 bytes a row.
//!
//! **Shapes** head `V × C` with C <= 2^15, x `[C]`, one token; tokens and logits `[k]`, k <= V.
//!
//! **Numbers** see `bound.rs`; of the products see [`crate::ternary::i2`], whose bounds allow for code 3.
//!
//! **Exactness** exact, and the number of rows read is the same on every machine: sums are integers, and scores and bounds
//! are plain f32 arithmetic in one order.
//!
//! **Cost** V (C/4 + 8) bytes; for each row that passes the first step C/4 + 4 (C rounded up to 256); of the head the
//! rows that pass the second. Of Gaussian rows the first bound is 0.35 · sqrt(C) · s and the second 0.15 · sqrt(C) · s,
//! with s the standard deviation of the logits of a random token: less by as much as rows have in common.
//!
//! Of the trained heads of this project (4096 × 256, bf16, a text that they have not seen) it reads 36 to 37 % of what the
//! head takes in eight bits for the likeliest token, where [`crate::screen`] with four bits reads 58 %; a fifth of the rows
//! passes the first step, one in a hundred the second. For forty tokens it reads 80 to 85 %, where four bits read 70 %: take
//! those (`cargo test -p engines --test promises screen -- --nocapture`). Wide rows need surer tokens: for C = 2560 the
//! first bound is 17 s. Where it is expected to leave half of the rows or more, the second plane is not read, but the whole
//! head: a token of noise costs the first plane for nothing.
//!
//! **Source** bounds as in [`crate::screen`]; planes that refine each other as in vector approximation files (Weber, Schek
//! and Blott, VLDB 1998); the best four levels for a Gaussian: Max, IRE Transactions on Information Theory 6 (1960).
//!
//! **Variants** the products are [`crate::ternary`]'s; bounds and the search for rows are plain code over `[V]`.
//!
//! **Tried and dropped** on the hidden states of these models, likeliest token, rows alone counted (without floors and
//! whole cache lines), which makes 33 to 34 % of the present form: no common row 41 to 42 %; 4, 8 or 16 principal directions
//! of the head, or of hidden states, in its place 33 to 34, 35 to 36 and 40 % (bounds shrink, numbers of rows grow); three
//! bits in the second plane 35 %, four 37 %; no second plane 46 to 48 %; a floor from the k best scores alone 34.3 %.
//!
//! **Not done** two fifths of eight bits for forty tokens, or for noise: a row g standard deviations below the k-th best
//! needs a residual below g / sqrt(C) of its norm, and R bits a weight leave at least 2^-R of a Gaussian row. For C = 2560 and
//! a token of noise that makes 3.6 to 3.9 bits on average, 42 to 46 % of eight and a half, for any code that is bounded by
//! norms; forty tokens of the trained heads need 2.4, and what real codes lose comes on top. The levels 0.45 and 1.51 in
//! place of 1 and 3 (0.8 points less, and products of their own).
//! Nor the head of a model that answers with all logits: rows that are not computed have none.

mod bound;

use super::{Head, STRIDE, Spent};
use crate::grouped::codes::Codes;
use crate::grouped::{GroupedMatrix, PackError};
use crate::probe::{Arithmetic, Op, Shape, Work};
use crate::ternary::{Activations, Layout, TernaryMatrix};
use crate::{Element, Kernels, Rng};
use bound::{Reads, RowBounds, Sizes, TokenBound};
use half::bf16;

/// Both planes of a head, and what bounds need of its rows.
#[derive(Clone, Debug)]
pub struct Planes {
    first: TernaryMatrix,
    second: TernaryMatrix,
    /// m `[C]`.
    common: Vec<f32>,
    bounds: RowBounds,
}

/// The scale of the best levels -3, -1, 1, 3 for some numbers; writes the levels' codes less 1.
fn fit(numbers: &[f64], codes: &mut [i8]) -> bf16 {
    let square: f64 = numbers.iter().map(|x| x * x).sum();
    // Where the search begins: half a standard deviation is best for a Gaussian.
    let mut scale = 0.5 * (square / numbers.len().max(1) as f64).sqrt();
    let level = |x: f64, scale: f64| (if x.abs() < 2.0 * scale { 1.0f64 } else { 3.0 }).copysign(x);
    for _ in 0..6 {
        let (mut product, mut of_levels) = (0.0, 0.0);
        for x in numbers {
            let level = level(*x, scale);
            product += x * level;
            of_levels += level * level;
        }
        scale = product / f64::max(of_levels, 1.0);
    }
    let scale = bf16::from_f64(scale);
    for (code, x) in codes.iter_mut().zip(numbers) {
        *code = ((level(*x, scale.to_f64()) + 1.0) / 2.0) as i8;
    }
    scale
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Planes {
    /// Planes of a head of `rows` rows that `fill` writes, `[cols]` each; it is called twice for each row.
    ///
    /// # Errors
    /// A weight that is not finite.
    ///
    /// # Panics
    /// If there are more than 2^15 columns.
    pub fn from_rows(rows: usize, cols: usize, mut fill: impl FnMut(usize, &mut [f32])) -> Result<Planes, PackError> {
        assert!(cols <= bound::MAX_COLUMNS, "{cols} columns are more than the bound is proved for");
        let (mut row, mut mean) = (vec![0.0f32; cols], vec![0.0f64; cols]);
        for r in 0..rows {
            fill(r, &mut row);
            if let Some(column) = row.iter().position(|w| !w.is_finite()) {
                return Err(PackError::NotFinite { row: r, column });
            }
            mean.iter_mut().zip(&row).for_each(|(mean, w)| *mean += f64::from(*w) / rows as f64);
        }
        let common: Vec<f32> = mean.iter().map(|mean| *mean as f32).collect();
        let m: Vec<f64> = common.iter().map(|m| f64::from(*m)).collect();
        let m_square = dot(&m, &m);
        let along = |x: &[f64]| if m_square > 0.0 { dot(x, &m) / m_square } else { 0.0 };

        let mut codes = [vec![0i8; rows * cols], vec![0i8; rows * cols]];
        let (mut bounds, mut plane) = (RowBounds::default(), vec![0.0; cols]);
        for r in 0..rows {
            fill(r, &mut row);
            let w: Vec<f64> = row.iter().map(|w| f64::from(*w)).collect();
            let c = along(&w);
            let mut rest: Vec<f64> = w.iter().zip(&m).map(|(w, m)| w - c * m).collect();
            let [first, second] = codes.each_mut().map(|codes| &mut codes[r * cols..][..cols]);
            let mut levels = |codes: &[i8], scale: bf16| {
                plane.iter_mut().zip(codes).for_each(|(v, code)| *v = f64::from(2 * code - 1) * scale.to_f64());
                plane.clone()
            };
            let first_scale = fit(&rest, first);
            let v1 = levels(first, first_scale);
            // The coefficient is fitted again, to what the first plane leaves.
            rest.iter_mut().zip(w.iter().zip(&v1)).for_each(|(d, (w, v))| *d = w - v);
            let c = bf16::from_f64(along(&rest));
            rest.iter_mut().zip(&m).for_each(|(d, m)| *d -= c.to_f64() * m);
            let d1 = dot(&rest, &rest).sqrt();
            let second_scale = fit(&rest, second);
            let v2 = levels(second, second_scale);
            rest.iter_mut().zip(&v2).for_each(|(d, v)| *d -= v);
            let sizes = Sizes {
                exact: dot(&w, &w).sqrt(),
                planes: [dot(&v1, &v1).sqrt(), dot(&v2, &v2).sqrt()],
                common: c.to_f64().abs() * m_square.sqrt(),
                residuals: [d1, dot(&rest, &rest).sqrt()],
            };
            bounds.push([first_scale, second_scale], c, sizes);
        }
        let pack = |codes: &[i8], layout| TernaryMatrix::of_crumbs(rows, cols, layout, |r, c| codes[r * cols + c]);
        let [first, second] = [pack(&codes[0], Layout::I2), pack(&codes[1], Layout::I2Rows)];
        Ok(Planes { first, second, common, bounds })
    }

    /// Planes of any head that can be unpacked: `unpack` writes a row.
    fn of<H: Head>(head: &H, unpack: impl FnMut(usize, &mut [f32])) -> Result<Planes, PackError> {
        Planes::from_rows(head.rows(), head.cols(), unpack)
    }

    /// Planes of a dense head `[V, cols]`.
    ///
    /// # Errors
    /// A weight that is not finite.
    pub fn of_dense<E: Element>(head: super::DenseHead<'_, E>) -> Result<Planes, PackError> {
        Planes::of(&head, |r, out| {
            for (out, weight) in out.iter_mut().zip(&head.weights[r * head.cols..][..head.cols]) {
                *out = weight.widen();
            }
        })
    }

    /// Planes of a head in groups. Rows of it are computed sixteen at a time, so that the last step reads more of it than of
    /// a dense head.
    ///
    /// # Errors
    /// None that a packed head can have.
    pub fn of_grouped(head: &GroupedMatrix) -> Result<Planes, PackError> {
        Planes::of(&head, |r, out| head.unpack_row(r, out))
    }

    /// Bytes of both planes and of what bounds need.
    pub fn bytes(&self) -> usize {
        let rows = self.first.rows() * RowBounds::ROW_BYTES;
        self.first.bytes() + self.second.bytes() + rows + size_of_val(&self.common[..])
    }

    /// Bytes that every token reads.
    fn first_bytes(&self) -> usize {
        let rows = self.first.rows() * (RowBounds::ROW_BYTES - RowBounds::SECOND_BYTES);
        self.first.bytes() + rows + size_of_val(&self.common[..])
    }

    /// Bytes that so many rows read in the second plane, their numbers by whole cache lines.
    fn second_bytes(&self, rows: usize) -> usize {
        let of_row = self.second.bytes() / self.second.rows().max(1);
        rows * of_row + (32 * rows).min(self.second.rows()) * RowBounds::SECOND_BYTES
    }
}

/// Room for one token at a time, made once.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// Of the whole token, `[stride]`.
    codes: Vec<i8>,
    grouped: Codes,
    /// What the exact product reads, `[C]`.
    exact: Vec<f32>,
    /// Scores and what logits cannot exceed `[2, V]`; then logits.
    out: Vec<f32>,
    /// Rows that may be among the best, `[V]`.
    candidates: Vec<u32>,
    /// Other lists of rows, `[V]`.
    others: Vec<u32>,
    /// Logits of rows that make a floor, `[V]`.
    floor: Vec<f32>,
}

impl Scratch {
    /// For a head of `rows` rows and `cols` columns.
    pub fn new(rows: usize, cols: usize) -> Scratch {
        Scratch {
            codes: vec![0; Activations::stride_for(cols)],
            grouped: Codes::new(1, cols),
            exact: vec![0.0; cols],
            out: vec![0.0; 2 * rows],
            candidates: vec![0; rows],
            others: vec![0; rows],
            floor: vec![0.0; rows],
        }
    }
}

/// What the second bound is of the first, about: rows whose score and so much of their bound reach the floor are those that
/// the second plane is expected to leave.
const REFINED: f32 = 0.45;

impl Kernels {
    /// The k best tokens of a head for the activations x `[C]`, best first, and their logits: both `[k]`. See
    /// [`crate::screen::planes`].
    ///
    /// # Panics
    /// If shapes disagree or the planes are not of a head of that shape.
    pub fn refined_top_k<H: Head>(
        &self,
        head: &H,
        planes: &Planes,
        x: &[f32],
        scratch: &mut Scratch,
        tokens: &mut [u32],
        logits: &mut [f32],
    ) -> Spent {
        let (rows, cols, k) = (head.rows(), head.cols(), tokens.len());
        assert_eq!((planes.first.rows(), planes.first.cols()), (rows, cols), "planes of a {rows}×{cols} head");
        assert_eq!(scratch.candidates.len(), rows, "scratch for {rows} rows");
        assert_eq!(x.len(), cols, "x [{cols}]");
        assert_eq!(logits.len(), k, "logits of {k} tokens");
        assert!(k <= rows, "top {k} of {rows}");
        let (row_bytes, head_bytes) = (head.row_bytes(), rows * head.row_bytes());
        if k == 0 {
            return Spent { rows: 0, bytes: 0, head_bytes };
        }
        let Scratch { codes, grouped, exact, out, candidates, others, floor: values } = scratch;
        grouped.fill(self, x, cols);
        let grouped = grouped.view();
        exact.copy_from_slice(x);
        let mut roundings = cols.div_ceil(16) + 4;
        if head.reads_codes() {
            for (c, exact) in exact.iter_mut().enumerate() {
                *exact = f32::from(grouped.codes[c]) * grouped.scales[c / GroupedMatrix::GROUP];
            }
            // One more for the products just made.
            roundings = grouped.scales.len() + 2;
        }
        let quantised = self.quantise(exact, codes);
        let reads = Reads { exact, roundings, codes, sum: quantised.sum, scale: 1.0 / quantised.scale };
        let Some(bound) = TokenBound::new(reads, &planes.common, planes.bounds.largest()) else {
            self.whole(head, x, grouped, out, tokens, logits);
            return Spent { rows, bytes: head_bytes, head_bytes };
        };
        let stride = codes.len();
        let codes = Activations { codes, stride, sums: &[quantised.sum], scales: &[1.0], tables: &[] };

        let (scores, uppers) = out.split_at_mut(rows);
        self.ternary_matmul(planes.first.view(), codes, scores);
        bound.first(&planes.bounds, scores, uppers);
        let best = &mut others[..(k + k / 2 + 3).min(rows)];
        self.top_k(scores, best);
        let floor = self.kth(head, x, grouped, best, k, values);
        let mut bytes = planes.first_bytes() + best.len() * row_bytes;
        let left = scores.iter().zip(&*uppers).map(|(score, upper)| score + REFINED * (upper - score) >= floor);
        if 2 * left.fold(0, |left, row| left + usize::from(row)) >= rows {
            self.whole(head, x, grouped, out, tokens, logits);
            return Spent { rows, bytes: bytes + head_bytes, head_bytes };
        }
        let mut count = 0;
        for (start, uppers) in (0..).step_by(STRIDE).zip(uppers.chunks(STRIDE)) {
            // Most runs have none, and vectors tell that.
            if uppers.iter().fold(false, |any, upper| any | (*upper >= floor)) {
                for (row, upper) in (start..).zip(uppers) {
                    candidates[count.min(rows - 1)] = row;
                    count += usize::from(*upper >= floor);
                }
            }
        }
        bytes += planes.second_bytes(count);

        let refined = &mut uppers[..count];
        let mut done = 0;
        for run in candidates[..count].chunk_by(|a, b| a + 1 == *b) {
            let (first, n) = (run[0] as usize, run.len());
            self.ternary_matmul(planes.second.row_range(first..first + n), codes, &mut refined[done..done + n]);
            done += n;
        }
        for (score, row) in refined.iter_mut().zip(&*candidates) {
            *score = bound.second(&planes.bounds, *row as usize, scores[*row as usize], *score);
        }
        let best = &mut others[..k];
        self.top_k(refined, best);
        best.iter_mut().for_each(|place| *place = candidates[*place as usize]);
        let floor = floor.max(self.kth(head, x, grouped, best, k, values));
        bytes += k * row_bytes;
        let mut survivors = 0;
        for (row, score) in candidates[..count].iter().zip(&*refined) {
            if bound.upper(&planes.bounds, *row as usize, *score) < floor {
                continue;
            }
            // Whole runs of rows that are computed at once, once each.
            let first = row / H::ROWS_AT_ONCE as u32 * H::ROWS_AT_ONCE as u32;
            if survivors == 0 || others[survivors - 1] < first {
                for row in first..(first + H::ROWS_AT_ONCE as u32).min(rows as u32) {
                    others[survivors] = row;
                    survivors += 1;
                }
            }
        }
        if 2 * survivors >= rows {
            self.whole(head, x, grouped, out, tokens, logits);
            return Spent { rows, bytes: bytes + head_bytes, head_bytes };
        }
        self.among(head, x, grouped, &others[..survivors], out, tokens, logits);
        Spent { rows: survivors, bytes: bytes + survivors * row_bytes, head_bytes }
    }

    /// The k-th largest logit of some tokens. `values` has room for them.
    fn kth<H: Head>(
        &self,
        head: &H,
        x: &[f32],
        codes: crate::grouped::Activations<'_>,
        tokens: &[u32],
        k: usize,
        values: &mut [f32],
    ) -> f32 {
        let values = &mut values[..tokens.len()];
        for (token, value) in tokens.iter().zip(&mut *values) {
            *value = self.logit(head, x, codes, *token);
        }
        *values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is V × C × k.
pub(crate) struct RefinedTopK;

/// A bf16 head, its planes, a token and the places for the result.
pub(crate) struct Case {
    cols: usize,
    head: Vec<bf16>,
    planes: Planes,
    x: Vec<f32>,
    scratch: Scratch,
    tokens: Vec<u32>,
    logits: Vec<f32>,
    spent: Spent,
}

impl Op for RefinedTopK {
    const NAME: &'static str = "head/planes";
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        super::ScreenedTopK::shapes()
    }

    fn model_shapes() -> Vec<Shape> {
        super::ScreenedTopK::model_shapes()
    }

    fn admit(shape: Shape) -> Shape {
        super::ScreenedTopK::admit(shape)
    }

    /// A random head whose rows have something in common, and a token that is noise and, for some seeds, the direction of
    /// one row: a sure prediction.
    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let common: Vec<f32> = (0..shape.c).map(|_| rng.normal()).collect();
        let head: Vec<bf16> =
            (0..shape.r * shape.c).map(|i| bf16::from_f32(rng.normal() + common[i % shape.c] * 0.5)).collect();
        let sure = [0.0, 1.0, 0.25][rng.below(3)];
        let row = rng.below(shape.r) * shape.c;
        let x = head[row..row + shape.c].iter().map(|w| w.to_f32() * sure + rng.normal() * 0.5).collect();
        let planes = Planes::of_dense(super::DenseHead { weights: &head, cols: shape.c }).expect("finite weights");
        Case {
            cols: shape.c,
            head,
            planes,
            x,
            scratch: Scratch::new(shape.r, shape.c),
            tokens: vec![u32::MAX; shape.t],
            logits: vec![f32::NAN; shape.t],
            spent: Spent { rows: 0, bytes: 0, head_bytes: 0 },
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        let Case { cols, head, planes, x, scratch, tokens, logits, spent } = case;
        let head = super::DenseHead { weights: head, cols: *cols };
        *spent = kernels.refined_top_k(&head, planes, x, scratch, tokens, logits);
    }

    fn output(case: &Case) -> Vec<f32> {
        // Exact: numbers of rows are below 2^24, and bytes are told by their halves.
        let tokens = case.tokens.iter().map(|token| *token as f32);
        let bytes = [(case.spent.bytes >> 16) as f32, (case.spent.bytes & 0xFFFF) as f32];
        tokens.chain(case.logits.iter().copied()).chain([case.spent.rows as f32]).chain(bytes).collect()
    }

    fn work(shape: &Shape) -> Work {
        let (r, c, k) = (shape.r as u64, shape.c as u64, shape.t as u64);
        Work { bytes: r * (c / 4 + 8) + 2 * c * k + 4 * c, operations: 2 * r * c }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.ternary_i2.matmul as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::DenseHead;
    use super::*;

    /// For each row the exact logit and what the bounds of one plane and of both say that it cannot exceed.
    fn uppers<H: Head>(head: &H, planes: &Planes, x: &[f32]) -> Vec<(f32, [f32; 2])> {
        let (kernels, rows, cols) = (Kernels::best(), head.rows(), head.cols());
        let mut scratch = Scratch::new(rows, cols);
        scratch.grouped.fill(kernels, x, cols);
        let quantised = kernels.quantise(x, &mut scratch.codes);
        let (sum, scale, roundings) = (quantised.sum, 1.0 / quantised.scale, cols.div_ceil(16) + 4);
        let reads = Reads { exact: x, roundings, codes: &scratch.codes, sum, scale };
        let bound = TokenBound::new(reads, &planes.common, planes.bounds.largest()).expect("a finite token");
        let stride = scratch.codes.len();
        let codes = Activations { codes: &scratch.codes, stride, sums: &[sum], scales: &[1.0], tables: &[] };
        let (mut scores, mut firsts, mut sums) = (vec![0.0; rows], vec![0.0; rows], vec![0.0; rows]);
        kernels.ternary_matmul(planes.first.view(), codes, &mut scores);
        bound.first(&planes.bounds, &mut scores, &mut firsts);
        kernels.ternary_matmul(planes.second.view(), codes, &mut sums);
        let mut logits = vec![0.0; rows];
        head.logits(kernels, x, scratch.grouped.view(), 0..rows, &mut logits);
        (0..rows)
            .map(|row| {
                let score = bound.second(&planes.bounds, row, scores[row], sums[row]);
                (logits[row], [firsts[row], bound.upper(&planes.bounds, row, score)])
            })
            .collect()
    }

    #[test]
    fn no_logit_exceeds_its_bounds_and_the_second_is_nearer() {
        let mut rng = Rng::new(8);
        for (rows, cols) in [(37, 1), (40, 31), (40, 64), (33, 100), (20, 700)] {
            for size in [1.0f32, 1e-3, 1e3] {
                let common: Vec<f32> = (0..cols).map(|_| rng.normal()).collect();
                let weights: Vec<f32> =
                    (0..rows * cols).map(|i| (rng.normal() + common[i % cols] * 0.7) * size).collect();
                let head = DenseHead { weights: &weights, cols };
                let planes = Planes::of_dense(head).expect("finite weights");
                let mut nearer = 0;
                for token in 0..60 {
                    // Rows and what is common to them, either way; then noise of many sizes.
                    let size = [1.0, 1e-3, 1e-20, 1e-33, 1e20, 1e-40][token % 6];
                    let row = &weights[rng.below(rows) * cols..][..cols];
                    let sign = [1.0, -1.0][rng.below(2)];
                    let mut x: Vec<f32> = match token % 3 {
                        0 => row.iter().zip(&planes.common).map(|(w, m)| (w - m) * sign).collect(),
                        1 => planes.common.iter().map(|m| m * sign).collect(),
                        _ => (0..cols).map(|_| rng.normal()).collect(),
                    };
                    x.iter_mut().for_each(|x| *x *= size);
                    for (row, (logit, [first, second])) in uppers(&head, &planes, &x).into_iter().enumerate() {
                        assert!(
                            logit <= first && logit <= second,
                            "{cols} columns, row {row}: {logit} {first} {second}"
                        );
                        nearer += usize::from(second < first);
                    }
                }
                assert!(cols < 31 || nearer > 60 * rows / 4, "{cols} columns: {nearer} of {} are nearer", 60 * rows);
            }
        }
    }
}
