//! The least cycles of a loop that a CPU's documented widths allow: no schedule, a bound by counting.
//!
//! Source: AMD, Software Optimization Guides for the Zen 4 (57647) and Zen 5 (58455) microarchitectures: Zen 4 splits
//! 512-bit operations between halves of 256 bits, desktop and server Zen 5 does not; four vector pipes, two of which
//! multiply integers and two shuffle bytes; two vector loads and one vector store a cycle.

use iced_x86::Mnemonic;

use super::loops::{Loop, loaded_bytes, stored_bytes, vector_bytes};

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
    let (mut vector, mut multiplies, mut shuffles, mut loads, mut stores) = (0, 0, 0, 0, 0);
    for i in &body.instructions {
        let halves = vector_bytes(i).div_ceil(widths.bytes);
        loads += loaded_bytes(i).div_ceil(widths.bytes);
        stores += stored_bytes(i).div_ceil(widths.bytes);
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
        (stores as f64, "stores"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    #[test]
    fn what_is_wider_than_a_pipe_takes_it_twice() {
        // vpdpbusd zmm2, zmm1, zmm0; vpxorq zmm5, zmm5, zmm10; vmovdqa64 zmm9, [r15 + 4 rsi]; vmovdqa64 [rsp], zmm9
        let code: [&[u8]; 4] = [
            &[0x62, 0xF2, 0x75, 0x48, 0x50, 0xD0],
            &[0x62, 0xD1, 0xD5, 0x48, 0xEF, 0xEA],
            &[0x62, 0x51, 0xFD, 0x48, 0x6F, 0x0C, 0xB7],
            &[0x62, 0x71, 0xFD, 0x48, 0x7F, 0x0C, 0x24],
        ];
        let turn = |which: &[usize]| {
            let code: Vec<u8> = which.iter().flat_map(|i| code[*i]).copied().collect();
            let instructions = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE).into_iter().collect();
            Loop { address: 0, instructions }
        };
        assert_eq!(of("znver4", &turn(&[0, 0, 1])), Some((2.0, "multiplies")));
        assert_eq!(of("znver5", &turn(&[0, 0, 1])), Some((1.0, "multiplies")));
        assert_eq!(of("znver4", &turn(&[1, 1, 1, 2])), Some((1.5, "vector pipes")));
        assert_eq!(of("znver4", &turn(&[2, 2, 2])), Some((3.0, "loads")));
        assert_eq!(of("znver5", &turn(&[2, 2, 3, 3])), Some((2.0, "stores")));
        assert_eq!(of("znver9", &turn(&[2])), None);
        assert_eq!((of_some_pipes("znver4", 64), of_some_pipes("znver5", 64)), (Some(1.0), Some(0.5)));
    }
}
