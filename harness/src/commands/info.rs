//! `harness info`: the machine, what kernels it runs, and what it can reach.

use anyhow::Result;
use kernels::Isa;
use serde::Serialize;

use crate::ceilings::{Ceilings, Place};
use crate::compute;
use crate::experiments::kernels::{VariantRow, variants};
use crate::guests::Guests;
use crate::lab::Lab;
use crate::machine::{Compiler, Machine, MemoryNode};
use crate::memory::MemoryStats;
use crate::report::format;
use crate::{output, table};

/// What may be said after `harness info`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Measure with up to N threads [default: one for each physical core]
    #[arg(long, short = 't', value_name = "N", value_parser = compute::threads)]
    threads: Option<usize>,
}

/// Everything that is printed.
#[derive(Serialize)]
struct Info {
    machine: Machine,
    compiler: Compiler,
    levels: Vec<Level>,
    variants: Vec<VariantRow>,
    ceilings: Ceilings,
    /// Of this process, after it measured the ceilings.
    memory: MemoryStats,
}

#[derive(Serialize)]
struct Level {
    isa: &'static str,
    available: bool,
}

/// Does what `args` ask.
///
/// # Errors
/// Ceilings that cannot be measured, output that cannot be written.
pub fn run(args: Args, guests: &Guests) -> Result<()> {
    let machine = Machine::read();
    let threads = args.threads.unwrap_or_else(compute::default_threads);
    // Quick: a few tenths of a second for each ceiling would make one wait for half a minute.
    let lab = Lab::new(machine.clone(), threads, Isa::best(), 0, true).with_ops(&guests.ops);
    let info = Info {
        machine,
        compiler: Compiler::read(),
        levels: Isa::ALL.map(|isa| Level { isa: isa.name(), available: isa.is_available() }).into(),
        variants: lab.ops().iter().flat_map(|op| variants(op, &lab)).collect(),
        ceilings: lab.ceilings()?.clone(),
        memory: MemoryStats::now(),
    };
    if args.json { output::json(&info) } else { output::text(&text(&info)) }
}

fn text(info: &Info) -> String {
    let parts = [machine(info), kernels(info), bandwidths(&info.ceilings), peaks(&info.ceilings), memory(&info.memory)];
    parts.join("\n")
}

fn machine(info: &Info) -> String {
    let Info { machine, compiler, .. } = info;
    let unknown = || "unknown".to_string();
    let caches: Vec<String> = machine
        .caches
        .iter()
        .map(|c| {
            format!("L{} {} / {}", c.level, format::bytes(c.bytes), format::count(c.shared_by, "thread", "threads"))
        })
        .collect();
    let mut rows = vec![
        ["CPU", &machine.cpu].map(String::from),
        ["cores".to_string(), machine.cores.map_or_else(unknown, |cores| cores.to_string())],
        ["threads".to_string(), machine.threads.to_string()],
        ["caches".to_string(), if caches.is_empty() { unknown() } else { caches.join(", ") }],
        ["memory".to_string(), machine.memory_bytes.map_or_else(unknown, format::bytes)],
        ["page".to_string(), machine.page_bytes.map_or_else(unknown, format::bytes)],
        ["huge pages".to_string(), machine.huge_pages.clone().unwrap_or_else(unknown)],
        ["memory nodes".to_string(), nodes(&machine.memory_nodes)],
    ];
    // Features are many: so many a line.
    for (i, some) in machine.features.chunks(10).enumerate() {
        rows.push([if i == 0 { "features".to_string() } else { String::new() }, some.join(" ")]);
    }
    rows.push([
        "virtual machine".to_string(),
        machine.virtualised.map_or("unknown", |v| if v { "yes" } else { "no" }).into(),
    ]);
    rows.push(["governor".to_string(), machine.governor.clone().unwrap_or_else(unknown)]);
    rows.push(["system".to_string(), machine.system.clone()]);
    let flags = if compiler.flags.is_empty() { String::new() } else { format!(", flags {}", compiler.flags) };
    rows.push([
        "compiler".to_string(),
        format!("{}, {}, level {}{flags}", compiler.version, compiler.target, compiler.level),
    ]);
    table::plain(["machine", ""], rows) + "\n"
}

/// `0: CPUs 0-3, 16 GiB`.
fn nodes(nodes: &[MemoryNode]) -> String {
    let told = |node: &MemoryNode| {
        let cpus = if node.cpus.is_empty() { "no CPUs".to_string() } else { format!("CPUs {}", node.cpus) };
        let bytes = node.memory_bytes.map_or_else(String::new, |bytes| format!(", {}", format::bytes(bytes)));
        format!("{}: {cpus}{bytes}", node.node)
    };
    if nodes.is_empty() { "unknown".to_string() } else { nodes.iter().map(told).collect::<Vec<_>>().join("; ") }
}

fn memory(stats: &MemoryStats) -> String {
    table::plain(["memory of this process", "now", "at most"], stats.lines()) + "\n"
}

fn kernels(info: &Info) -> String {
    let level = |isa: Isa| {
        let name = isa.name();
        if isa.is_available() { name.to_string() } else { format!("{name} (not on this CPU)") }
    };
    let header = ["op".to_string(), level(Isa::Scalar), level(Isa::Avx2), level(Isa::Avx512)];
    let rows = info.variants.chunks(Isa::ALL.len()).map(|row| {
        let cell = |i: usize| row.get(i).map_or("–".to_string(), VariantRow::told);
        [row.first().map_or_else(String::new, |row| row.op.clone()), cell(0), cell(1), cell(2)]
    });
    table::plain(header.each_ref().map(String::as_str), rows) + "\n"
}

fn bandwidths(ceilings: &Ceilings) -> String {
    let mut rows = Vec::new();
    for b in &ceilings.bandwidths {
        rows.push([
            format!("read, {}", b.place.name()),
            b.threads.to_string(),
            format::bytes(b.working_set_bytes),
            b.streams.to_string(),
            format::number(b.gb_per_s.median, 3),
            if is_best(ceilings, b.place, b.threads, b.streams) { "◂ ceiling".to_string() } else { String::new() },
        ]);
    }
    table::plain(["bandwidth", "threads", "read by each", "streams", "GB/s", ""], rows) + "\n"
}

fn is_best(ceilings: &Ceilings, place: Place, threads: usize, streams: usize) -> bool {
    ceilings.bandwidth(place, threads).is_some_and(|best| best.streams == streams)
}

fn peaks(ceilings: &Ceilings) -> String {
    let rows = ceilings
        .peaks
        .iter()
        .map(|p| [p.arithmetic.clone(), p.isa.clone(), p.threads.to_string(), format::number(p.gops.median, 3)]);
    table::plain(["peak", "ISA", "threads", "GOPS"], rows) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_nodes_are_told_with_what_is_known_of_them() {
        let node = |node, cpus: &str, memory_bytes| MemoryNode { node, cpus: cpus.to_string(), memory_bytes };
        assert_eq!(nodes(&[]), "unknown");
        assert_eq!(nodes(&[node(0, "0-3,8", Some(16 << 30)), node(1, "", None)]), "0: CPUs 0-3,8, 16 GiB; 1: no CPUs");
    }
}
