//! Finds the innermost loops of a function in this program's own file, and writes them as assembly.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, Instruction, OpKind, Register};
use object::{Architecture, Object, ObjectSection, ObjectSymbol, SymbolKind};

/// The machine code of a program, by function.
pub(super) struct Program<'a> {
    /// By address.
    functions: BTreeMap<u64, Function<'a>>,
}

/// A function.
#[derive(Clone, Copy)]
pub(super) struct Function<'a> {
    /// As the linker knows it.
    pub(super) name: &'a str,
    /// Where it begins.
    address: u64,
    code: &'a [u8],
}

/// An innermost loop.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Loop {
    /// Where it begins.
    pub(super) address: u64,
    /// One turn, in the order of execution.
    pub(super) instructions: Vec<Instruction>,
}

impl<'a> Program<'a> {
    /// Reads an ELF file for x86-64.
    ///
    /// # Errors
    /// It is no such file, or has no symbols.
    pub(super) fn read(file: &'a [u8]) -> Result<Program<'a>> {
        let file = object::File::parse(file).context("this program's file is not an ELF file")?;
        ensure!(file.architecture() == Architecture::X86_64, "this program is not one for x86-64");
        let mut functions = BTreeMap::new();
        for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
            let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
            let code = section.and_then(|section| section.data_range(symbol.address(), symbol.size()).ok().flatten());
            if let (Ok(name), Some(code)) = (symbol.name(), code) {
                functions.insert(symbol.address(), Function { name, address: symbol.address(), code });
            }
        }
        if functions.is_empty() {
            bail!("this program's file has no symbols");
        }
        Ok(Program { functions })
    }

    /// The function of a path, and all of the crate `kernels` that it calls by name, directly or not.
    pub(super) fn reached_from(&self, path: &str) -> Vec<Function<'a>> {
        let needle = mangled(path);
        let entries = self.functions.values().filter(|function| is_named(function.name, &needle));
        let mut waiting: Vec<Function<'a>> = entries.copied().collect();
        let mut seen: BTreeSet<u64> = waiting.iter().map(|function| function.address).collect();
        let mut reached = Vec::new();
        while let Some(function) = waiting.pop() {
            reached.push(function);
            for target in function.decoded().iter().filter_map(called) {
                let callee = self.functions.get(&target).filter(|callee| callee.name.contains("kernels"));
                if let Some(callee) = callee.filter(|callee| seen.insert(callee.address)) {
                    waiting.push(*callee);
                }
            }
        }
        reached.sort_by_key(|function| function.address);
        reached
    }
}

impl Function<'_> {
    fn decoded(&self) -> Vec<Instruction> {
        Decoder::with_ip(64, self.code, self.address, DecoderOptions::NONE).into_iter().collect()
    }

    /// Its innermost loops.
    pub(super) fn loops(&self) -> Vec<Loop> {
        innermost(&self.decoded())
    }
}

/// `kernels::dense::avx2` as both of Rust's manglings have it: `7kernels5dense4avx2`.
fn mangled(path: &str) -> String {
    path.split("::").map(|name| format!("{}{name}", name.len())).collect()
}

/// Whether a symbol is the function of that path, not something within it: nothing but a hash (`17h…E`) may follow.
fn is_named(symbol: &str, needle: &str) -> bool {
    symbol.split_once(needle).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with("17h"))
}

/// Where a call or a jump goes, if the instruction says.
fn called(instruction: &Instruction) -> Option<u64> {
    let direct = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::UnconditionalBranch);
    (direct && instruction.op0_kind() == OpKind::NearBranch64).then(|| instruction.near_branch_target())
}

/// Where a branch goes, if the instruction is one and says.
fn branch(instruction: &Instruction) -> Option<u64> {
    let branch =
        matches!(instruction.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch);
    (branch && instruction.op0_kind() == OpKind::NearBranch64).then(|| instruction.near_branch_target())
}

/// Basic blocks by the address of their first instruction.
type Blocks<'a> = BTreeMap<u64, Block<'a>>;

/// Instructions that are executed from the first to the last.
struct Block<'a> {
    instructions: &'a [Instruction],
    /// Blocks that may follow.
    next: Vec<u64>,
}

/// Cuts a function at its branches and their targets.
fn blocks(instructions: &[Instruction]) -> Blocks<'_> {
    let targets: BTreeSet<u64> = instructions.iter().filter_map(branch).collect();
    let ends = |pair: &[Instruction]| match pair {
        [last, next] => last.flow_control() == FlowControl::Next && !targets.contains(&next.ip()),
        _ => true,
    };
    let mut cut: Vec<&[Instruction]> = Vec::new();
    let mut start = 0;
    for (i, pair) in instructions.windows(2).enumerate() {
        if !ends(pair) {
            cut.push(&instructions[start..=i]);
            start = i + 1;
        }
    }
    cut.push(&instructions[start..]);
    let starts: BTreeSet<u64> = cut.iter().filter_map(|block| block.first()).map(Instruction::ip).collect();
    let block = |block: &'_ [Instruction]| {
        let last = block.last()?;
        let falls = !matches!(
            last.flow_control(),
            FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::Return
                | FlowControl::Exception
        );
        let next = branch(last).into_iter().chain(falls.then(|| last.next_ip()));
        Some(next.filter(|address| starts.contains(address)).collect::<Vec<u64>>())
    };
    let entry = |instructions| block(instructions).map(|next| (instructions[0].ip(), Block { instructions, next }));
    cut.into_iter().filter_map(entry).collect()
}

/// Blocks from each of which every other can be reached, over edges that do not lead to `header`.
fn cycles(blocks: &Blocks<'_>, among: &BTreeSet<u64>, header: Option<u64>) -> Vec<BTreeSet<u64>> {
    let next = |at: u64| blocks[&at].next.iter().copied().filter(|next| among.contains(next) && Some(*next) != header);
    let mut before: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for at in among {
        next(*at).for_each(|to| before.entry(to).or_default().push(*at));
    }
    // Kosaraju: blocks in the order in which a walk leaves them, then a walk against the edges from the last of them.
    let (mut seen, mut left) = (BTreeSet::new(), Vec::new());
    for start in among {
        let mut walk = vec![(*start, false)];
        while let Some((at, leave)) = walk.pop() {
            if leave {
                left.push(at);
            } else if seen.insert(at) {
                walk.push((at, true));
                walk.extend(next(at).map(|to| (to, false)));
            }
        }
    }
    let (mut found, mut assigned) = (Vec::new(), BTreeSet::new());
    for start in left.into_iter().rev() {
        let mut component = BTreeSet::new();
        let mut walk = vec![start];
        while let Some(at) = walk.pop() {
            if assigned.insert(at) {
                component.insert(at);
                walk.extend(before.get(&at).into_iter().flatten());
            }
        }
        if component.len() > 1 || component.iter().any(|at| next(*at).any(|to| to == *at)) {
            found.push(component);
        }
    }
    found
}

/// The loops that hold no other, each with the path through it that has the most vector instructions and, of these, the
/// fewest instructions. Those with a call on that path are left out.
fn innermost(instructions: &[Instruction]) -> Vec<Loop> {
    let blocks = blocks(instructions);
    let mut found = Vec::new();
    let mut waiting = cycles(&blocks, &blocks.keys().copied().collect(), None);
    while let Some(component) = waiting.pop() {
        // Where it is entered; a loop that is entered at several places is taken to begin at the first.
        let outside = blocks.iter().filter(|(at, _)| !component.contains(at));
        let entered: BTreeSet<u64> = outside.flat_map(|(_, block)| &block.next).copied().collect();
        let Some(header) = component.iter().find(|at| entered.contains(at)).or(component.first()).copied() else {
            continue;
        };
        let inner = cycles(&blocks, &component, Some(header));
        if inner.is_empty() {
            let path = path(&blocks, &component, header);
            let calls = |i: &Instruction| matches!(i.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
            if !path.is_empty() && !path.iter().any(|i| calls(i) || i.is_invalid()) {
                found.push(Loop { address: header, instructions: path });
            }
        }
        waiting.extend(inner);
    }
    found.sort_by_key(|found| found.address);
    found
}

/// The best way from the header of an innermost loop back to it.
fn path(blocks: &Blocks<'_>, component: &BTreeSet<u64>, header: u64) -> Vec<Instruction> {
    // Without edges to the header the blocks have no cycle: a block's best way follows from those of the next.
    let mut best: BTreeMap<u64, (usize, Reverse<usize>, Option<u64>)> = BTreeMap::new();
    let mut walk = vec![header];
    while let Some(at) = walk.last().copied() {
        let block = &blocks[&at];
        let inside = || block.next.iter().copied().filter(|to| component.contains(to) && *to != header);
        let unknown: Vec<u64> = inside().filter(|to| !best.contains_key(to)).collect();
        if !unknown.is_empty() {
            walk.extend(unknown);
            continue;
        }
        walk.pop();
        let closes = block.next.contains(&header).then_some((0, Reverse(0), None));
        let onward = inside().map(|to| (best[&to].0, best[&to].1, Some(to)));
        // A block of a component reaches the header, so there is always a way.
        if let Some((vector, Reverse(length), to)) = onward.chain(closes).max() {
            let own = block.instructions.iter().filter(|i| vector_bytes(i) > 0).count();
            best.insert(at, (vector + own, Reverse(length + block.instructions.len()), to));
        }
    }
    let mut path = Vec::new();
    let mut at = Some(header);
    while let Some(here) = at {
        path.extend_from_slice(blocks[&here].instructions);
        at = best.get(&here).and_then(|(_, _, to)| *to);
    }
    path
}

/// The width in bytes of the widest vector register that an instruction names; 0 where it names none.
pub(super) fn vector_bytes(instruction: &Instruction) -> usize {
    let registers = (0..instruction.op_count()).filter(|i| instruction.op_kind(*i) == OpKind::Register);
    let registers = registers.map(|i| instruction.op_register(i)).filter(|register| register.is_vector_register());
    registers.map(|register| register.size()).max().unwrap_or(0)
}

/// Bytes that it reads from memory into or with a vector register; 0 if none.
pub(super) fn loaded_bytes(instruction: &Instruction) -> usize {
    let reads = (1..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
    if reads && vector_bytes(instruction) > 0 { instruction.memory_size().size() } else { 0 }
}

/// Whether it reads all of a vector register from memory, but neither from the stack nor a constant.
pub(super) fn is_whole_load(instruction: &Instruction) -> bool {
    let bytes = loaded_bytes(instruction);
    bytes > 0
        && bytes == vector_bytes(instruction)
        && !instruction.is_broadcast()
        && !matches!(instruction.memory_base(), Register::RSP | Register::RIP)
}

/// Bytes that it writes from a vector register to memory; 0 if none.
pub(super) fn stored_bytes(instruction: &Instruction) -> usize {
    let writes = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory;
    if writes && vector_bytes(instruction) > 0 { instruction.memory_size().size() } else { 0 }
}

/// Whether it writes a vector register to the stack.
pub(super) fn is_spill(instruction: &Instruction) -> bool {
    stored_bytes(instruction) > 0 && instruction.memory_base() == Register::RSP
}

impl Loop {
    /// How many of its instructions are so.
    pub(super) fn count(&self, is: impl Fn(&Instruction) -> bool) -> usize {
        self.instructions.iter().filter(|instruction| is(instruction)).count()
    }

    /// In the syntax of GNU's assembler.
    pub(super) fn assembly(&self) -> String {
        let mut formatter = GasFormatter::new();
        let options = formatter.options_mut();
        options.set_rip_relative_addresses(true);
        options.set_gas_show_mnemonic_size_suffix(true);
        let mut text = String::new();
        for instruction in &self.instructions {
            formatter.format(instruction, &mut text);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loops(code: &[u8]) -> Vec<Loop> {
        Function { name: "f", address: 0x1000, code }.loops()
    }

    #[test]
    fn only_the_innermost_of_nested_loops_is_found() {
        // 0: xor ecx, ecx; 2: vpaddd ymm0, ymm0, [rdi]; 6: dec ecx; 8: jne 2; 10: dec edx; 12: jne 0; 14: ret
        let code = [0x31, 0xC9, 0xC5, 0xFD, 0xFE, 0x07, 0xFF, 0xC9, 0x75, 0xF8, 0xFF, 0xCA, 0x75, 0xF2, 0xC3];
        let found = loops(&code);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].address, found[0].instructions.len()), (0x1002, 3));
        assert_eq!(found[0].assembly().lines().next(), Some("vpaddd (%rdi),%ymm0,%ymm0"));
        assert_eq!(found[0].count(|i| vector_bytes(i) == 32 && loaded_bytes(i) == 32 && is_whole_load(i)), 1);
    }

    #[test]
    fn a_turn_follows_the_vector_instructions_and_not_the_addresses() {
        // 0: test ecx, ecx; 2: je 10; 4: nop; 5: dec edx; 7: jne 0; 9: ret; 10: vpxor ymm0, ymm0, ymm0; 14: jmp 5
        let code = [0x85, 0xC9, 0x74, 0x06, 0x90, 0xFF, 0xCA, 0x75, 0xF7, 0xC3, 0xC5, 0xFD, 0xEF, 0xC0, 0xEB, 0xF5];
        let found = loops(&code);
        assert_eq!(found.len(), 1);
        let at: Vec<u64> = found[0].instructions.iter().map(|i| i.ip() - 0x1000).collect();
        assert_eq!(at, [0, 2, 10, 14, 5, 7]);
    }

    #[test]
    fn loops_with_calls_and_code_without_loops_give_nothing() {
        // 0: call 0x1100; 5: jne 0; 7: ret
        assert!(loops(&[0xE8, 0xFB, 0x00, 0x00, 0x00, 0x75, 0xF9, 0xC3]).is_empty());
        assert!(loops(&[0xC3]).is_empty());
        assert!(loops(&[]).is_empty());
        // Cut off in the middle of an instruction; branches to nowhere and into instructions.
        assert!(loops(&[0x62, 0xF1]).is_empty());
        assert!(loops(&[0x75, 0x7F, 0xEB, 0xFD, 0xC3]).is_empty());
    }

    #[test]
    fn masks_and_broadcasts_are_written_as_the_assembler_reads_them() {
        let text = |code: &[u8]| {
            let instruction = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode();
            Loop { address: 0, instructions: vec![instruction] }.assembly()
        };
        assert_eq!(text(&[0x62, 0xF2, 0x75, 0x58, 0x50, 0x10]), "vpdpbusd (%rax){1to16},%zmm1,%zmm2\n");
        assert_eq!(text(&[0x62, 0xF1, 0x6D, 0x49, 0xF8, 0xD9]), "vpsubb %zmm1,%zmm2,%zmm3{%k1}\n");
        assert_eq!(text(&[0x62, 0xF2, 0x5D, 0x48, 0x75, 0xEB]), "vpermi2b %zmm3,%zmm4,%zmm5\n");
    }

    #[test]
    fn symbols_are_found_in_both_manglings_but_not_what_lies_within() {
        let needle = mangled("kernels::ternary::i2::avx2::matmul");
        assert_eq!(needle, "7kernels7ternary2i24avx26matmul");
        assert!(is_named("_ZN7kernels7ternary2i24avx26matmul17h3cdd10c17a28f14bE.llvm.123", &needle));
        assert!(is_named("_RNvNtNtNtNtCs1234_7kernels7ternary2i24avx26matmul", &needle));
        assert!(!is_named("_ZN7kernels7ternary2i24avx26matmul28_$u7b$$u7b$closure$u7d$$u7d$17h3cddE", &needle));
        assert!(!is_named("_ZN7kernels7ternary2i26avx5126matmul17h3cddE", &needle));
    }

    #[test]
    fn a_file_of_another_kind_is_an_error() {
        for file in [&b""[..], b"MZ", b"\x7FELF", &[0; 100]] {
            assert!(Program::read(file).is_err());
        }
    }
}
