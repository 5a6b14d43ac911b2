//! What this process took of memory, by purpose: the books that kernels and engines keep, beside what the operating system
//! says.

use kernels::memory::{self, Purpose};
use serde::{Deserialize, Serialize};

use crate::report::format;
use crate::speed;

/// Bytes by purpose, now and at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// What it was reserved for.
    pub purposes: Vec<Reserved>,
    /// Everything reserved but mapped files. Its high-water mark is that of the sum.
    pub allocated: Usage,
    /// What lay in memory of the whole process, code and libraries included; absent where the system does not tell.
    pub resident: Option<Usage>,
}

/// Memory for one purpose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reserved {
    /// The name of a [`Purpose`].
    pub purpose: String,
    /// How much.
    #[serde(flatten)]
    pub usage: Usage,
}

/// Bytes at a moment, and the most so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// When it was asked.
    pub bytes: u64,
    /// At most, up to then.
    pub high_water_bytes: u64,
}

impl From<memory::Usage> for Usage {
    fn from(usage: memory::Usage) -> Usage {
        Usage { bytes: usage.bytes as u64, high_water_bytes: usage.high_water_bytes as u64 }
    }
}

impl MemoryStats {
    /// How things stand.
    pub fn now() -> MemoryStats {
        let books = memory::MemoryStats::now();
        let reserved = |purpose: Purpose| Reserved { purpose: purpose.name().into(), usage: books.of(purpose).into() };
        let resident = speed::resident_bytes().ok().zip(speed::peak_resident_bytes().ok());
        MemoryStats {
            purposes: Purpose::ALL.map(reserved).into(),
            allocated: books.allocated.into(),
            resident: resident.map(|(bytes, high_water_bytes)| Usage { bytes, high_water_bytes }),
        }
    }

    /// For a table: what, how much now, and how much at most.
    pub fn lines(&self) -> Vec<[String; 3]> {
        let purposes = self.purposes.iter().map(|reserved| (reserved.purpose.as_str(), reserved.usage));
        let sums = [("allocated, all", self.allocated)].into_iter();
        let all = purposes.chain(sums).chain(self.resident.map(|usage| ("resident, by the system", usage)));
        let line = |(what, usage): (&str, Usage)| {
            [what.to_string(), format::bytes(usage.bytes), format::bytes(usage.high_water_bytes)]
        };
        all.map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_stands_in_the_statistics_and_they_can_be_read_back() {
        // Other tests of this process reserve as well, so only bounds are certain.
        let held = memory::Reservation::new(Purpose::Measuring, 3 << 30);
        let stats = MemoryStats::now();
        drop(held);
        let measuring = stats.purposes.iter().find(|reserved| reserved.purpose == "measuring").unwrap();
        assert!(measuring.usage.bytes >= 3 << 30 && stats.allocated.high_water_bytes >= 3 << 30);
        if let Some(resident) = stats.resident {
            assert!(0 < resident.bytes && resident.bytes <= resident.high_water_bytes);
        }
        let text = serde_json::to_string(&stats).unwrap();
        assert_eq!(serde_json::from_str::<MemoryStats>(&text).unwrap(), stats);
        assert!(text.contains(r#"{"purpose":"measuring","bytes":"#), "{text}");
    }

    #[test]
    fn every_purpose_and_both_sums_have_a_line() {
        let usage = |bytes| Usage { bytes, high_water_bytes: 2 * bytes };
        let purposes = Purpose::ALL.map(|purpose| Reserved { purpose: purpose.name().into(), usage: usage(1 << 20) });
        let mut stats = MemoryStats { purposes: purposes.into(), allocated: usage(4 << 20), resident: None };
        let lines = stats.lines();
        assert_eq!(lines.len(), Purpose::ALL.len() + 1);
        assert_eq!(lines[0], ["weights", "1 MiB", "2 MiB"].map(String::from));
        stats.resident = Some(usage(5));
        assert_eq!(stats.lines().pop().unwrap()[1..], ["5 B", "10 B"].map(String::from));
    }
}
