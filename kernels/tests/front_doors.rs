//! Every front door refuses shapes that disagree, on every level, before a variant sees them; and takes slices that lie
//! anywhere.

use kernels::attention::Heads;
use kernels::attention::causal::ROWS;
use kernels::attention::int8::RowScales;
use kernels::grouped::codes::Codes;
use kernels::grouped::{self, GroupedMatrix};
use kernels::screen::planes::{self, Planes};
use kernels::screen::{DenseHead, Scratch, Screen};
use kernels::ternary::{Activations, Layout, TernaryMatrix};
use kernels::transpose::Grid;
use kernels::{Kernels, Lines, Rng};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Whether the call panics with a message that holds `part`.
fn refuses<R>(part: &str, call: impl FnOnce() -> R) {
    let payload = catch_unwind(AssertUnwindSafe(call)).err().unwrap_or_else(|| panic!("nothing says '{part}'"));
    let text = payload.downcast_ref::<String>().cloned();
    let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_string())).unwrap_or_default();
    assert!(text.contains(part), "'{text}' does not say '{part}'");
}

#[test]
fn ternary_products_refuse_shapes_that_disagree() {
    let matrix = TernaryMatrix::zeros(20, 70, Layout::I2);
    let codes = [0i8; 256];
    let good = Activations { codes: &codes, stride: 128, sums: &[0; 2], scales: &[1.0; 2], tables: &[] };
    for kernels in Kernels::available() {
        let product = |x: Activations<'_>, out: &mut [f32]| kernels.ternary_matmul(matrix.view(), x, out);
        product(good, &mut [0.0; 40]);
        refuses("stride of codes for 70 columns", || product(Activations { stride: 70, ..good }, &mut [0.0; 40]));
        refuses("codes of 2 tokens", || product(Activations { codes: &codes[1..], ..good }, &mut [0.0; 40]));
        refuses("sums of 2 tokens", || product(Activations { sums: &[0], ..good }, &mut [0.0; 40]));
        refuses("out [20, 2]", || product(good, &mut [0.0; 39]));
    }
}

#[test]
fn lookup_products_refuse_tables_and_layouts_that_disagree() {
    let matrix = TernaryMatrix::zeros(20, 70, Layout::Tmac);
    let other = TernaryMatrix::zeros(20, 70, Layout::I2);
    let codes = [0i8; 128];
    for kernels in Kernels::available() {
        let lines = kernels.ternary_table_lines(Layout::Tmac, 70, 1);
        let rounded_lines = kernels.ternary_tmac8_table_lines(70, 1);
        let mut tables = Lines::zeroed(lines.max(rounded_lines) + 1);
        refuses("lines of tables of 1 tokens", || {
            kernels.ternary_tables(Layout::Tmac, 70, &codes, &mut tables[..lines + 1])
        });
        refuses("codes of 0 tokens of 70", || {
            kernels.ternary_tables(Layout::Tmac, 70, &codes[1..], &mut tables[..lines])
        });
        kernels.ternary_tables(Layout::Tmac, 70, &codes, &mut tables[..lines]);
        let x = Activations { codes: &codes, stride: 128, sums: &[0], scales: &[1.0], tables: &tables };
        refuses("lines of tables of 1 tokens", || {
            kernels.ternary_matmul(matrix.view(), Activations { tables: &tables[..lines + 1], ..x }, &mut [0.0; 20]);
        });
        let rounded = Activations { tables: &tables[..rounded_lines], ..x };
        refuses("tables of bytes", || kernels.ternary_tmac8_matmul(other.view(), rounded, &mut [0.0; 20]));
        kernels.ternary_tmac8_matmul(matrix.view(), rounded, &mut [0.0; 20]);
        let plain = Activations { tables: &[], ..x };
        refuses("digits are computed", || kernels.ternary_t5_digits_matmul(other.view(), plain, &mut [0.0; 20]));
    }
}

#[test]
fn ternary_matrices_refuse_what_is_not_ternary_or_not_there() {
    refuses("weights for a 2×3 matrix", || TernaryMatrix::pack(&[0; 5], 2, 3, Layout::I2));
    refuses("weight 2 at row 1, column 0", || TernaryMatrix::pack(&[0, 0, 2, 0], 2, 2, Layout::I2));
    let matrix = TernaryMatrix::zeros(40, 5, Layout::I2);
    refuses("(40, 0) in a 40×5 matrix", || matrix.get(40, 0));
    refuses("rows 0..41 of 40", || matrix.row_range(0..41).rows());
    refuses("starts inside a tile", || matrix.row_range(8..16).rows());
    refuses("ends inside a tile", || matrix.row_range(16..39).rows());
    assert_eq!(matrix.row_range(16..40).rows(), 24);
}

#[test]
fn the_matrix_ops_refuse_shapes_that_disagree() {
    let lines = Lines::zeroed(4);
    for kernels in Kernels::available() {
        refuses("3 codes for 4 activations", || kernels.quantise(&[0.0; 4], &mut [0; 3]));
        refuses("0 columns", || kernels.dense_matmul(&[0.0f32; 4], &[0.0; 4], 0, &mut [0.0]));
        refuses("weights [R, 3] have 4 elements", || kernels.dense_matmul(&[0.0f32; 4], &[0.0; 3], 3, &mut [0.0]));
        refuses("x [T, 2] has 3 elements", || kernels.dense_matmul(&[0.0f32; 4], &[0.0; 3], 2, &mut [0.0]));
        refuses("out [2, 1]", || kernels.dense_matmul(&[0.0f32; 4], &[0.0; 2], 2, &mut [0.0; 3]));
        refuses("table [V, 3] has 4 elements", || kernels.embed(&[0.0f32; 4], &[0], 3, &mut [0.0; 3]));
        refuses("out [1, 2]", || kernels.embed(&[0.0f32; 4], &[0], 2, &mut [0.0; 3]));
        refuses("token 2 of a vocabulary of 2", || kernels.embed(&[0.0f32; 4], &[2], 2, &mut [0.0; 2]));
        let grid = Grid { rows: 2, cols: 3, stride: 4, out_stride: 2 };
        kernels.transpose(&[0.0; 7], grid, &mut [0.0; 6]);
        refuses("strides", || kernels.transpose(&[0.0; 9], Grid { stride: 2, ..grid }, &mut [0.0; 9]));
        refuses("x of 6 elements", || kernels.transpose(&[0.0; 6], grid, &mut [0.0; 6]));
        refuses("out of 5 elements", || kernels.transpose(&[0.0; 7], grid, &mut [0.0; 5]));
        refuses("0 streams", || kernels.read(&lines, 0));
        refuses("17 streams", || kernels.read(&lines, 17));
    }
}

#[test]
fn the_float_ops_refuse_shapes_that_disagree() {
    for kernels in Kernels::available() {
        refuses("width 0", || kernels.rms_norm(&[], &[], 1e-5, &mut []));
        refuses("x [T, 2] has 3 elements", || kernels.rms_norm(&[0.0; 3], &[0.0; 2], 1e-5, &mut [0.0; 3]));
        refuses("out is as long as x", || kernels.rms_norm(&[0.0; 2], &[0.0; 2], 1e-5, &mut [0.0; 4]));
        refuses("width 0", || kernels.rms_quantise(&[], &[], 1e-5, &mut []));
        refuses("x and gain", || kernels.rms_quantise(&[0.0; 3], &[0.0; 2], 1e-5, &mut [0; 3]));
        refuses("2 codes for 3", || kernels.rms_quantise(&[0.0; 3], &[0.0; 3], 1e-5, &mut [0; 2]));
        refuses("gain and bias", || kernels.layer_norm(&[0.0; 2], &[0.0; 2], &[0.0], 1e-5, &mut [0.0; 2]));
    }
}

#[test]
fn attention_refuses_shapes_that_disagree() {
    let (x, codes) = ([0.5f32; 8], [1i8; 8]);
    for kernels in Kernels::available() {
        let heads = Heads { queries: &x[..4], keys: &x[..6], values: &x[..6], width: 2, scale: 1.0 };
        let attend =
            |heads, scores: usize, out: usize| kernels.attention(heads, &mut [0.0; 8][..scores], &mut [0.0; 8][..out]);
        attend(heads, 6, 4);
        refuses("queries [G, 0]", || attend(Heads { width: 0, ..heads }, 6, 4));
        refuses("queries [G, 2]", || attend(Heads { queries: &x[..3], ..heads }, 6, 4));
        refuses("keys [n, 2]", || attend(Heads { keys: &x[..5], ..heads }, 6, 4));
        refuses("keys [n, 2]", || attend(Heads { keys: &[], values: &[], ..heads }, 0, 4));
        refuses("keys and values", || attend(Heads { values: &x[..4], ..heads }, 6, 4));
        refuses("scores [2, 3]", || attend(heads, 5, 4));
        refuses("out [2, 2]", || attend(heads, 6, 5));
        let run = |tokens, scores: usize| {
            kernels.attention_causal(heads, tokens, &mut vec![0.0; scores], &mut [0.0; 4]);
        };
        run(2, 3 * ROWS);
        refuses("2 queries of 0 tokens", || run(0, 3 * ROWS));
        refuses("2 queries of 3 tokens", || run(3, 3 * ROWS));
        refuses("scores [24, 3]", || run(2, 6));
        let long = Heads { queries: &x, ..heads };
        refuses("3 positions for 4 tokens", || kernels.attention_causal(long, 4, &mut [], &mut [0.0; 8]));
        let heads = Heads { queries: &x[..4], keys: &codes[..6], values: &codes[..6], width: 2, scale: 1.0 };
        let attend = |keys: usize, values: usize| {
            let scales = RowScales { keys: &x[..keys], values: &x[..values] };
            kernels.attention_int8(heads, scales, &mut [0.0; 6], &mut [0.0; 4]);
        };
        attend(3, 3);
        refuses("scales of 3 keys and values", || attend(2, 3));
        refuses("scales of 3 keys and values", || attend(3, 4));
        refuses("rows [n, 3]", || kernels.quantise_rows(&x, 3, &mut [0; 8], &mut [0.0; 2]));
        refuses("codes are as many", || kernels.quantise_rows(&x, 4, &mut [0; 7], &mut [0.0; 2]));
        refuses("a scale for each row", || kernels.quantise_rows(&x, 4, &mut [0; 8], &mut [0.0; 3]));
    }
}

#[test]
fn grouped_products_refuse_shapes_that_disagree() {
    let matrix = GroupedMatrix::random(20, 70, grouped::Layout::Q4, &mut Rng::new(1));
    let codes = Codes::new(2, 70);
    let good = codes.view();
    for kernels in Kernels::available() {
        let product = |x: grouped::Activations<'_>, out: &mut [f32]| kernels.grouped_matmul(matrix.view(), x, out);
        product(good, &mut [0.0; 40]);
        let view = |x| grouped::Activations { stride: 64, ..x };
        refuses("stride of codes for 70 columns", || product(view(good), &mut [0.0; 40]));
        let few = grouped::Activations { codes: &good.codes[1..], ..good };
        refuses("codes of 2 tokens", || product(few, &mut [0.0; 40]));
        refuses("scales of 1 tokens", || {
            let codes = &good.codes[128..];
            product(grouped::Activations { codes, scales: &good.scales[1..], ..good }, &mut [0.0; 40])
        });
        refuses("sums of 2 tokens", || product(grouped::Activations { sums: &[0], ..good }, &mut [0.0; 40]));
        refuses("out [20, 2]", || product(good, &mut [0.0; 39]));
        refuses("3 codes for 4 activations", || kernels.quantise_groups(&[0.0; 4], &mut [0; 3], &mut [], &mut []));
        refuses("no multiple of 64", || kernels.quantise_groups(&[0.0; 4], &mut [0; 32], &mut [0.0], &mut [0]));
        refuses("scales and sums of 2", || kernels.quantise_groups(&[0.0; 4], &mut [0; 64], &mut [0.0], &mut [0]));
        let head = DenseHead { weights: &[1.0f32; 12], cols: 3 };
        let screen = Screen::of_dense(head, grouped::Layout::Q4).expect("finite weights");
        let mut scratch = Scratch::new(4, 3);
        let mut best = |head: DenseHead<'_, f32>, x: &[f32], tokens: &mut [u32], logits: &mut [f32]| {
            kernels.screened_top_k(&head, &screen, x, &mut scratch, tokens, logits)
        };
        assert_eq!(best(head, &[1.0; 3], &mut [], &mut []).rows, 0);
        assert_eq!(best(head, &[1.0; 3], &mut [0; 4], &mut [0.0; 4]).rows, 4);
        refuses("x [3]", || best(head, &[1.0; 2], &mut [0], &mut [0.0]));
        refuses("top 5 of 4", || best(head, &[1.0; 3], &mut [0; 5], &mut [0.0; 5]));
        refuses("logits of 1 tokens", || best(head, &[1.0; 3], &mut [0], &mut [0.0; 2]));
        let other = DenseHead { weights: &[1.0f32; 9], cols: 3 };
        refuses("screen of a 3×3 head", || best(other, &[1.0; 3], &mut [0], &mut [0.0]));
        let planes = Planes::of_dense(head).expect("finite weights");
        let mut scratch = planes::Scratch::new(4, 3);
        let mut best = |head: DenseHead<'_, f32>, x: &[f32], tokens: &mut [u32], logits: &mut [f32]| {
            kernels.refined_top_k(&head, &planes, x, &mut scratch, tokens, logits)
        };
        assert_eq!(best(head, &[1.0; 3], &mut [], &mut []).rows, 0);
        assert_eq!(best(head, &[1.0; 3], &mut [0; 4], &mut [0.0; 4]).rows, 4);
        refuses("x [3]", || best(head, &[1.0; 2], &mut [0], &mut [0.0]));
        refuses("top 5 of 4", || best(head, &[1.0; 3], &mut [0; 5], &mut [0.0; 5]));
        refuses("logits of 1 tokens", || best(head, &[1.0; 3], &mut [0], &mut [0.0; 2]));
        refuses("planes of a 3×3 head", || best(other, &[1.0; 3], &mut [0], &mut [0.0]));
    }
    refuses("starts inside a tile", || matrix.row_range(8..16).rows());
    refuses("ends inside a tile", || matrix.row_range(16..19).rows());
    assert_eq!(matrix.row_range(16..20).rows(), 4);
}

#[test]
fn slices_may_lie_anywhere() {
    let mut rng = Rng::new(11);
    let (rows, columns, tokens) = (11, 53, 5);
    let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
    let (weights, x) = (numbers(rows * columns), numbers(tokens * columns));
    let moved = |numbers: &[f32], by: usize| [&vec![f32::NAN; by], numbers].concat();
    for kernels in Kernels::available() {
        let mut want = vec![f32::NAN; rows * tokens];
        kernels.dense_matmul(&weights, &x, columns, &mut want);
        let mut want_codes = vec![0; columns];
        let want_quantised = kernels.quantise(&x[..columns], &mut want_codes);
        for by in 0..16 {
            let (weights, x) = (moved(&weights, by), moved(&x, 15 - by));
            let mut out = vec![f32::NAN; by + rows * tokens];
            kernels.dense_matmul(&weights[by..], &x[15 - by..], columns, &mut out[by..]);
            assert_eq!(out[by..], want, "moved by {by} on {}", kernels.isa());
            assert!(out[..by].iter().all(|v| v.is_nan()), "written before the slice on {}", kernels.isa());
            let mut codes = vec![99; by + columns];
            assert_eq!(kernels.quantise(&x[15 - by..][..columns], &mut codes[by..]), want_quantised);
            assert_eq!(codes[by..], want_codes);
        }
    }
}
