//! Which loops of a variant are hot, how many weights a turn of them reads, and how many tokens these meet.

use iced_x86::Mnemonic;

use super::LoopRow;
use super::loops::{Loop, Program, is_spill, is_whole_load, loaded_bytes, vector_bytes};

/// How a variant's loops are known.
pub(super) struct Form {
    /// The op.
    pub(super) op: &'static str,
    /// The level.
    pub(super) isa: &'static str,
    /// The function that the table of kernels holds.
    function: &'static str,
    /// Instructions on whole registers that do the op's work: a hot loop has some.
    work: &'static [Mnemonic],
    /// How the weights of a turn are counted.
    weights: Weights,
    /// How the tokens of a turn are counted.
    pub(super) tokens: Tokens,
}

/// How the weights of a turn are counted. Every variant that walks packed weights prefetches each line of them once, in
/// its innermost loop or around it.
#[derive(Clone, Copy)]
enum Weights {
    /// So many to a prefetched line.
    Prefetched(usize),
    /// So many to 64 bytes that are loaded as whole registers.
    Loaded(usize),
    /// So many to an instruction that takes a plane out of a line.
    Unpacked(usize),
    /// So many to an instruction of work on registers alone: digits of one token's weights, loaded around the loop.
    Worked(usize),
}

/// How the tokens of a turn are counted.
#[derive(Clone, Copy)]
pub(super) enum Tokens {
    /// There is one.
    One,
    /// There are several, and an instruction of work multiplies so many weights with one of them.
    Several(usize),
    /// There is one or more, likewise.
    Any(usize),
}

impl Tokens {
    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Tokens::One => "one token",
            Tokens::Several(_) => "several tokens",
            Tokens::Any(_) => "any tokens",
        }
    }
}

const DOT: &[Mnemonic] = &[Mnemonic::Vpdpbusd];
const PAIRS: &[Mnemonic] = &[Mnemonic::Vpmaddubsw];
const SHUFFLE: &[Mnemonic] = &[Mnemonic::Vpshufb];
const PERMUTE: &[Mnemonic] = &[Mnemonic::Vpermb];
const PERMUTE_TWO: &[Mnemonic] = &[Mnemonic::Vpermi2b, Mnemonic::Vpermt2b];

/// A line of the table below.
const fn form(
    op: &'static str,
    isa: &'static str,
    function: &'static str,
    work: &'static [Mnemonic],
    weights: Weights,
    tokens: Tokens,
) -> Form {
    Form { op, isa, function, work, weights, tokens }
}

/// Every variant whose loops are known. Weights to a line follow from the layout; weights to an instruction too: a dot
/// product or a pair of them takes a byte a weight, a lookup of one of two digits half of the weights of its indices.
#[rustfmt::skip]
pub(super) const FORMS: &[Form] = &{
    use Tokens::*;
    use Weights::*;
    [
        form("ternary/i2", "avx2", "kernels::ternary::i2::avx2::matmul", PAIRS, Prefetched(256), Any(32)),
        form("ternary/i2", "avx512", "kernels::ternary::i2::avx512::matmul", DOT, Prefetched(256), Any(64)),
        form("ternary/i2", "avx512", "kernels::ternary::i2::avx512::matmul", DOT, Unpacked(64), Several(64)),
        form("ternary/t5", "avx2", "kernels::ternary::t5::avx2::matmul", PAIRS, Worked(32), One),
        form("ternary/t5", "avx2", "kernels::ternary::t5::avx2::matmul", PAIRS, Loaded(64), Several(32)),
        form("ternary/t5", "avx512", "kernels::ternary::t5::avx512::matmul", PERMUTE_TWO, Prefetched(320), One),
        form("ternary/t5", "avx512", "kernels::ternary::t5::avx512::matmul", DOT, Loaded(64), Several(64)),
        form("ternary/t5_digits", "avx512", "kernels::ternary::t5::digits::avx512::matmul", DOT, Worked(32), One),
        form("ternary/tmac", "avx2", "kernels::ternary::tmac::avx2::matmul", SHUFFLE, Prefetched(256), Any(32)),
        form("ternary/tmac", "avx512", "kernels::ternary::tmac::avx512::matmul", SHUFFLE, Prefetched(256), Any(64)),
        form("ternary/tl2", "avx2", "kernels::ternary::tl2::avx2::matmul", SHUFFLE, Loaded(384), Any(48)),
        form("ternary/tl2", "avx512", "kernels::ternary::tl2::avx512::matmul", PERMUTE, Loaded(384), Any(96)),
        form("dense/q8", "avx2", "kernels::grouped::q8::avx2::matmul", PAIRS, Prefetched(64), Any(32)),
        form("dense/q8", "avx512", "kernels::grouped::q8::avx512::matmul", DOT, Prefetched(64), Any(64)),
        form("dense/q4", "avx2", "kernels::grouped::q4::avx2::matmul", PAIRS, Prefetched(128), Any(32)),
        form("dense/q4", "avx512", "kernels::grouped::q4::avx512::matmul", DOT, Prefetched(128), Any(64)),
    ]
};

/// A loop of a form.
pub(super) struct Hot {
    pub(super) form: &'static Form,
    pub(super) body: Loop,
    /// Weights that a turn reads.
    pub(super) weights: usize,
    /// Tokens that it multiplies them with.
    pub(super) tokens: usize,
    /// Whether it is the one to look at, for one token or for several.
    pub(super) hot: bool,
    /// Streams of memory that it walks side by side.
    streams: usize,
    /// Instructions of work.
    work: usize,
}

impl Form {
    /// The form's loops: those whose weights and tokens come out whole. Hot is, for one token, the one with the most
    /// streams, since that is how a matrix's rows are walked until few are left; then the one with the most work,
    /// with the most tokens, with the fewest instructions.
    pub(super) fn find(&'static self, program: &Program<'_>) -> Vec<Hot> {
        let functions = program.reached_from(self.function);
        let loops = functions.iter().flat_map(|function| function.loops());
        let mut found: Vec<Hot> = loops.filter_map(|body| self.matched(body)).collect();
        let rank = |hot: &Hot| {
            let streams = if hot.tokens == 1 { hot.streams } else { 0 };
            (streams, hot.work, hot.tokens, std::cmp::Reverse(hot.body.instructions.len()))
        };
        for several in [false, true] {
            let of_kind = found.iter_mut().filter(|hot| (hot.tokens > 1) == several);
            // The first of equals.
            if let Some(best) = of_kind.rev().max_by_key(|hot| rank(hot)) {
                best.hot = true;
            }
        }
        found
    }

    fn matched(&'static self, body: Loop) -> Option<Hot> {
        let width = if self.isa == "avx512" { 64 } else { 32 };
        let work = body.count(|i| self.work.contains(&i.mnemonic()) && vector_bytes(i) == width);
        let weights = match self.weights {
            Weights::Prefetched(to_a_line) => prefetches(&body).len() * to_a_line,
            // Packed weights that are prefetched in the same turn are not yet unpacked ones.
            Weights::Loaded(_) if !prefetches(&body).is_empty() => 0,
            Weights::Loaded(to_a_line) => {
                let whole = body.instructions.iter().filter(|i| is_whole_load(i));
                whole.map(loaded_bytes).sum::<usize>() * to_a_line / 64
            }
            Weights::Unpacked(to_one) => body.count(|i| i.mnemonic() == Mnemonic::Vpmultishiftqb) * to_one,
            Weights::Worked(_) if body.count(is_whole_load) > 0 => 0,
            Weights::Worked(to_one) => work * to_one,
        };
        if work == 0 || weights == 0 {
            return None;
        }
        let tokens = match self.tokens {
            Tokens::One => 1,
            Tokens::Several(to_one) | Tokens::Any(to_one) => {
                let products = work * to_one;
                if !products.is_multiple_of(weights) {
                    return None;
                }
                products / weights
            }
        };
        if matches!(self.tokens, Tokens::Several(_)) && tokens == 1 {
            return None;
        }
        // Lines of one stream are told apart by their distance, streams by where they begin.
        let ahead = prefetches(&body);
        let streams = ahead.iter().map(|one| ahead.iter().filter(|other| *other == one).count()).max().unwrap_or(0);
        Some(Hot { form: self, body, weights, tokens, hot: false, streams, work })
    }
}

/// The constant distances of a loop's prefetches.
fn prefetches(body: &Loop) -> Vec<u64> {
    let of = body.instructions.iter().filter(|i| i.mnemonic() == Mnemonic::Prefetcht0);
    of.map(iced_x86::Instruction::memory_displacement64).collect()
}

impl Hot {
    /// Where it begins.
    pub(super) fn address(&self) -> String {
        format!("{:#x}", self.body.address)
    }

    /// As a row.
    pub(super) fn row(&self) -> LoopRow {
        LoopRow {
            op: self.form.op.to_string(),
            isa: self.form.isa.to_string(),
            address: self.address(),
            instructions: self.body.instructions.len(),
            vector_instructions: self.body.count(|i| vector_bytes(i) > 0),
            spills: self.body.count(is_spill),
            weights: self.weights,
            tokens: self.tokens,
            hot: self.hot,
        }
    }
}
