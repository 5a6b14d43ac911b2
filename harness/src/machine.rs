//! Who the numbers are: the CPU, its caches, the memory, and the compiler that made this program.

use std::path::Path;

use kernels::Isa;
use serde::{Deserialize, Serialize};

/// The machine as far as it can be known without measuring. What cannot be read is absent, never guessed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The CPU's own name for itself.
    pub cpu: String,
    /// Family, model and stepping.
    pub cpu_model: Option<String>,
    /// The architecture that the program was compiled for.
    pub architecture: String,
    /// Operating system and its version.
    pub system: String,
    /// Threads that this process may use.
    pub threads: usize,
    /// Physical cores.
    pub cores: Option<usize>,
    /// Whether a hypervisor is underneath: times then include what neighbours do.
    pub virtualised: Option<bool>,
    /// The best ISA level.
    pub isa: String,
    /// Features that kernels use or could use and that the CPU has.
    pub features: Vec<String>,
    /// Data caches, nearest first.
    pub caches: Vec<Cache>,
    /// Main memory.
    pub memory_bytes: Option<u64>,
    /// An ordinary page of it.
    #[serde(default)]
    pub page_bytes: Option<u64>,
    /// When the system makes pages huge: `always`, `madvise` (where a program asks, as this one does for what is large) or
    /// `never`.
    #[serde(default)]
    pub huge_pages: Option<String>,
    /// The nodes that memory lies on, near some CPUs and farther from others; one in most machines. Empty where the system
    /// does not tell.
    #[serde(default)]
    pub memory_nodes: Vec<MemoryNode>,
    /// What chooses the clock frequency.
    pub governor: Option<String>,
    /// Whether the clock may rise above its nominal frequency.
    pub boost: Option<bool>,
}

/// One data or unified cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// 1 is nearest.
    pub level: u8,
    /// Its size.
    pub bytes: u64,
    /// Hardware threads that share one.
    pub shared_by: usize,
}

/// A part of memory and the CPUs near it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryNode {
    /// Its number.
    pub node: usize,
    /// The CPUs near it, as Linux lists them: `0-3,8`; empty where there are none.
    pub cpus: String,
    /// Its memory.
    pub memory_bytes: Option<u64>,
}

/// Who compiled this program, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compiler {
    /// `rustc --version`.
    pub version: String,
    /// The target triple.
    pub target: String,
    /// `opt-level` of this crate.
    pub level: String,
    /// Extra flags; empty when there were none.
    pub flags: String,
}

impl Compiler {
    /// The compiler of this very program.
    pub fn read() -> Compiler {
        Compiler {
            version: env!("BUILD_COMPILER").to_string(),
            target: env!("BUILD_TARGET").to_string(),
            level: env!("BUILD_LEVEL").to_string(),
            flags: env!("BUILD_FLAGS").to_string(),
        }
    }
}

impl Machine {
    /// Reads what the CPU and the operating system tell.
    pub fn read() -> Machine {
        Machine {
            cpu: cpu_name().unwrap_or_else(|| "unknown CPU".to_string()),
            cpu_model: cpu_model(),
            architecture: std::env::consts::ARCH.to_string(),
            system: system(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            cores: cores(),
            virtualised: virtualised(),
            isa: Isa::best().name().to_string(),
            features: features(),
            caches: caches(),
            memory_bytes: memory_bytes(),
            page_bytes: kernels::page_bytes().map(|bytes| bytes as u64),
            huge_pages: line("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|line| chosen(&line)),
            memory_nodes: memory_nodes(Path::new("/sys/devices/system/node")),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            boost: boost(),
        }
    }

    /// The size of the cache at a level, as one thread sees it.
    pub fn cache_bytes(&self, level: u8) -> Option<u64> {
        self.caches.iter().find(|cache| cache.level == level).map(|cache| cache.bytes)
    }

    /// The size of the last-level cache; 32 MiB where it is unknown.
    pub fn last_level_bytes(&self) -> u64 {
        self.caches.iter().max_by_key(|cache| cache.level).map_or(32 << 20, |cache| cache.bytes)
    }
}

/// The first line of a file, trimmed; `None` if it cannot be read or is empty.
fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_string()).filter(|line| !line.is_empty())
}

/// The value of the first `key : value` line of /proc/cpuinfo or /proc/meminfo.
fn proc_value(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_string())
}

#[cfg(target_arch = "x86_64")]
fn cpu_name() -> Option<String> {
    let brand = raw_cpuid::CpuId::new().get_processor_brand_string()?;
    Some(brand.as_str().split_whitespace().collect::<Vec<_>>().join(" ")).filter(|name| !name.is_empty())
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_name() -> Option<String> {
    ["model name", "Processor", "Hardware"].into_iter().find_map(|key| proc_value("/proc/cpuinfo", key))
}

#[cfg(target_arch = "x86_64")]
fn cpu_model() -> Option<String> {
    let id = raw_cpuid::CpuId::new();
    let vendor = id.get_vendor_info()?;
    let feature = id.get_feature_info()?;
    let (family, model, stepping) = (feature.family_id(), feature.model_id(), feature.stepping_id());
    Some(format!("{}, family {family}, model {model}, stepping {stepping}", vendor.as_str()))
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_model() -> Option<String> {
    proc_value("/proc/cpuinfo", "CPU part")
}

#[cfg(target_arch = "x86_64")]
fn virtualised() -> Option<bool> {
    raw_cpuid::CpuId::new().get_feature_info().map(|feature| feature.has_hypervisor())
}

#[cfg(not(target_arch = "x86_64"))]
fn virtualised() -> Option<bool> {
    None
}

fn system() -> String {
    let release = line("/proc/sys/kernel/osrelease").map(|release| format!(" {release}")).unwrap_or_default();
    format!("{}{release}", std::env::consts::OS)
}

/// Distinct (package, core) pairs of the CPUs that are online.
fn cores() -> Option<usize> {
    let mut seen = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("/sys/devices/system/cpu").ok()?.flatten() {
        let topology = entry.path().join("topology");
        if let (Some(package), Some(core)) =
            (line(topology.join("physical_package_id")), line(topology.join("core_id")))
        {
            seen.insert((package, core));
        }
    }
    Some(seen.len()).filter(|count| *count > 0)
}

fn memory_bytes() -> Option<u64> {
    let kib: u64 = proc_value("/proc/meminfo", "MemTotal")?.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The word in brackets: `always [madvise] never`.
fn chosen(line: &str) -> Option<String> {
    line.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']')).map(str::to_string)
}

/// The nodes of a folder with a folder `nodeN` for each.
fn memory_nodes(folder: &Path) -> Vec<MemoryNode> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let number = |name: &str| name.strip_prefix("node")?.parse().ok();
    let mut nodes: Vec<MemoryNode> = entries
        .flatten()
        .filter_map(|entry| {
            let node = number(&entry.file_name().to_string_lossy())?;
            let cpus = line(entry.path().join("cpulist")).unwrap_or_default();
            Some(MemoryNode { node, cpus, memory_bytes: node_bytes(&entry.path().join("meminfo")) })
        })
        .collect();
    nodes.sort_by_key(|node| node.node);
    nodes
}

/// `Node 0 MemTotal:       16738520 kB`.
fn node_bytes(meminfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let total = text.lines().find_map(|line| line.split_once("MemTotal:"))?.1;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn boost() -> Option<bool> {
    let raised = line("/sys/devices/system/cpu/cpufreq/boost").map(|value| value == "1");
    raised.or_else(|| line("/sys/devices/system/cpu/intel_pstate/no_turbo").map(|value| value == "0"))
}

/// Data and unified caches of the first CPU: as the operating system tells, else as the CPU does.
fn caches() -> Vec<Cache> {
    let from_system = system_caches();
    if from_system.is_empty() { cpu_caches() } else { from_system }
}

fn system_caches() -> Vec<Cache> {
    let mut caches = Vec::new();
    for index in 0..8 {
        let folder = Path::new("/sys/devices/system/cpu/cpu0/cache").join(format!("index{index}"));
        let kind = line(folder.join("type"));
        let level = line(folder.join("level")).and_then(|level| level.parse().ok());
        let bytes = line(folder.join("size")).and_then(|size| parse_size(&size));
        if let (Some(kind), Some(level), Some(bytes)) = (kind, level, bytes)
            && kind != "Instruction"
        {
            let shared_by = line(folder.join("shared_cpu_list")).map_or(1, |list| count_list(&list));
            caches.push(Cache { level, bytes, shared_by });
        }
    }
    caches.sort_by_key(|cache| cache.level);
    caches
}

/// `48K`, `2M`, `61440K` as bytes.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let scale = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

/// How many CPUs a list such as `0-3,8` names.
fn count_list(list: &str) -> usize {
    let count = |part: &str| -> Option<usize> {
        let mut ends = part.split('-').map(|n| n.trim().parse::<usize>());
        let first = ends.next()?.ok()?;
        let last = ends.next().map_or(Some(first), |n| n.ok())?;
        Some(last.checked_sub(first)? + 1)
    };
    list.split(',').filter_map(count).sum::<usize>().max(1)
}

#[cfg(target_arch = "x86_64")]
fn cpu_caches() -> Vec<Cache> {
    use raw_cpuid::CacheType;
    let Some(parameters) = raw_cpuid::CpuId::new().get_cache_parameters() else { return Vec::new() };
    parameters
        .filter(|cache| matches!(cache.cache_type(), CacheType::Data | CacheType::Unified))
        .map(|cache| Cache {
            level: cache.level(),
            bytes: (cache.sets() * cache.associativity() * cache.coherency_line_size()) as u64
                * cache.physical_line_partitions() as u64,
            shared_by: cache.max_cores_for_cache(),
        })
        .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_caches() -> Vec<Cache> {
    Vec::new()
}

/// The features that the ISA levels are made of, and a few that kernels may use next.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<String> {
    macro_rules! present {
        ($($name:tt),*) => {
            [$(($name, is_x86_feature_detected!($name))),*]
        };
    }
    let all = present!(
        "sse4.2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "bmi1",
        "bmi2",
        "gfni",
        "avxvnni",
        "avx512f",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vl",
        "avx512vnni",
        "avx512vbmi",
        "avx512vbmi2",
        "avx512bitalg",
        "avx512vpopcntdq",
        "avx512bf16",
        "avx512fp16"
    );
    all.into_iter().filter(|(_, present)| *present).map(|(name, _)| name.to_string()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_size("48K"), Some(49152));
        assert_eq!(parse_size("2M"), Some(2 << 20));
        assert_eq!(parse_size("12"), Some(12));
        assert_eq!(parse_size("12X"), None);
        assert_eq!(parse_size(""), None);
        assert_eq!(count_list("0-3,8"), 5);
        assert_eq!(count_list("0"), 1);
        assert_eq!(count_list("nonsense"), 1);
    }

    #[test]
    fn this_machine_can_be_described_and_its_description_read_back() {
        let machine = Machine::read();
        assert!(machine.threads >= 1 && !machine.cpu.is_empty());
        assert!(machine.caches.windows(2).all(|pair| pair[0].level <= pair[1].level));
        assert!(machine.last_level_bytes() >= machine.cache_bytes(1).unwrap_or(0));
        let text = serde_json::to_string(&machine).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&text).unwrap(), machine);
    }

    #[test]
    fn memory_nodes_are_read_in_order_and_what_is_none_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for (node, cpus, meminfo) in [
            ("node10", "", "Node 10 MemTotal:       2 kB\nNode 10 MemFree:        1 kB\n"),
            ("node0", "0-3,8\n", "Node 0 MemTotal: 16738520 kB\n"),
            ("node1", "4-7\n", "nonsense"),
            ("power", "9\n", ""),
        ] {
            let path = folder.path().join(node);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("cpulist"), cpus).unwrap();
            std::fs::write(path.join("meminfo"), meminfo).unwrap();
        }
        std::fs::write(folder.path().join("online"), "0-1,10").unwrap();
        let node = |node, cpus: &str, memory_bytes| MemoryNode { node, cpus: cpus.to_string(), memory_bytes };
        assert_eq!(
            memory_nodes(folder.path()),
            [node(0, "0-3,8", Some(16_738_520 << 10)), node(1, "4-7", None), node(10, "", Some(2048))]
        );
        assert_eq!(memory_nodes(&folder.path().join("absent")), []);
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("always madvise"), None);
    }

    #[test]
    fn the_compiler_is_known() {
        let compiler = Compiler::read();
        assert!(compiler.version.starts_with("rustc "), "{}", compiler.version);
        assert!(compiler.target.contains('-'));
    }
}
