//! `harness kernels`: one quick answer about ops: checked, timed side by side, held to the machine's ceilings.

use std::path::PathBuf;

use anyhow::Result;
use kernels::Isa;
use kernels::probe::{Probe, Shape};

use crate::cli::UserError;
use crate::compute;
use crate::contest::Budget;
use crate::experiment::Experiment;
use crate::experiments::kernels::{Case, Config, KernelSpeeds, Row, ShapeText, SpeedRow, WorkingSet};
use crate::guests::Guests;
use crate::lab::{Lab, Threads};
use crate::machine::Machine;
use crate::profile::Profile;
use crate::report::format;
use crate::{output, table};

/// What may be said after `harness kernels`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Every variant is first checked against scalar on the same inputs. Then all variants of all ops run in turn in the same \
blocks, together with loops that read memory and multiply in registers, so that each speed stands beside the share of \
the ceiling of the same moment. The last column compares each op with the first one, on the same ISA level.

Examples:
  harness kernels --op ternary/i2 --shape 2560x6912x1
  harness kernels --op ternary/i2,ternary/t5,ternary/tl2,ternary/tmac --shape 2560x6912x1,2560x2560x1 --from memory -t 1,2
  harness kernels --op dense/bf16,dense/q8,dense/q4 --shape 32064x2560x1 --from memory --json")]
pub struct Args {
    /// Ops, as `harness list` names them; the others are compared with the first
    #[arg(long, value_name = "OP,...", value_delimiter = ',', required = true)]
    op: Vec<String>,
    /// Shapes: ROWSxCOLUMNSxTOKENS [default: the first op's shapes of real models]
    #[arg(long, value_name = "SHAPE,...", value_delimiter = ',')]
    shape: Vec<Shape>,
    /// Where the data lies
    #[arg(long, value_name = "PLACE", default_value = "cache", value_enum)]
    from: WorkingSet,
    /// Numbers of threads, each with its own data [default: 1]
    #[arg(long, short = 't', value_name = "T,...", value_delimiter = ',', value_parser = compute::threads)]
    threads: Vec<usize>,
    /// The highest ISA level that takes part [default: RYZANSTEIN_ISA, else the best that this CPU has]
    #[arg(long, value_name = "LEVEL", value_parser = compute::isa)]
    isa: Option<Isa>,
    /// Seconds for each shape and number of threads
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    seconds: f64,
    /// Seed of the inputs
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write a flame graph of the timed runs (slows them a little)
    #[arg(long, value_name = "FILE.svg")]
    profile: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does what `args` ask.
///
/// # Errors
/// Ops or shapes that there are not, a variant that differs from scalar, a speed above the machine's ceilings.
pub fn run(args: Args, guests: &Guests) -> Result<()> {
    let isa = match args.isa {
        Some(isa) => isa,
        None => Isa::from_environment()?,
    };
    let config = config(&args, &guests.all_ops())?;
    let most = args.threads.iter().copied().max().unwrap_or(1);
    let lab = Lab::new(Machine::read(), most, isa, args.seed, true).with_ops(&guests.ops);
    KernelSpeeds::check(&config, &lab).map_err(UserError::new)?;
    let profile = args.profile.as_deref().map(Profile::start).transpose()?;
    let sampler = profile.as_ref().map(Profile::sample).transpose()?;
    let mut rows = Vec::new();
    KernelSpeeds::run(&config, &lab, &mut |row| {
        if let Row::Speed(row) = row {
            rows.push(*row);
        }
        Ok(())
    })?;
    if let (Some(profile), Some(sampler)) = (profile, sampler) {
        profile.write(&sampler)?;
    }
    if args.json { output::json(&rows) } else { output::text(&text(&rows)) }
}

fn config(args: &Args, ops: &[Probe]) -> Result<Config> {
    let known = || ops.iter().map(|op| op.name);
    let find = |name: &String| Probe::find(ops, name).ok_or_else(|| UserError::unknown("op", name, known(), ""));
    let probes: Vec<&Probe> = args.op.iter().map(find).collect::<Result<_>>()?;
    let shapes = if args.shape.is_empty() { (probes[0].model_shapes)() } else { args.shape.clone() };
    let threads = if args.threads.is_empty() { vec![1] } else { args.threads.clone() };
    Ok(Config {
        budget: Budget { sample_ms: 2.0, min_blocks: 7, max_blocks: 1000, seconds: args.seconds, precision: 0.005 },
        threads: Threads::counts(&threads),
        scalar_operations: 400_000_000,
        others: 0,
        cases: vec![Case {
            ops: args.op.clone(),
            shapes: shapes.into_iter().map(ShapeText).collect(),
            working_sets: vec![args.from],
            threads: None,
            together: true,
            batches: false,
        }],
    })
}

fn text(rows: &[SpeedRow]) -> String {
    let ratio = |value: Option<crate::quantity::Timed>| value.map_or("-".to_string(), |r| format::timed(&r, 3));
    let cells = |row: &SpeedRow| {
        [
            row.shape().to_string(),
            row.working_set.name().to_string(),
            row.threads.to_string(),
            format!("{}@{}", row.op, row.isa),
            format::seconds(row.call_us.median / 1e6),
            format::number(row.gb_per_s.median, 3),
            format::number(row.gops.median, 3),
            format!("{} of {}", format::timed_percent(&row.share_of_ceiling), row.bound),
            ratio(row.speedup_over_scalar),
            ratio(row.speedup_over_rival),
        ]
    };
    let titles =
        ["shape", "from", "threads", "variant", "a call", "GB/s", "GOPS", "share of ceiling", "x scalar", "x first op"];
    table::plain(titles, rows.iter().map(cells)) + "\n"
}
