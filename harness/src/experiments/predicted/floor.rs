//! The least cycles of a loop that a CPU's documented widths allow: no schedule, a bound by counting.
//!
//! Source: AMD, Software Optimization Guides for the Zen 4 (57647) and Zen 5 (58455) microarchitectures: Zen 4 splits
//! 512-bit operations between halves of 256 bits, desktop and server Zen 5 does not; four vector pipes, two of which
//! multiply integers and two shuffle bytes; two vector loads a cycle.

use iced_x86::Mnemonic;

use super::loops::{Loop, loaded_bytes, vector_bytes};

/// How wide a CPU is.
struct Widths {
    cpu: &'static str,
    /// Bytes of a vector that a pipe takes in a cycle.
    bytes: usize,
    /// Operations that enter in a cycle.
    dispatch: f64,
}

const WIDTHS: &[Widths] =
    &[Widths { cpu: "znver4", bytes: 32, dispatch: 6.0 }, Widths { cpu: "znver5", bytes: 64, dispatch: 8.0 }];

/// Vector pipes; pipes that multiply, that shuffle; loads a cycle.
const PIPES: f64 = 4.0;
const SOME: f64 = 2.0;

/// The least cycles of a turn, and what they are bound by; `None` for a CPU whose widths are not known here.
pub(super) fn of(cpu: &str, body: &Loop) -> Option<(f64, &'static str)> {
    let widths = WIDTHS.iter().find(|widths| widths.cpu == cpu)?;
    let (mut vector, mut multiplies, mut shuffles, mut loads) = (0, 0, 0, 0);
    for i in &body.instructions {
        let halves = vector_bytes(i).div_ceil(widths.bytes);
        loads += loaded_bytes(i).div_ceil(widths.bytes);
        if is_move(i.mnemonic()) {
            continue;
        }
        vector += halves;
        multiplies += if is_multiply(i.mnemonic()) { halves } else { 0 };
        shuffles += if is_shuffle(i.mnemonic()) { halves } else { 0 };
    }
    let bounds = [
        (body.instructions.len() as f64 / widths.dispatch, "dispatch"),
        (vector as f64 / PIPES, "vector pipes"),
        (multiplies as f64 / SOME, "multiplies"),
        (shuffles as f64 / SOME, "shuffles"),
        (loads as f64 / SOME, "loads"),
    ];
    bounds.into_iter().reduce(|most, next| if next.0 > most.0 { next } else { most })
}

/// The least cycles of an operation on so many bytes for which there are two pipes: multiplies, shuffles, loads.
pub(super) fn of_some_pipes(cpu: &str, bytes: usize) -> Option<f64> {
    let widths = WIDTHS.iter().find(|widths| widths.cpu == cpu)?;
    Some(bytes.div_ceil(widths.bytes) as f64 / SOME)
}

/// Loads, stores, broadcasts from memory and copies, which take no vector pipe (copies are renamed). Broadcasts from a
/// register do take one; that they are let off keeps this a bound.
fn is_move(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Vmovdqa
            | Vmovdqa32
            | Vmovdqa64
            | Vmovdqu
            | Vmovdqu8
            | Vmovdqu16
            | Vmovdqu32
            | Vmovdqu64
            | Vmovaps
            | Vmovups
            | Vmovapd
            | Vmovupd
            | Vpbroadcastb
            | Vpbroadcastw
            | Vpbroadcastd
            | Vpbroadcastq
            | Vbroadcastss
            | Vbroadcastsd
            | Vbroadcasti128
            | Vbroadcastf128
            | Vbroadcasti32x4
            | Vbroadcastf32x4
            | Vbroadcasti64x4
    )
}

fn is_multiply(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Vpdpbusd | Vpmaddubsw | Vpmaddwd | Vpmullw | Vpmulld | Vmulps | Vfmadd132ps | Vfmadd213ps | Vfmadd231ps
    )
}

fn is_shuffle(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Vpshufb
            | Vpermb
            | Vpermi2b
            | Vpermt2b
            | Vpunpcklbw
            | Vpunpckhbw
            | Vpunpcklwd
            | Vpunpckhwd
            | Vpunpckldq
            | Vpunpckhdq
    )
}
